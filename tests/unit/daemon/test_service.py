"""Tests of sesguardd as a process: start, answer, change, stop, be killed."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rigs.daemon import Daemon, ask, running_daemon, start_daemon, wait_until
from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret

EXIM_FIRST = b"^AKIA0000000000000001^first-password"
EXIM_SECOND = b"^AKIA0000000000000002^second-password"
HOST = b"email-smtp.us-east-1.amazonaws.com"
NETSTRING = b"%d:ses %s," % (len(HOST) + 4, HOST)
POSTFIX_FIRST = b"38:OK AKIA0000000000000001:first-password,"

LISTEN = """
import os, socket, sys
for number, path in enumerate(os.environ["PATHS"].split(":"), 3):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    descriptor = listener.detach()
    os.dup2(descriptor, number)
    os.set_inheritable(number, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""

LIMIT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
os.execv(sys.argv[1], sys.argv[1:])
"""


def _is_answered(daemon: Daemon, answer: bytes) -> bool:
    return daemon.ask("exim", b"plain main\n") == answer


def _connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    return client


def test_both_protocols_are_answered_and_the_status_tells_it(host: Any) -> None:
    """The status holds key ids and numbers, and no password."""
    with running_daemon(host.settings_path) as daemon:
        assert daemon.ask("exim", b"plain main\n") == EXIM_FIRST
        with _connected(daemon.socket_path("postfix")) as client:
            client.sendall(NETSTRING)
            assert client.recv(1000) == POSTFIX_FIRST
        assert daemon.ask("exim", b"plain nobody\n") == b""
        status = daemon.status()

    assert daemon.pid == status["pid"]
    assert {"generation": 2, "problem": None} == status["vault"]
    assert {"granted": 2, "refused": 1} == status["lookups"]
    assert [
        {
            "id": "main",
            "current_version": 1,
            "username": "AKIA0000000000000001",
            "exposed": True,
            "created_at": "2026-01-01T00:00:00Z",
        }
    ] == status["credentials"]
    assert "password" not in str(status)


def test_sockets_have_the_modes_that_are_promised(host: Any) -> None:
    """Lookup sockets are for one group, the control socket and the directory for the owner."""
    with running_daemon(host.settings_path):
        modes = {path.name: path.stat().st_mode & 0o777 for path in host.run.glob("*.sock")}

        assert {"exim.sock": 0o660, "postfix.sock": 0o660, "control.sock": 0o600} == modes
        assert 0o755 == host.run.stat().st_mode & 0o777
        assert host.run.stat().st_uid == os.geteuid()


def test_a_protocol_without_users_has_no_socket(host: Any) -> None:
    """One settings file serves hosts with Exim and hosts with Postfix."""
    host.configure(postfix=["no-such-user"])

    with running_daemon(host.settings_path) as daemon:
        assert not daemon.socket_path("postfix").exists()
        skipped = daemon.events("socket.skipped")
    assert [("postfix", "none of its users exists")] == [(e["name"], e["detail"]) for e in skipped]


def test_a_version_that_is_changed_under_load_is_in_the_very_next_answer(host: Any) -> None:
    """Before the change every answer is the old pair, after it the new one, and none is lost."""
    answers: list[bytes] = []
    ending = threading.Event()

    def load(path: Path) -> None:
        while not ending.is_set():
            answers.append(ask(path, b"plain main\n"))

    with running_daemon(host.settings_path) as daemon:
        thread = threading.Thread(target=load, args=(daemon.socket_path("exim"),))
        thread.start()
        wait_until(lambda: len(answers) > 50, "some load")
        host.put("second-password")
        assert daemon.ask("exim", b"plain main\n") == EXIM_SECOND
        count = len(answers)
        wait_until(lambda: len(answers) > count + 50, "some more load")
        ending.set()
        thread.join()

    assert [EXIM_FIRST, EXIM_SECOND] == list(dict.fromkeys(answers))


def test_a_vault_that_is_damaged_under_load_is_served_from_memory(host: Any) -> None:
    """The status and one log line tell the problem; a repaired vault counts again at once."""
    vault_file = host.directory / "vault" / "vault"
    intact = vault_file.read_bytes()

    with running_daemon(host.settings_path) as daemon:
        assert _is_answered(daemon, EXIM_FIRST)
        vault_file.write_bytes(intact[:-1] + b"!")
        for _ in range(20):
            assert _is_answered(daemon, EXIM_FIRST)
        assert daemon.status()["vault"]["problem"]
        assert 1 == len(daemon.events("vault.problem"))

        vault_file.write_bytes(intact)
        assert _is_answered(daemon, EXIM_FIRST)
        assert daemon.status()["vault"]["problem"] is None
        host.put("second-password")
        assert _is_answered(daemon, EXIM_SECOND)


def test_a_vault_that_is_damaged_at_the_start_is_served_from_its_last_good_state(
    host: Any,
) -> None:
    """The generation before it; the problem is reported."""
    host.put("second-password")
    (host.directory / "vault" / "vault").write_bytes(b"damaged")

    with running_daemon(host.settings_path) as daemon:
        assert _is_answered(daemon, EXIM_FIRST)
        assert daemon.status()["vault"]["problem"]


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda host: host.settings_path.write_text("x = "), 2, "not valid TOML"),
        (lambda host: host.settings_path.unlink(), 2, "there is no settings file"),
        (lambda host: _empty(host.directory / "vault"), 4, "there is no vault"),
        (lambda host: (host.directory / "vault.key").unlink(), 4, "there is no vault key"),
        (lambda host: (host.directory / "vault.key").chmod(0o644), 4, "can be read or changed"),
    ],
)
def test_a_daemon_that_cannot_serve_does_not_start(
    host: Any, spoil: Any, code: int, message: str
) -> None:
    """The error and its exit code, and no socket: systemd shows a failed unit with the reason."""
    spoil(host)
    daemon = start_daemon(host.settings_path)

    assert code == daemon.process.wait(20)
    assert message in daemon.log_path.read_text()
    assert "hint: " in daemon.log_path.read_text()
    assert not host.run.exists()


def test_a_file_that_exim_would_send_as_a_credential_is_refused(host: Any) -> None:
    """Exim's expression fails on purpose by reading a file that does not exist."""
    host.run.mkdir()
    (host.run / "credential-not-released").write_text("anything")
    daemon = start_daemon(host.settings_path)

    assert 4 == daemon.process.wait(20)
    assert "credential-not-released exists" in daemon.log_path.read_text()
    assert not daemon.socket_path("exim").exists()


def test_the_process_shows_nothing(host: Any) -> None:
    """No secret on the command line or in the environment; no core files."""
    with running_daemon(host.settings_path) as daemon:
        process = Path(f"/proc/{daemon.pid}")
        shown = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
        limits = process.joinpath("limits").read_text()
        status = process.joinpath("status").read_text()

    assert b"password" not in shown
    (core,) = (line.split() for line in limits.splitlines() if "core file" in line)
    assert ["0", "0"] == core[4:6]
    assert "NoNewPrivs:\t1" in status


def test_the_log_holds_no_secret_and_every_line_is_an_object(host: Any) -> None:
    """Whatever clients send: newlines, control characters, JSON and four kilobytes of sender."""
    line = b'plainx %s|1|TLS|id|"}\x1b[31m\r{"event":"forged"}' % HOST
    with running_daemon(host.settings_path) as daemon:
        assert daemon.ask("exim", line + b"\n") == EXIM_FIRST
        assert daemon.ask("exim", line + "\u2028\u00e9".encode() * 700 + b"\n") == EXIM_FIRST
        assert daemon.ask("exim", b"plain \xff\x00\n") == b""
        assert daemon.ask("exim", b"plain main\n{}\n") == b""
        text = daemon.log_path.read_bytes()
        entries = daemon.log()

    assert "forged" not in [entry["event"] for entry in entries]
    assert all(len(each) <= 4096 for each in text.splitlines())
    assert text.replace(b"\n", b"").decode("ascii").isprintable()
    for name, form in encoded_forms(Secret("first-password"), "AKIA0000000000000001").items():
        assert form not in text, name


def test_sigterm_ends_it_cleanly(host: Any) -> None:
    """A request in progress is answered, and the exit code is 0."""
    with running_daemon(host.settings_path) as daemon:
        with _connected(daemon.socket_path("exim")) as client:
            client.sendall(b"plain ")
            wait_until(lambda: _waits(daemon), "the request to arrive")
            daemon.signal(signal.SIGTERM)
            client.sendall(b"main\n")
            assert client.recv(1000) == EXIM_FIRST
        assert 0 == daemon.process.wait(20)
        assert ["daemon.stopped"] == [entry["event"] for entry in daemon.log()[-1:]]
        with pytest.raises(OSError, match=r"refused|No such file"):
            daemon.ask("exim", b"plain main\n")


def _waits(daemon: Daemon) -> bool:
    """Whether the daemon is watching a connection: one more socket is open than when idle."""
    links = [os.readlink(each) for each in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    return len([link for link in links if link.startswith("socket:")]) > 5


def test_after_a_kill_it_starts_again(host: Any) -> None:
    """The socket files that are left behind are replaced."""
    with running_daemon(host.settings_path) as daemon:
        daemon.signal(signal.SIGKILL)
        assert -signal.SIGKILL == daemon.process.wait(20)
    assert daemon.socket_path("exim").is_socket()

    with running_daemon(host.settings_path) as again:
        assert _is_answered(again, EXIM_FIRST)


def test_a_second_daemon_is_refused(host: Any) -> None:
    """And the first goes on."""
    with running_daemon(host.settings_path) as daemon:
        second = start_daemon(host.settings_path)

        assert 4 == second.process.wait(20)
        assert "another sesguardd is running" in daemon.log_path.read_text()
        assert ask(daemon.socket_path("exim"), b"plain main\n") == EXIM_FIRST

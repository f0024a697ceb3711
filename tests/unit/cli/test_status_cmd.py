"""sesguard status: one screen, one JSON object, exit 1 when a part has a problem."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.command_line import Cli

ANSWER = {
    "version": 1,
    "pid": 4711,
    "started_at": "2026-11-24T10:00:00Z",
    "uptime_s": 12.5,
    "vault": {"generation": 1, "problem": None},
    "credentials": [],
    "lookups": {"answered": 40, "refused": 2},
    "log_lines_lost": 0,
}


@pytest.fixture(autouse=True)
def exim_conf(host: Path, config: Path) -> Path:
    """An Exim configuration of the test's own, so that the machine's is not looked at."""
    path = host / "exim.conf"
    path.write_text("begin routers\n")
    with config.open("a") as settings:
        settings.write('\n[target.exim]\nlayout = "monolithic"\nbinary = "/bin/true"\n')
        settings.write(f'config_file = "{path}"\n')
    return path


StartDaemon = Callable[[bytes], list[bytes]]


@pytest.fixture
def daemon(host: Path) -> Iterator[StartDaemon]:
    """Something that answers at the control socket."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> list[bytes]:
        heard: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(100))
                connection.sendall(answer)

        (host / "run").mkdir()
        listener.bind(str(host / "run" / "control.sock"))
        listener.listen()
        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return heard

    yield start
    for thread in threads:
        thread.join(20)
    listener.close()


def _answer(**changes: object) -> bytes:
    return json.dumps({**ANSWER, **changes}).encode() + b"\n"


def test_all_in_order(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """Vault, credentials and daemon in one screen."""
    heard = daemon(_answer())

    result = cli("status")

    assert (0, "") == (result.code, result.err)
    lines = result.out.splitlines()
    assert lines[0] == f"vault: in order, generation 1, in {host / 'vault'}"
    assert lines[1] == "credentials: 1"
    assert lines[-1] == "daemon: running, pid 4711, vault generation 1, 42 look-ups"
    assert [b"status\n"] == heard


def test_json(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """The JSON has a version, every part, and what the daemon said."""
    daemon(_answer())

    result = cli("status", "--json")
    document = json.loads(result.out)

    assert 0 == result.code
    assert ["version", "ok", "vault", "credentials", "rotation", "targets", "daemon"] == list(
        document
    )
    assert (1, True) == (document["version"], document["ok"])
    assert {"directory": str(host / "vault"), "generation": 1, "problem": None} == document["vault"]
    assert {"running": True, "pid": 4711}.items() <= document["daemon"].items()


def test_daemon_is_not_running(cli: Cli, host: Path) -> None:
    """Without the daemon the rest is shown, and the exit code is 1."""
    result = cli("status")
    document = cli("status", "--json")

    assert 1 == result.code
    assert "vault: in order" in result.out
    assert "daemon: problem: sesguardd does not answer" in result.out
    assert "hint: run: systemctl start sesguardd" in result.err
    assert 1 == document.code
    assert json.loads(document.out)["daemon"]["running"] is False


@pytest.mark.parametrize("answer", [b"", b"hello\n", b"[]\n", b"\xff\n"])
def test_daemon_that_answers_nonsense(
    cli: Cli, host: Path, daemon: StartDaemon, answer: bytes
) -> None:
    """An answer that is no JSON object is a problem, not a crash."""
    daemon(answer)

    result = cli("status")

    assert 1 == result.code
    assert "sesguardd gave no JSON" in result.out


def test_daemon_with_an_older_vault(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """What the daemon says of its vault is a problem of the daemon."""
    daemon(_answer(vault={"generation": 1, "problem": "vault was changed"}))

    result = cli("status")

    assert 1 == result.code
    assert "daemon: problem: the daemon works with an older vault: vault was changed" in result.out


def test_daemon_whose_port_is_taken(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """Apps that send there would hand their mail to somebody else."""
    daemon(_answer(relay={"messages": {}, "not_listening": ["127.0.0.1:2525"]}))

    result = cli("status")

    assert 1 == result.code
    assert "daemon: problem: the relay cannot listen on 127.0.0.1:2525" in result.out


def test_vault_is_missing(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """A vault that is not there is a problem with its own hint; the credentials are still named."""
    daemon(_answer())
    for path in sorted((host / "vault").iterdir()):
        path.unlink()

    result = cli("status")

    assert 1 == result.code
    assert "vault: problem: there is no vault in" in result.out
    assert "not imported yet" in result.out
    assert "hint: run: sesguard init" in result.err


def test_damaged_vault_still_lists(cli: Cli, host: Path, daemon: StartDaemon) -> None:
    """Of a damaged vault the last good credentials are shown beside the problem."""
    daemon(_answer())
    pair = "AKIAIOSFODNN7EXAMPLE:BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9\n"
    cli("credential", "import", "--stdin", stdin=pair)
    cli("credential", "import", "--stdin", stdin=pair.replace("IOSF", "IOSE"))
    vault = host / "vault" / "vault"
    vault.write_bytes(b"\n")

    result = cli("status")

    assert 1 == result.code
    assert "vault: problem:" in result.out
    assert "AKIAIOSFODNN7EXAMPLE" in result.out


PLAINTEXT = """
begin routers
ses:
  driver = manualroute
  domains = ! +local_domains
  transport = ses
  route_list = * email-smtp.us-east-1.amazonaws.com::587 byname
begin transports
ses:
  driver = smtp
  port = 587
  hosts_require_auth = *
  hosts_require_tls = *
begin authenticators
ses:
  driver = plaintext
  public_name = PLAIN
  client_send = ^AKIAIOSFODNN7EXAMPLE^BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9
"""


def test_plaintext_is_a_problem(cli: Cli, host: Path, exim_conf: Path, daemon: StartDaemon) -> None:
    """A mail program that still holds the credential in plaintext is named, without a password."""
    daemon(_answer())
    exim_conf.write_text(PLAINTEXT)

    result = cli("status")

    assert 1 == result.code
    assert "targets: problem: exim holds the credential in plaintext" in result.out
    assert "hint: run: sesguard target apply exim" in result.err
    assert "BLBM" not in result.out + result.err

"""Tests of sesguardd as a process: signals, the service manager, exhaustion, bugs."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rigs.daemon import Daemon, ask, running_daemon, start_daemon, wait_until
from sesguard.daemon.build import open_source
from sesguard.daemon.log import JsonLog
from sesguard.daemon.relay import Workers
from sesguard.daemon.service import _Service

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


def _waits(daemon: Daemon) -> bool:
    """Whether the daemon is watching a connection: one more socket is open than when idle."""
    links = [os.readlink(each) for each in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    return len([link for link in links if link.startswith("socket:")]) > 5


RELAY = """timeout_s = 60
[relay]
listen = []
spool_directory = "{directory}/spool"
[apps.site]
users = ["root"]
senders = ["*"]
"""


def test_the_relay_does_not_wait_for_lookups_to_end(host: Any) -> None:
    """Their time counts once, so that all ends within the time that the unit gives."""
    host.configure(more=RELAY.format(directory=host.directory))
    with running_daemon(host.settings_path) as daemon:
        with _connected(daemon.socket_path("exim")) as lookup:
            lookup.sendall(b"plain")
            with _connected(daemon.socket_path("relay")) as client:
                assert client.recv(1000).startswith(b"220 ")
                daemon.signal(signal.SIGTERM)
                assert client.recv(1000).startswith(b"421 ")
            assert daemon.process.poll() is None
        assert 0 == daemon.process.wait(20)


def test_sighup_takes_new_users_and_keeps_connections(host: Any) -> None:
    """Whoever is struck off is refused at once, and may come back, on the same daemon."""
    with running_daemon(host.settings_path) as daemon:
        with _connected(daemon.socket_path("postfix")) as client:
            client.sendall(NETSTRING)
            assert client.recv(1000) == POSTFIX_FIRST
            host.configure(exim=["65533"])
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: daemon.events("settings.reloaded"), "the reload")
            assert daemon.ask("exim", b"plain main\n") == b""
            client.sendall(NETSTRING)
            assert client.recv(1000) == POSTFIX_FIRST
        host.configure()
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: _is_answered(daemon, EXIM_FIRST), "the user to be back")


def test_sighup_with_a_broken_file_keeps_the_old_settings(host: Any) -> None:
    """The mistake is logged with file, line and key."""
    with running_daemon(host.settings_path) as daemon:
        host.configure(more="max_conections = 3")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.events("settings.rejected"), "the reload")
        assert _is_answered(daemon, EXIM_FIRST)
    (event,) = daemon.events("settings.rejected")
    assert "lookup.exim.max_conections: unknown key" in event["detail"]


def test_sighup_says_what_needs_a_restart(host: Any) -> None:
    """Sockets, vault and user are used up at the start."""
    with running_daemon(host.settings_path) as daemon:
        host.settings_path.write_text(host.settings_path.read_text().replace("/run", "/other"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.events("settings.reloaded"), "the reload")
    assert ["daemon"] == [each["needs_restart"] for each in daemon.events("settings.reloaded")]


def test_sockets_of_the_service_manager_are_used(host: Any) -> None:
    """By name; what it did not pass is opened by the daemon."""
    host.run.mkdir()
    exim, control = host.directory / "e.sock", host.run / "control.sock"
    environment = {
        "PATHS": f"{exim}:{control}:{host.directory}/x.sock",
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "exim:control:sesguardd.socket",
    }
    wrapper = (sys.executable, "-c", LISTEN)

    with running_daemon(host.settings_path, environment=environment, wrapper=wrapper) as daemon:
        assert ask(exim, b"plain main\n") == EXIM_FIRST
        assert not daemon.socket_path("exim").exists()
        assert daemon.socket_path("postfix").is_socket()
        unknown = daemon.events("socket.unknown")
    assert ["sesguardd.socket"] == [event["name"] for event in unknown]
    assert exim.is_socket()


def test_a_socket_count_that_is_wrong_is_an_error(host: Any) -> None:
    """The service manager says that it passed sockets, and did not."""
    environment = {"PATHS": f"{host.directory}/e.sock", "LISTEN_FDS": "90"}
    wrapper = (sys.executable, "-c", LISTEN)
    daemon = start_daemon(host.settings_path, environment=environment, wrapper=wrapper)

    assert 4 == daemon.process.wait(20)
    assert "LISTEN_FDS does not tell" in daemon.log_path.read_text()


def test_when_every_socket_is_passed_the_directory_is_not_locked(host: Any) -> None:
    """A daemon that is not root could not make the lock in a directory of root's."""
    host.configure(postfix=[])
    host.run.mkdir()
    environment = {
        "PATHS": f"{host.run}/exim.sock:{host.run}/control.sock",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "exim:control",
    }
    wrapper = (sys.executable, "-c", LISTEN)

    with running_daemon(host.settings_path, environment=environment, wrapper=wrapper) as daemon:
        assert _is_answered(daemon, EXIM_FIRST)
        assert ["control.sock", "exim.sock"] == sorted(path.name for path in host.run.iterdir())


@contextlib.contextmanager
def _service_manager(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        path.chmod(0o777)
        manager.settimeout(20)
        yield manager


def test_the_service_manager_is_told(host: Any) -> None:
    """READY once it serves, WATCHDOG in time, STOPPING at the end."""
    path = host.directory / "notify"
    environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
    with _service_manager(path) as manager:
        with running_daemon(host.settings_path, environment=environment):
            assert b"READY=1" == manager.recv(100)
            begin = time.monotonic()
            assert [b"WATCHDOG=1"] * 4 == [manager.recv(100) for _ in range(4)]
            assert time.monotonic() - begin > 0.1
        messages = [manager.recv(100)]
        while messages[-1] == b"WATCHDOG=1":
            messages.append(manager.recv(100))
    assert b"STOPPING=1" == messages[-1]


def test_a_watchdog_of_another_process_is_not_fed(host: Any) -> None:
    """WATCHDOG_PID names whom it is meant for."""
    path = host.directory / "notify"
    environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    with _service_manager(path) as manager:
        with running_daemon(host.settings_path, environment=environment):
            assert b"READY=1" == manager.recv(100)
        assert b"STOPPING=1" == manager.recv(100)


def test_without_file_descriptors_it_waits_and_does_not_spin(host: Any) -> None:
    """Clients that hold every descriptor are waited for; afterwards all is as before."""
    wrapper = (sys.executable, "-c", LIMIT)
    with running_daemon(host.settings_path, wrapper=wrapper) as daemon:
        held = [_connected(daemon.socket_path("exim")) for _ in range(40)]
        wait_until(lambda: _refused_for(daemon, "no_file_descriptors"), "the daemon to run out")
        before = _cpu_s(daemon.pid)
        time.sleep(0.5)
        assert _cpu_s(daemon.pid) - before < 0.2
        for client in held:
            client.close()
        wait_until(lambda: _is_answered(daemon, EXIM_FIRST), "an answer")


def _refused_for(daemon: Daemon, reason: str) -> bool:
    return any(event["reason"] == reason for event in daemon.events("lookup.refused"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_settings_limit_the_connections(host: Any) -> None:
    """`max_connections` and `timeout_s` reach the server."""
    host.configure(more="max_connections = 1\ntimeout_s = 0.3")
    with running_daemon(host.settings_path) as daemon:
        with _connected(daemon.socket_path("exim")) as first:
            wait_until(lambda: _waits(daemon), "the first connection")
            assert daemon.ask("exim", b"plain main\n") == b""
            assert _refused_for(daemon, "too_many_connections")
            assert first.recv(1) == b""
        assert _refused_for(daemon, "timed_out")
        assert _is_answered(daemon, EXIM_FIRST)


def test_a_full_disk_for_the_log_does_not_stop_the_mail(host: Any) -> None:
    """Lines that cannot be written are counted."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with running_daemon(host.settings_path, stderr=full) as daemon:
            assert _is_answered(daemon, EXIM_FIRST)
            assert daemon.status()["log_lines_lost"] >= 2
    finally:
        os.close(full)


def test_a_reader_of_the_log_that_hangs_does_not_stop_the_mail(host: Any) -> None:
    """A pipe that nobody reads takes 64 KiB; what comes after is dropped and counted."""
    reading, writing = os.pipe()
    try:
        with running_daemon(host.settings_path, stderr=writing) as daemon:
            answers = {daemon.ask("exim", b"plain main\n") for _ in range(1000)}
            assert {EXIM_FIRST} == answers
            assert daemon.status()["log_lines_lost"] > 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_bug_is_logged_by_its_place_and_not_by_its_text(host: Any) -> None:
    """The text of an exception may hold anything."""
    reading, writing = os.pipe()
    log = JsonLog(writing)
    service = _Service(host.settings, open_source(host.settings, log), log, Workers(1), 0)
    try:
        raise ZeroDivisionError("first-password")
    except ZeroDivisionError as error:
        bug = error
    for context in ({"exception": bug}, {"message": "first-password"}):
        with asyncio.Runner() as runner:
            service._report_bug(runner.get_loop(), context)
    written = os.read(reading, 65536)
    os.close(reading)
    os.close(writing)

    entries = [json.loads(line) for line in written.splitlines()]
    assert ["ZeroDivisionError", "NoneType"] == [entry["type"] for entry in entries]
    assert __file__ in entries[0]["place"]
    assert b"first-password" not in written


def test_settings_that_came_from_no_file_cannot_be_read_again(host: Any) -> None:
    """SIGHUP then changes nothing and says so."""
    reading, writing = os.pipe()
    log = JsonLog(writing)
    settings = msgspec.structs.replace(host.settings, path=None)
    _Service(settings, open_source(settings, log), log, Workers(1), 0).reload()
    written = os.read(reading, 65536)
    os.close(reading)
    os.close(writing)

    assert "settings.rejected" == json.loads(written)["event"]

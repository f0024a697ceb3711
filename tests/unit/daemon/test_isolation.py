"""What other users of the host can get out of the daemon. Needs root, to become them."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.daemon import Daemon, running_daemon, start_daemon, wait_until
from sesguard.system.privileges import require_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")

STRANGER = 65533
EXIM_ANSWER = b"^AKIA0000000000000001^first-password"
AsUser = Callable[[int, int, Callable[[], int]], int]


def _asks(path: Path) -> Callable[[], int]:
    """Ask for the credential; 0: granted, 1: closed without a byte, else the errno."""

    def act() -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            try:
                client.sendall(b"plain main\n")
                return 0 if client.recv(1000) == EXIM_ANSWER else 1
            except (BrokenPipeError, ConnectionResetError):
                return 1

    return act


def _opens(path: str, flags: int = os.O_RDONLY) -> Callable[[], int]:
    """Open and read a file; 0: it worked, else the errno."""

    def act() -> int:
        os.read(os.open(path, flags), 1)
        return 0

    return act


def test_the_listed_user_is_answered(host: Any, as_user: AsUser) -> None:
    """Through the group of the socket and by its uid."""
    nobody = require_user("nobody")
    host.configure(exim=["nobody"])
    with running_daemon(host.settings_path) as daemon:
        assert 0 == as_user(nobody.uid, nobody.gid, _asks(daemon.socket_path("exim")))
    assert [nobody.uid] == [event["peer_uid"] for event in daemon.events("lookup.granted")]


def test_root_is_not_answered_unless_it_is_listed(host: Any) -> None:
    """A mistake of root's own does not show the secret."""
    host.configure(exim=["nobody"])
    with running_daemon(host.settings_path) as daemon:
        assert b"" == daemon.ask("exim", b"plain main\n")
    assert [0] == [event["peer_uid"] for event in daemon.events("lookup.refused")]


def test_the_mode_of_the_socket_keeps_strangers_out(host: Any, as_user: AsUser) -> None:
    """They cannot even connect, to none of the sockets."""
    with running_daemon(host.settings_path) as daemon:
        codes = {
            os.strerror(as_user(STRANGER, STRANGER, _asks(daemon.socket_path(name))))
            for name in ("exim", "postfix", "control")
        }
    assert {"Permission denied"} == codes


def test_a_stranger_in_the_right_group_is_closed_and_logged(host: Any, as_user: AsUser) -> None:
    """The uid decides: one line with uid and process id, and no answer."""
    with running_daemon(host.settings_path) as daemon:
        assert 1 == as_user(STRANGER, 0, _asks(daemon.socket_path("exim")))
        (event,) = daemon.events("lookup.refused")
    assert ("uid_not_allowed", STRANGER) == (event["reason"], event["peer_uid"])
    assert event["peer_pid"] > 0


def test_the_control_socket_serves_root_and_the_daemon_alone(host: Any, as_user: AsUser) -> None:
    """Also where a loose mode lets others connect."""
    with running_daemon(host.settings_path) as daemon:
        control = daemon.socket_path("control")
        control.chmod(0o666)
        assert 1 == as_user(STRANGER, STRANGER, _asks(control))
        assert daemon.status()["pid"] == daemon.pid


@pytest.mark.parametrize("name", ["nobody", "stranger"])
@pytest.mark.parametrize("what", ["environ", "mem", "maps", "auxv", "stack"])
def test_nobody_reads_the_memory_of_the_daemon(
    host: Any, as_user: AsUser, name: str, what: str
) -> None:
    """Not a stranger, and not a process of the daemon's own user, which a debugger would be."""
    uid = require_user("nobody").uid if name == "nobody" else STRANGER
    with running_daemon(host.settings_path) as daemon:
        assert uid == STRANGER or _uid_of(daemon) == uid
        code = as_user(uid, uid, _opens(f"/proc/{daemon.pid}/{what}"))
    assert code in (1, 13), os.strerror(code)


def _uid_of(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert len(set(uids)) == 1
    return int(uids[0])


def test_a_crash_leaves_no_core_file(host: Any) -> None:
    """The kernel reports that it dumped nothing."""
    with running_daemon(host.settings_path) as daemon:
        daemon.signal(signal.SIGABRT)
        wait_until(lambda: _is_zombie(daemon.pid), "the crash")
        status = os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
        daemon.process.wait(20)
    assert status is not None
    assert os.CLD_KILLED == status.si_code


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_rights_are_dropped_for_good(host: Any) -> None:
    """One uid, no capabilities, no supplementary groups."""
    with running_daemon(host.settings_path) as daemon:
        uid = _uid_of(daemon)
        lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)

    assert require_user("nobody").uid == uid
    assert {0} == {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")}
    assert "" == fields["Groups"].strip()


def test_a_missing_daemon_user_is_an_error_before_anything_is_opened(host: Any) -> None:
    """Never a fall back to root."""
    text = host.settings_path.read_text().replace('user = "nobody"', 'user = "no-such-user"')
    host.settings_path.write_text(text)
    daemon = start_daemon(host.settings_path)

    assert 4 == daemon.process.wait(20)
    assert "there is no user no-such-user" in daemon.log_path.read_text()
    assert not host.run.exists()


def test_users_whom_the_group_keeps_out_are_named(host: Any) -> None:
    """The socket belongs to the group of the first user."""
    host.configure(exim=["nobody", "daemon"])
    with running_daemon(host.settings_path) as daemon:
        (event,) = daemon.events("socket.unreachable")
        assert require_user("nobody").gid == daemon.socket_path("exim").stat().st_gid
    assert ("exim", "daemon") == (event["name"], event["users"])

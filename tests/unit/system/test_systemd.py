"""What the daemon says to systemd, and what it gets from it."""

import os
import socket
from pathlib import Path

import pytest

from sesguard.system.systemd import inherited_sockets, notify
from unit.system.children import in_child


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """The socket of a service manager, at ``notify``."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    listening.settimeout(10)
    return listening


def test_a_message_reaches_the_service_manager(manager: socket.socket) -> None:
    """One datagram for each call."""
    with manager:
        environment = {"NOTIFY_SOCKET": str(manager.getsockname())}
        assert notify("READY=1", environment)
        assert notify("STATUS=é", environment)
        assert [b"READY=1", "STATUS=é".encode()] == [manager.recv(100), manager.recv(100)]


def test_an_abstract_socket_is_written_with_an_at_sign() -> None:
    """As systemd hands it on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")
        name = listening.getsockname().decode()
        assert notify("READY=1", {"NOTIFY_SOCKET": "@" + name[1:]})
        assert b"READY=1" == listening.recv(100)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/such"}])
def test_without_a_service_manager_nobody_is_told(environment: dict[str, str]) -> None:
    """It is not an error: the daemon also runs in a terminal."""
    assert not notify("READY=1", environment)


def _passed(names: str | None, *, count: str | None = None) -> str:
    """Run `inherited_sockets` in a child that got two listening sockets as 3 and 4."""

    def act() -> object:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = {listener.getsockname()[1]: index for index, listener in enumerate(listeners)}
        copies = [os.dup(listener.fileno()) for listener in listeners]
        high = [os.dup2(copy, 100 + index) for index, copy in enumerate(copies)]
        for index, descriptor in enumerate(high):
            os.dup2(descriptor, 3 + index, inheritable=True)
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count or "2"}
        if names is not None:
            environment["LISTEN_FDNAMES"] = names
        found = inherited_sockets(environment)
        return [
            (name, ports[item.getsockname()[1]], item.get_inheritable()) for name, item in found
        ]

    return in_child(act)


def test_passed_sockets_have_their_names() -> None:
    """And are not handed on to programs that we start."""
    assert "[('exim', 0, False), ('postfix', 1, False)]" == _passed("exim:postfix")


def test_sockets_of_one_unit_share_its_name() -> None:
    """None of them is lost."""
    assert "[('relay', 0, False), ('relay', 1, False)]" == _passed("relay:relay")


def test_passed_sockets_without_names_are_numbered() -> None:
    """All of them, or those that the names do not reach."""
    assert "[('exim', 0, False), ('unknown-1', 1, False)]" == _passed("exim")


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}])
def test_sockets_for_another_process_are_not_touched(environment: dict[str, str]) -> None:
    """The variables may be left over from a parent."""
    assert [] == inherited_sockets(environment)


def test_variables_that_do_not_fit_are_an_error() -> None:
    """A count that is no number, or a descriptor that is no socket."""
    mine = {"LISTEN_PID": str(os.getpid())}
    assert [] == inherited_sockets(mine)
    with pytest.raises(ValueError, match="invalid literal for int"):
        inherited_sockets({**mine, "LISTEN_FDS": "two"})
    assert _passed("a:b", count="500").startswith("OSError: ")

"""Which connections of this host count as sessions with SES."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from sesguard.rotation.sessions import SES_PORTS, _is_local, sessions_to
from sesguard.system.connections import Connection


def listening(port: int) -> socket.socket:
    """A server of this host, on an address that has the port free."""
    for last in range(30, 60):
        with contextlib.suppress(OSError):
            return socket.create_server((f"127.0.0.{last}", port))
    raise AssertionError("no loopback address has the port free")


@contextlib.contextmanager
def local_session(port: int) -> Iterator[tuple[str, int]]:
    """A connection to such a server; gives its address."""
    with listening(port) as listener:
        address: tuple[str, int] = listener.getsockname()
        with socket.create_connection(address):
            yield address


def remotes(port: int) -> set[tuple[str, int]]:
    """The servers that this host has sessions with."""
    return {each.remote for each in sessions_to(port)}


def test_a_session_with_a_relay_of_this_host_does_not_count() -> None:
    """An application that keeps one open would hold every rotation up."""
    for port in SES_PORTS:
        with local_session(port) as server:
            assert server not in remotes(port=1)


def test_a_session_with_the_configured_port_counts_wherever_it_leads() -> None:
    """A tunnel to SES may listen there."""
    with local_session(0) as server:
        assert server in remotes(server[1])


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.9", True), ("::1", True), ("203.0.113.7", False), ("2001:db8::1", False)],
)
def test_what_is_local(host: str, local: bool) -> None:
    """Any loopback address, and no other."""
    assert local is _is_local(Connection(("192.0.2.1", 40000), (host, 587), 1))

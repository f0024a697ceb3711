"""Which connections of this host count as sessions with SES."""

import contextlib
import socket
from collections.abc import Iterator

from sesguard.rotation.sessions import SES_PORTS, sessions_to


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

"""Who is at the other end of a Unix socket."""

import os
import socket

import pytest

from rigs.host import public_directory
from sesguard.system.peers import Peer, peer_of
from unit.system.children import NOBODY


def test_the_peer_of_a_pair_is_this_process() -> None:
    """Process, user and group."""
    left, right = socket.socketpair()
    with left, right:
        assert Peer(os.getpid(), os.geteuid(), os.getegid()) == peer_of(left)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_peer_is_the_user_that_connected() -> None:
    """A process that gave up root before connecting is seen as what it is, also when it is gone."""
    with public_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "socket"
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.settimeout(10)
        pid = os.fork()
        if pid == 0:
            try:
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
            finally:
                os._exit(0)
        connection, _address = listener.accept()
        os.waitpid(pid, 0)
        with connection:
            assert Peer(pid, NOBODY, NOBODY) == peer_of(connection)


def test_a_tcp_socket_has_no_such_peer() -> None:
    """The kernel names nobody: no process, no user."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert Peer(0, -1, -1) == peer_of(client)


def test_a_closed_socket_is_an_error() -> None:
    """Not a peer with uid 0."""
    left, right = socket.socketpair()
    left.close()
    right.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        peer_of(left)

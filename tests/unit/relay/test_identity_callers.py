"""Who is at the other end of a connection: two users are never taken for each other."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sesguard.relay.identity import caller_of
from sesguard.relay.model import UNKNOWN, Caller
from sesguard.system.sock_diag import Owner, SockDiag

ALICE, BOB = 20_001, 20_002
ROUNDS = 100
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


@pytest.fixture(params=["tcp4", "tcp6", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A listener that every user may connect to."""
    kind = request.param
    family = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
    with socket.socket(family) as listener:
        if family == socket.AF_UNIX:
            # The directory of a test is closed to other users; an abstract name is not.
            listener.bind(f"\0{tmp_path}")
        else:
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen(512)
        listener.settimeout(30)
        yield listener


@pytest.fixture
def tcp_server() -> Iterator[socket.socket]:
    """A listener on loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.settimeout(30)
        yield listener


def as_user(uid: int, act: Callable[[], object]) -> int:
    """Run `act` in a child of that user and group; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
            code = 0
        finally:
            os._exit(code)
    return pid


def connect(server: socket.socket) -> socket.socket:
    """A new connection to the server."""
    client = socket.socket(server.family)
    address = server.getsockname()
    client.connect(address if server.family == socket.AF_UNIX else address[:2])
    return client


def connect_from(
    server: socket.socket, source: tuple[str, int], *, uid: int
) -> socket.socket | None:
    """A new connection of another user from an address; None: it is not free."""
    os.seteuid(uid)
    try:
        client = socket.socket(server.family)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            client.bind(source)
            client.connect(server.getsockname())
        except OSError:
            client.close()
            return None
        return client
    finally:
        os.seteuid(0)


def reset(client: socket.socket) -> None:
    """Close with RST, which sets the port free at once."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@as_root
def test_two_users_are_told_apart(server: socket.socket) -> None:
    """Two users that connect at a time are each told by their own uid, in many rounds."""

    def send_own_uid() -> None:
        for _ in range(ROUNDS):
            with connect(server) as client:
                client.sendall(str(os.getuid()).encode())
                client.recv(1)

    children = [as_user(uid, send_own_uid) for uid in (ALICE, BOB)]
    told: list[tuple[int, int]] = []
    for _ in range(2 * ROUNDS):
        accepted, _ = server.accept()
        with accepted:
            caller = caller_of(accepted)
            claim = int(accepted.recv(16))
        assert caller is not None
        assert caller.uid is not None
        told.append((claim, caller.uid))
    assert {0} == {os.waitpid(pid, 0)[1] for pid in children}

    assert {(ALICE, ALICE), (BOB, BOB)} == set(told)
    assert ROUNDS == told.count((ALICE, ALICE))


@as_root
def test_client_that_closes_early(server: socket.socket) -> None:
    """A client that is gone is nobody on TCP, never root; a Unix socket remembers it."""

    def connect_and_close() -> None:
        for _ in range(ROUNDS):
            with connect(server) as client:
                client.sendall(b"EHLO x\r\n")

    assert 0 == os.waitpid(as_user(ALICE, connect_and_close), 0)[1]
    callers = []
    for _ in range(ROUNDS):
        accepted, _ = server.accept()
        with accepted:
            caller = caller_of(accepted)
            callers.append(caller.uid if caller else None)

    assert {ALICE if server.family == socket.AF_UNIX else None} == set(callers)


@as_root
def test_port_of_a_client_that_was_reset(tcp_server: socket.socket) -> None:
    """What a client left behind is not taken for the mail of who has its port now."""
    rounds = 0
    for _ in range(10 * ROUNDS):
        gone = connect(tcp_server)
        source = gone.getsockname()
        gone.sendall(b"EHLO x\r\nMAIL FROM:<bob@example.com>\r\n")
        reset(gone)
        # The port is not always free at once; without the loss of it there is nothing to show.
        client = connect_from(tcp_server, source, uid=BOB)
        first, _ = tcp_server.accept()
        with first:
            if client is None:
                continue
            second, _ = tcp_server.accept()
            with second:
                assert source == second.getpeername()
                assert caller_of(first) is None
                assert first.recv(6) == b"EHLO x"
                assert Caller(BOB) == caller_of(second)
                reset(client)
        rounds += 1
        if rounds == ROUNDS:
            return
    pytest.fail(f"a port was free in {rounds} rounds only")


class _LateDiag(SockDiag):
    """Asks the kernel after something else has happened."""

    def __init__(self, first: Callable[[], object]) -> None:
        super().__init__()
        self._first = first

    def owner(self, local: tuple[str, int], remote: tuple[str, int]) -> Owner | None:
        """The owner after that."""
        self._first()
        return super().owner(local, remote)


@as_root
def test_port_that_changes_hands_in_between(tcp_server: socket.socket) -> None:
    """Where the client is reset just before the kernel is asked, its successor is not taken."""
    for _ in range(ROUNDS):
        gone = connect(tcp_server)
        source = gone.getsockname()
        new: list[socket.socket | None] = []

        def change_hands() -> None:
            reset(gone)  # noqa: B023 - runs within this round
            new.append(connect_from(tcp_server, source, uid=BOB))  # noqa: B023

        with tcp_server.accept()[0] as accepted, closing(_LateDiag(change_hands)) as diag:
            assert caller_of(accepted, diag) is None
        if new[0] is not None:
            tcp_server.accept()[0].close()
            reset(new[0])


def test_unix_socket(tmp_path: Path) -> None:
    """On a Unix socket the kernel tells group and process as well."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with connect(listener), listener.accept()[0] as accepted:
            assert Caller(os.geteuid(), os.getegid(), os.getpid()) == caller_of(accepted)


def test_half_closed_client(tcp_server: socket.socket) -> None:
    """A client that has sent all and waits for the answer is still itself."""
    with (
        connect(tcp_server) as client,
        tcp_server.accept()[0] as accepted,
        closing(SockDiag()) as diag,
    ):
        client.shutdown(socket.SHUT_WR)

        assert Caller(os.geteuid()) == caller_of(accepted, diag)


def test_unconnected_socket() -> None:
    """What has no peer any more is dropped."""
    with socket.socket() as client:
        assert caller_of(client) is None


def test_client_that_is_not_on_loopback() -> None:
    """A connection over another address of the host is of an unknown caller."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # UDP: nothing is sent, the kernel only chooses the address.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the host has no other address")
        address = probe.getsockname()[0]
    with (
        socket.create_server((address, 0)) as listener,
        connect(listener),
        listener.accept()[0] as accepted,
    ):
        assert UNKNOWN is caller_of(accepted)

"""Whose socket is at the other end of a TCP connection of this host."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from sesguard.system import sock_diag
from sesguard.system.sock_diag import Owner, SockDiag
from unit.system.children import NOBODY, in_child

LOOPBACK = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    """What asks the kernel."""
    with closing(SockDiag()) as asks:
        yield asks


def connected(family: int, address: str) -> tuple[socket.socket, socket.socket]:
    """A client and the socket that its server accepted."""
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        client = socket.socket(family)
        client.connect(listener.getsockname()[:2])
        accepted, _ = listener.accept()
    return client, accepted


def owner_of_peer(diag: SockDiag, accepted: socket.socket) -> Owner | None:
    """The owner of the client's end."""
    return diag.owner(accepted.getpeername()[:2], accepted.getsockname()[:2])


@pytest.mark.parametrize(("family", "address"), LOOPBACK)
def test_owner_of_the_client(diag: SockDiag, family: int, address: str) -> None:
    """The uid and the inode are those of the client's socket, not of ours."""
    client, accepted = connected(family, address)
    with client, accepted:
        expected = Owner(os.geteuid(), os.fstat(client.fileno()).st_ino)

        assert expected == owner_of_peer(diag, accepted)
        assert os.fstat(accepted.fileno()).st_ino != expected.inode


@pytest.mark.parametrize(("family", "address"), LOOPBACK)
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_owner_is_another_user(diag: SockDiag, family: int, address: str) -> None:
    """A client of another user is told by its uid."""
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()

        def connect_as_nobody() -> str:
            os.setuid(NOBODY)
            with socket.socket(family) as client:
                client.connect(listener.getsockname()[:2])
                accepted, _ = listener.accept()
                with accepted, closing(SockDiag()) as asks:
                    return str(owner_of_peer(asks, accepted))

        assert f"Owner(uid={NOBODY}, " in in_child(connect_as_nobody)


def test_client_of_ipv6_that_speaks_ipv4(diag: SockDiag) -> None:
    """A socket of IPv6 that is connected to an IPv4-mapped address is found as IPv4."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as c:
        c.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            found = owner_of_peer(diag, accepted)

    assert found is not None
    assert os.geteuid() == found.uid


def test_server_of_ipv6_that_speaks_ipv4(diag: SockDiag) -> None:
    """An IPv4-mapped address, as a server of both gives it, is looked for as IPv4."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen()
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
            accepted, _ = listener.accept()
            with accepted:
                assert "::ffff:127.0.0.1" == accepted.getpeername()[0]
                assert owner_of_peer(diag, accepted) is not None


@pytest.mark.parametrize(("family", "address"), LOOPBACK)
def test_client_that_closed(diag: SockDiag, family: int, address: str) -> None:
    """A closed socket, which the kernel lists as root's, has no owner; each of many times."""
    for _ in range(50):
        client, accepted = connected(family, address)
        peer = accepted.getpeername()[:2]
        client.close()
        with accepted:
            assert diag.owner(peer, accepted.getsockname()[:2]) is None
        assert diag.owner(peer, (address, 9)) is None


def test_client_that_has_sent_all(diag: SockDiag) -> None:
    """A half-closed connection still has its owner."""
    client, accepted = connected(*LOOPBACK[0])
    with client, accepted:
        client.shutdown(socket.SHUT_WR)
        found = owner_of_peer(diag, accepted)

    assert found is not None
    assert os.geteuid() == found.uid


def test_listener_is_nobodys_peer(diag: SockDiag) -> None:
    """Where no connection has the addresses, the kernel gives the listener; it is not taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert diag.owner(listener.getsockname(), ("127.0.0.1", 1)) is None


@pytest.mark.parametrize(
    ("local", "remote"),
    [("127.0.0.1", "::1"), ("not an address", "127.0.0.1"), ("127.0.0.1", "\0"), ("", "")],
)
def test_what_is_no_pair_of_addresses(diag: SockDiag, local: str, remote: str) -> None:
    """Addresses that cannot be a connection have no owner."""
    assert diag.owner((local, 1), (remote, 2)) is None


def test_channel_is_opened_again(diag: SockDiag) -> None:
    """A netlink socket that fails is replaced, and the question asked again."""
    client, accepted = connected(*LOOPBACK[0])
    with client, accepted:
        diag.close()

        assert owner_of_peer(diag, accepted) is not None


def test_late_answers_are_dropped(diag: SockDiag) -> None:
    """Answers to earlier questions that were never read are not taken for the present one."""
    client, accepted = connected(*LOOPBACK[0])
    other, other_accepted = connected(*LOOPBACK[0])
    with client, accepted, other, other_accepted:
        expected = os.fstat(client.fileno()).st_ino
        for sequence in range(1, 6):
            diag._channel.send(_question(sequence + 1000, other_accepted))
        found = owner_of_peer(diag, accepted)

    assert found is not None
    assert expected == found.inode


def test_too_many_late_answers(diag: SockDiag) -> None:
    """A channel that is full of other answers is replaced."""
    client, accepted = connected(*LOOPBACK[0])
    with client, accepted:
        for _ in range(100):
            diag._channel.send(_question(1, accepted))

        assert owner_of_peer(diag, accepted) is not None


def test_silent_kernel(diag: SockDiag) -> None:
    """A channel that never answers costs a bounded time, and is replaced."""
    client, accepted = connected(*LOOPBACK[0])
    mute, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 10_000))
    with client, accepted, mute, _other:
        diag.close()
        diag._channel = mute

        assert owner_of_peer(diag, accepted) is not None


@pytest.mark.parametrize("answer", [b"", bytes(15), bytes(88)])
def test_answers_that_make_no_sense(diag: SockDiag, answer: bytes) -> None:
    """A short answer or one to nothing that was asked leads to a new channel."""
    client, accepted = connected(*LOOPBACK[0])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 10_000))
    with client, accepted, ours, theirs:
        theirs.send(answer)
        diag.close()
        diag._channel = ours

        assert owner_of_peer(diag, accepted) is not None


def test_refusal_of_the_kernel(diag: SockDiag) -> None:
    """An error message of netlink (NLMSG_ERROR) is no owner."""
    assert diag.owner(("127.0.0.1", 1), ("127.0.0.1", 1)) is None


def test_many_ports_alternate(diag: SockDiag) -> None:
    """Of many connections at one time each is told from the others, by its inode."""
    pairs = [connected(*LOOPBACK[index % 2]) for index in range(40)]
    try:
        for client, accepted in pairs * 5:
            found = owner_of_peer(diag, accepted)
            assert found is not None
            assert os.fstat(client.fileno()).st_ino == found.inode
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def _question(sequence: int, accepted: socket.socket) -> bytes:
    (source, port), (target, own) = accepted.getpeername(), accepted.getsockname()
    return sock_diag._REQUEST.pack(
        sock_diag._REQUEST.size, 20, 1, sequence, 0, socket.AF_INET, socket.IPPROTO_TCP, 0,
        0xFFFFFFFF, struct.pack("!HH", port, own), socket.inet_aton(source),
        socket.inet_aton(target), 0, 0xFFFFFFFF, 0xFFFFFFFF,
    )  # fmt: skip

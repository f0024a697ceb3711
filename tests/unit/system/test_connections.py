"""The open connections of this host to servers on given ports, and who holds them."""

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.connections import Connection, Owner, open_connections, owners
from unit.system.children import NOBODY, in_child

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server on a loopback port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connect(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection: ours, and the one of the server."""
    client = socket.create_connection(server.getsockname())
    accepted, _address = server.accept()
    return client, accepted


def port_of(server: socket.socket) -> int:
    """Where it listens."""
    port: int = server.getsockname()[1]
    return port


def as_connection(client: socket.socket) -> Connection:
    """What the kernel should say of our end."""
    return Connection(
        client.getsockname()[:2], client.getpeername()[:2], os.fstat(client.fileno()).st_ino
    )


def until(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within five seconds."""
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_our_end_of_a_connection_is_seen_once(server: socket.socket) -> None:
    """The end of the server, with the port as its local one, is not counted."""
    client, accepted = connect(server)
    with client, accepted:
        assert {as_connection(client)} == open_connections({port_of(server)})


def test_other_ports_and_listeners_do_not_count(server: socket.socket) -> None:
    """A listener alone is no connection, and neither is one to another port."""
    assert frozenset() == open_connections({port_of(server)})
    client, accepted = connect(server)
    with client, accepted:
        assert as_connection(client) not in open_connections({1})
        assert frozenset() == open_connections(set())


def test_sets_of_two_moments_tell_which_are_still_open(server: socket.socket) -> None:
    """One ends, one stays, one is new: the intersection is the one that stayed."""
    ended, stayed = connect(server), connect(server)
    then = open_connections({port_of(server)})
    ended[0].close()
    new = connect(server)
    now = open_connections({port_of(server)})
    assert {as_connection(stayed[0])} == then & now
    assert {as_connection(stayed[0]), as_connection(new[0])} == now
    for end in (*ended, *stayed, *new):
        end.close()


def test_a_later_connection_over_the_same_ports_is_another(server: socket.socket) -> None:
    """The inode tells them apart."""
    # From an address of our own: another program may be given our port of 127.0.0.1 in between.
    client = socket.create_connection(server.getsockname(), source_address=("127.77.3.9", 0))
    accepted, _ = server.accept()
    (first,) = open_connections({port_of(server)})
    for end in (client, accepted):  # Reset, so that no TIME_WAIT keeps the ports.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    with socket.create_connection(server.getsockname(), source_address=first.local):
        (second,) = open_connections({port_of(server)})
    assert (first.local, first.remote) == (second.local, second.remote)
    assert first != second


def test_a_connection_is_over_once_the_server_hung_up(server: socket.socket) -> None:
    """Although our program has not noticed yet (CLOSE_WAIT)."""
    client, accepted = connect(server)
    with client:
        accepted.close()
        assert until(lambda: not open_connections({port_of(server)}))


def test_a_program_that_has_sent_all_and_waits_still_counts(server: socket.socket) -> None:
    """It closed its half only (FIN_WAIT) and will read the answers; the value stays the same."""
    client, accepted = connect(server)
    with client, accepted:
        client.shutdown(socket.SHUT_WR)
        assert {as_connection(client)} == open_connections({port_of(server)})


def test_data_of_a_closed_socket_does_not_count(server: socket.socket) -> None:
    """The kernel still tries to deliver it, but no program is there to read an answer."""
    client, accepted = connect(server)
    with accepted:
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(bytes(65536))
        client.close()
        assert frozenset() == open_connections({port_of(server)})


def test_a_connection_that_is_being_made_counts() -> None:
    """The queue of the server is full, so the SYN stays without an answer (SYN_SENT)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()), socket.socket() as second:
            second.setblocking(False)
            with pytest.raises(BlockingIOError):
                second.connect(listener.getsockname())
            inode = os.fstat(second.fileno()).st_ino
            assert inode in {each.inode for each in open_connections({port_of(listener)})}


def test_a_mapped_address_is_given_as_ipv4() -> None:
    """A program with an IPv6 socket that talks to an IPv4 server."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET6) as client,
    ):
        client.connect(("::ffff:127.0.0.1", port_of(server)))
        (seen,) = open_connections({port_of(server)})
        assert ("127.0.0.1", client.getsockname()[1]) == seen.local
        assert ("127.0.0.1", port_of(server)) == seen.remote


def test_a_connection_over_ipv6(tmp_path: Path) -> None:
    """The address of four words, each in the order of this host."""
    words = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07"
    remote = "".join(
        f"{int.from_bytes(words[start : start + 4], sys.byteorder):08X}" for start in (0, 4, 8, 12)
    )
    line = f" 0: {remote}:C000 {remote}:024B 01 00000000:00000000 00:00000000 0 0 0 4711 1\n"
    table(tmp_path, "tcp", HEADER)
    table(tmp_path, "tcp6", HEADER + line)
    address = "2001:db8::7"
    expected = {Connection((address, 0xC000), (address, 587), 4711)}
    assert expected == open_connections({587}, proc=tmp_path)


def test_a_kernel_without_ipv6(tmp_path: Path) -> None:
    """It has no table tcp6, and that is no fault."""
    table(tmp_path, "tcp", HEADER)
    assert frozenset() == open_connections({587}, proc=tmp_path)


def test_no_table_is_a_fault(tmp_path: Path) -> None:
    """Not an empty set, which would read as: nobody is connected."""
    with pytest.raises(SystemFault, match=r"cannot read .*net/tcp: No such file"):
        open_connections({587}, proc=tmp_path)


@pytest.mark.parametrize("line", ["0: 0100007F:0019\n", "0: x y 01 0 0 0 0 0 7\n", "\u20ac\n"])
def test_a_table_that_cannot_be_understood_is_a_fault(tmp_path: Path, line: str) -> None:
    """A connection is never passed over in silence."""
    table(tmp_path, "tcp", HEADER + line)
    with pytest.raises(SystemFault, match=r"cannot understand .*net/tcp"):
        open_connections({587}, proc=tmp_path)


def test_the_owner_is_named(server: socket.socket) -> None:
    """Process, program and user."""
    client, accepted = connect(server)
    with client, accepted:
        (seen,) = open_connections({port_of(server)})
        program = Path("/proc/self/comm").read_text().rstrip("\n")
        assert {seen: Owner(os.getpid(), program, os.geteuid())} == owners({seen})


def test_a_connection_without_an_owner_is_left_out(server: socket.socket) -> None:
    """It was closed since."""
    client, accepted = connect(server)
    with accepted:
        then = open_connections({port_of(server)})
        client.close()
        assert owners(then) == {}
    assert owners(()) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_root_the_owner_stays_unknown(server: socket.socket) -> None:
    """The connection is seen all the same."""
    client, accepted = connect(server)

    def look() -> object:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        client.close()
        accepted.close()
        seen = open_connections({port_of(server)})
        return len(seen), dict(owners(seen))

    with client, accepted:
        assert "(1, {})" == in_child(look)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_owner_is_the_effective_user(server: socket.socket) -> None:
    """Also of a process that changed its user, whose directory in /proc then belongs to root."""
    reading, writing = os.pipe()
    ready, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(-1, NOBODY, -1)
        with socket.create_connection(server.getsockname()):
            os.write(telling, b"1")
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    os.read(ready, 1)
    seen = open_connections({port_of(server)})
    assert {(pid, NOBODY)} == {(owner.pid, owner.uid) for owner in owners(seen).values()}
    for descriptor in (reading, writing, ready, telling):
        os.close(descriptor)
    os.waitpid(pid, 0)


def test_processes_that_cannot_be_listed_are_a_fault(tmp_path: Path) -> None:
    """Not: nobody holds it."""
    some = Connection(("127.0.0.1", 40000), ("127.0.0.1", 587), 7)
    with pytest.raises(SystemFault, match=r"cannot read .*gone: No such file"):
        owners({some}, proc=tmp_path / "gone")


def table(proc: Path, name: str, content: str) -> None:
    """A table of the kernel, as we want it."""
    (proc / "net").mkdir(exist_ok=True)
    (proc / "net" / name).write_text(content)

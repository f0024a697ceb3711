"""
The TCP connections that this host has open to servers on given ports, and who holds them.

Promises: a connection is in the set from its SYN until our program closes it or the server does.
So states SYN_SENT, ESTABLISHED, FIN_WAIT1 and FIN_WAIT2 count, the last two only while a program
still holds the socket: it has sent all and waits for the answers. What is over does not count:

- CLOSE_WAIT: the server hung up. It takes no more mail, and a program that never closes its end
  would otherwise look busy for ever.
- A socket that its program has closed (FIN_WAIT without an owner, LAST_ACK, TIME_WAIT), also with
  data still to be sent: nobody waits for an answer, so nobody could act on one.

SYN_SENT counts because a program that connects may have read its credential before. `Connection`
keeps its value as long as the connection is open, and a later connection over the same ports has
another inode, so two sets taken at different moments can be intersected.

A server of this host on one of the ports is not counted: the remote port of a socket that it
accepted is the port of the client.

Limits: the network namespace of this process only; containers have their own. The kernel hands out
its table in pieces: while connections of the same hash bucket come and go, one may be left out of
one reading, so ask again before you rely on an empty set. `owners` needs root to see the processes
of other users and tells of none otherwise.

Raises: SystemFault where /proc cannot be read. Sources: proc(5), the Linux file
Documentation/networking/proc_net_tcp.rst, include/net/tcp_states.h.
"""

import ipaddress
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault

PROC: Final = Path("/proc")

_OPEN_STATES: Final = frozenset({"01", "02", "04", "05"})
"""ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2."""
_ORPHAN: Final = 0
"""The inode of a socket that no program holds."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One open outgoing connection."""

    local: tuple[str, int]
    """Address and port on this host; an IPv4-mapped address is given as IPv4."""
    remote: tuple[str, int]
    """Address and port of the server."""
    inode: int
    """What the kernel calls the socket."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a connection."""

    pid: int
    program: str
    """Name as in /proc/PID/comm, at most 15 bytes; the process chose it and may lie."""
    uid: int
    """Effective user id."""


def open_connections(ports: Collection[int], *, proc: Path = PROC) -> frozenset[Connection]:
    """
    The connections of this host to servers on `ports` that are not over.

    Args:
        ports: Remote ports.
        proc: Where the proc file system is mounted.

    Raises:
        SystemFault: The table cannot be read or understood.
    """
    tables = [proc / "net/tcp"]
    if (proc / "net/tcp6").exists():  # Not with a kernel without IPv6.
        tables.append(proc / "net/tcp6")
    return frozenset(
        connection
        for table in tables
        for connection in _connections(table)
        if connection.remote[1] in ports
    )


def owners(connections: Collection[Connection], *, proc: Path = PROC) -> Mapping[Connection, Owner]:
    """
    Who holds each connection; of several processes that share one, that with the lowest id.

    A connection whose owner is gone by now, or may not be seen by us, is left out.

    Raises:
        SystemFault: /proc cannot be listed.
    """
    wanted = {f"socket:[{connection.inode}]": connection for connection in connections}
    found: dict[Connection, Owner] = {}
    for pid in _process_ids(proc) if wanted else ():
        held = {wanted[link] for link in _open_files(proc / str(pid)) if link in wanted}
        owner = _owner(proc, pid) if held - found.keys() else None
        if owner is not None:
            found |= dict.fromkeys(held - found.keys(), owner)
    return found


def _connections(table: Path) -> Iterator[Connection]:
    for line in _lines(table):
        fields = line.split()
        try:
            local, remote, state, inode = fields[1], fields[2], fields[3], int(fields[9])
            if state in _OPEN_STATES and inode != _ORPHAN:
                yield Connection(_endpoint(local), _endpoint(remote), inode)
        except (IndexError, ValueError) as error:
            raise SystemFault("cannot understand {path}", path=table) from error


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text("ascii").splitlines()[1:]
    except OSError as error:
        raise SystemFault(
            "cannot read {path}: {reason}", path=table, reason=error.strerror
        ) from error
    except ValueError as error:
        raise SystemFault("cannot understand {path}", path=table) from error


def _endpoint(text: str) -> tuple[str, int]:
    """``0100007F:0019`` as address and port: words of 32 bits, each in the order of the host."""
    address, _, port = text.partition(":")
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    parsed = ipaddress.ip_address(packed)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed), int(port, 16)


def _process_ids(proc: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except OSError as error:
        raise SystemFault(
            "cannot read {path}: {reason}", path=proc, reason=error.strerror
        ) from error


def _open_files(process: Path) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing when it is gone or not ours to see."""
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(process / "fd" / descriptor)
        except OSError:
            continue


def _owner(proc: Path, pid: int) -> Owner | None:
    try:
        name = (proc / str(pid) / "comm").read_bytes().removesuffix(b"\n")
        status = (proc / str(pid) / "status").read_bytes()
    except OSError:
        return None
    # The directory of a set-user-id program belongs to root whoever runs it: ask the kernel's list.
    line = next(line for line in status.splitlines() if line.startswith(b"Uid:"))
    return Owner(pid, name.decode("utf-8", "backslashreplace"), int(line.split()[2]))

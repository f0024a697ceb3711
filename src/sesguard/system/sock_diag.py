"""
Whose socket is at the other end of a TCP connection of this host.

The kernel is asked for one exact connection (NETLINK_SOCK_DIAG, inet_diag_req_v2), which needs no
rights and takes microseconds however many sockets there are; /proc/net/tcp would be read whole.

Promises
    The answer is the uid of the socket that *now* has the given addresses, or None: the connection
    is over, its program closed it (the kernel then says uid 0 and inode 0, which would look like
    root), the kernel refused, or it said anything that was not expected.
    An answer to an earlier question is never taken for the present one, and a question never waits
    longer than `TIMEOUT_S`. After a fault the netlink socket is opened anew once and asked again.

Limits
    The uid is that of the socket's creator: a socket that root made and handed on stays root's.
    The network namespace of this process only. Addresses may be used again by somebody else once a
    connection was reset: whoever asks about the peer of an accepted socket must look *afterwards*
    whether that socket is still connected (`sesguard.relay.identity`).
    Not for several threads, nor for a child that was forked after it was used.

Sources: sock_diag(7), include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c.
"""

import contextlib
import errno
import functools
import socket
import struct
from dataclasses import dataclass
from typing import Final

from sesguard.errors import SystemFault

TIMEOUT_S: Final = 0.5
"""Time for the kernel to answer; it answers before the question's system call returns."""

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ANY_COOKIE: Final = 0xFFFFFFFF

_TCP_ESTABLISHED: Final = 1
_TCP_FIN_WAIT1: Final = 4
_TCP_FIN_WAIT2: Final = 5
_OPEN_STATES: Final = frozenset({_TCP_ESTABLISHED, _TCP_FIN_WAIT1, _TCP_FIN_WAIT2})
"""A half-closed connection (FIN_WAIT) has an owner as long as its program holds the socket."""
_ORPHAN: Final = 0
"""The inode of a socket that no program holds."""

# nlmsghdr (length, type, flags, sequence, port), inet_diag_req_v2 (family, protocol, extensions,
# padding, states) and inet_diag_sockid (ports, addresses, interface, cookie).
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=IHHII BBBxI 4s16s16sIII")
# nlmsghdr, and inet_diag_msg: family, state, timer, retransmissions, sockid, expires, two queues,
# uid, inode.
_ANSWER: Final = struct.Struct("=IHHII BBBB 4s16s16sIII IIIII")
_MAX_STALE: Final = 64
"""Answers to earlier questions that are read over."""
_PORTS: Final = struct.Struct("!HH")
_V4_BYTES: Final = 4
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_ALL_STATES: Final = 0xFFFFFFFF
_TIMEVAL: Final = struct.Struct("@ll")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a socket."""

    uid: int
    """User id of the process that made it."""
    inode: int
    """What the kernel calls the socket; never 0."""


class SockDiag:
    """
    Asks the kernel about sockets, over one netlink socket; see the module docstring.

    Raises:
        SystemFault: The kernel has no such socket.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._answer = bytearray(512)
        self._channel = _open()

    def close(self) -> None:
        """Close the netlink socket; it is also closed with the object."""
        self._channel.close()

    def __del__(self) -> None:
        if hasattr(self, "_channel"):
            self.close()

    def owner(self, local: tuple[str, int], remote: tuple[str, int]) -> Owner | None:
        """
        Who holds the socket whose own address is `local` and whose peer's is `remote`.

        For a connection that was accepted, `local` is the address of the client. Addresses are
        numeric; an IPv4-mapped one is looked for as IPv4.

        Returns:
            None: nobody does, or it cannot be told; do not take the connection.
        """
        source, target = _packed(local[0]), _packed(remote[0])
        if source is None or target is None or len(source) != len(target):
            return None
        ports = _PORTS.pack(local[1], remote[1])
        try:
            return self._ask(ports, source, target)
        except OSError:
            pass
        with contextlib.suppress(OSError, SystemFault):
            self._channel.close()
            self._channel = _open()
            return self._ask(ports, source, target)
        return None

    def _ask(self, ports: bytes, source: bytes, target: bytes) -> Owner | None:
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        family = socket.AF_INET if len(source) == _V4_BYTES else socket.AF_INET6
        self._channel.send(
            _REQUEST.pack(
                _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0,
                family, socket.IPPROTO_TCP, 0, _ALL_STATES,
                ports, source, target, 0, _ANY_COOKIE, _ANY_COOKIE,
            )
        )  # fmt: skip
        for _ in range(_MAX_STALE):
            size = self._channel.recv_into(self._answer)
            if size < _HEADER.size:
                break
            _, kind, _, answered, _ = _HEADER.unpack_from(self._answer)
            if answered == sequence:
                return self._understood(kind, size, ports, (source, target))
        raise OSError(errno.EBADMSG, "no answer to this question")

    def _understood(
        self, kind: int, size: int, ports: bytes, ends: tuple[bytes, bytes]
    ) -> Owner | None:
        if kind != _SOCK_DIAG_BY_FAMILY or size < _ANSWER.size:
            return None
        fields = _ANSWER.unpack_from(self._answer)
        state, found_ports, source, target = fields[6], fields[9], fields[10], fields[11]
        uid, inode = fields[18], fields[19]
        if state not in _OPEN_STATES or inode == _ORPHAN or found_ports != ports:
            return None
        if not (_is(source, ends[0]) and _is(target, ends[1])):
            return None
        return Owner(uid, inode)


def _open() -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    try:
        channel = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        try:
            # settimeout() would cost one poll(2) for each call.
            seconds, fraction = divmod(TIMEOUT_S, 1)
            timeout = _TIMEVAL.pack(int(seconds), int(fraction * 1_000_000))
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            # Connected to port 0, it takes answers of the kernel and of nobody else.
            channel.connect((0, 0))
        except OSError:
            channel.close()
            raise
    except OSError as error:
        raise SystemFault(
            "cannot ask the kernel who owns a connection: {reason}",
            hint="allow AF_NETLINK sockets, and load the kernel module tcp_diag",
            reason=error.strerror,
        ) from error
    return channel


@functools.lru_cache(maxsize=256)
def _packed(address: str) -> bytes | None:
    address = address.removeprefix("::ffff:") if "." in address else address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address)
    except (OSError, ValueError):
        return None


def _is(found: bytes, wanted: bytes) -> bool:
    """Whether the kernel's 16 bytes are the address; a socket of IPv6 may speak IPv4."""
    if len(wanted) == _V4_BYTES:
        return found[:4] == wanted or found == _V4_MAPPED + wanted
    return found == wanted

"""
Who is at the other end of a Unix socket.

SO_PEERCRED is filled in by the kernel when the connection is made and cannot be forged. It names
the process that called connect(2); a descriptor that was handed on keeps the identity of its first
owner. See unix(7).
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

_UCRED: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """Process id, effective user id and effective group id at the time of connect(2)."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """
    The peer of a connected Unix socket.

    Raises:
        OSError: Not a connected Unix socket.
    """
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(data))

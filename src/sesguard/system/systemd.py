"""
The two small protocols of systemd that the daemon speaks, without a library.

`notify` is sd_notify(3): one datagram to the socket named by NOTIFY_SOCKET. `inherited_sockets` is
sd_listen_fds_with_names(3): descriptors from 3 on, counted by LISTEN_FDS, named by LISTEN_FDNAMES,
and meant for us only when LISTEN_PID is our pid.
"""

import os
import socket
from collections.abc import Mapping
from typing import Final

_FIRST_DESCRIPTOR: Final = 3


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """
    Tell the service manager something, such as ``READY=1``.

    Returns:
        Whether there was anybody to tell.
    """
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address)
            channel.sendall(message.encode())
        except OSError:
            return False
    return True


def inherited_sockets(
    environment: Mapping[str, str] = os.environ,
) -> list[tuple[str, socket.socket]]:
    """
    The sockets that the service manager opened for us, each with its name.

    All sockets of a unit have the same name.

    Raises:
        ValueError: LISTEN_FDS is not a number.
        OSError: Fewer sockets were passed than LISTEN_FDS says, or something else than sockets.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    sockets = []
    for index in range(int(environment.get("LISTEN_FDS", "0"))):
        inherited = socket.socket(fileno=_FIRST_DESCRIPTOR + index)
        inherited.set_inheritable(False)
        name = names[index] if index < len(names) else f"unknown-{index}"
        sockets.append((name, inherited))
    return sockets

"""
The sockets of the relay: ``relay.sock`` and ``lmtp.sock``, and TCP addresses.

Anybody may connect to the Unix sockets (0666) and to the loopback: who it is, is asked of the
kernel, and who is no app is refused. An address that is not loopback is opened only with a
certificate and a key; its clients are known by tokens alone. With several processes each has its
own socket for each TCP address (SO_REUSEPORT), opened before rights are dropped, and all accept
from the same Unix sockets.

Raises `SettingsError` for an address that cannot be understood or needs a certificate, and
`SystemFault` for what the system refuses.
"""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from sesguard.config.listen import ListenAddress, listen_addresses
from sesguard.config.schema import RelaySettings
from sesguard.errors import SystemFault
from sesguard.relay.server import BACKLOG, server_context

RELAY: Final = "relay"
LMTP: Final = "lmtp"
SOCKET_NAMES: Final = (RELAY, LMTP)


@dataclass(frozen=True, slots=True)
class RelayListener:
    """A listening socket and how it is served."""

    socket: socket.socket
    is_lmtp: bool = False
    tls: ssl.SSLContext | None = None
    """For clients from elsewhere."""

    def __str__(self) -> str:
        name = self.socket.getsockname()
        return str(name) if isinstance(name, str) else f"{name[0]}:{name[1]}"


def open_tcp_listeners(
    relay: RelaySettings, stack: contextlib.ExitStack
) -> list[list[RelayListener]]:
    """
    Open every address of the settings, for each process of the relay.

    Args:
        relay: What to open.
        stack: Closes the sockets.

    Returns:
        For each process its listeners. Where the kernel has no IPv6, its addresses are left out.

    Raises:
        SettingsError: See `listen_addresses`.
        SystemFault: An address cannot be opened, or the certificate not be read.
    """
    addresses = [each for each in listen_addresses(relay) if socket.has_ipv6 or not each.is_v6]
    tls = None
    if any(not each.is_loopback for each in addresses):
        assert relay.certificate is not None
        assert relay.certificate_key is not None
        tls = server_context(relay.certificate, relay.certificate_key)
    shared = relay.processes > 1
    return [
        [
            RelayListener(
                stack.enter_context(_open_tcp(each, shared=shared)),
                tls=None if each.is_loopback else tls,
            )
            for each in addresses
        ]
        for _ in range(relay.processes)
    ]


def _open_tcp(address: ListenAddress, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.is_v6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit it, so that no reply waits for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((address.address, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SystemFault(
            "cannot listen on {address}: {reason}",
            hint="stop what listens there, or change relay.listen",
            address=address,
            reason=error.strerror,
        ) from error
    return listener

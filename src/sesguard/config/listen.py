"""
The addresses of ``relay.listen``.

``ADDRESS:PORT`` with an IPv4 address, or ``[ADDRESS]:PORT`` with an IPv6 address; never a name,
which could mean something else tomorrow. IPv4 within IPv6 (``[::ffff:127.0.0.1]``) is IPv4.

Raises `SettingsError` for everything else.
"""

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from sesguard.config.schema import RelaySettings
from sesguard.core.loopback import is_loopback
from sesguard.errors import SettingsError

FIRST_FREE_PORT: Final = 1024
"""Ports below need a right of root's, ip(7)."""

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A TCP address to listen on."""

    address: str
    """As the kernel writes it."""
    port: int

    @property
    def is_v6(self) -> bool:
        """Whether it is IPv6."""
        return ":" in self.address

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return is_loopback(self.address)

    @property
    def needs_right(self) -> bool:
        """Whether not everybody may listen there."""
        return self.port < FIRST_FREE_PORT

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.is_v6 else self.address
        return f"{host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """
    One item of ``relay.listen``.

    Raises:
        SettingsError: It is no address and port.
    """
    match = _ADDRESS.fullmatch(text)
    with contextlib.suppress(ValueError):
        if match is not None and 0 < int(match["port"]) <= 65535:
            return ListenAddress(_canonical(match["v6"], match["v4"]), int(match["port"]))
    raise SettingsError(
        "relay.listen: {text!r} is not an address and a port",
        hint="use 127.0.0.1:2525 or [::1]:2525",
        text=text,
    )


def listen_addresses(relay: RelaySettings) -> tuple[ListenAddress, ...]:
    """
    All addresses of ``relay.listen``, each once.

    Raises:
        SettingsError: One is no address and port, or it is not loopback and there is no
            certificate.
    """
    found = tuple(dict.fromkeys(parse_listen_address(text) for text in relay.listen))
    for each in found:
        if not each.is_loopback and (relay.certificate is None or relay.certificate_key is None):
            raise SettingsError(
                "relay.listen: {address} is not loopback, and there is no certificate",
                hint="set relay.certificate and relay.certificate_key, or listen on 127.0.0.1",
                address=each,
            )
    return found


def _canonical(v6: str | None, v4: str | None) -> str:
    if v6 is None:
        return str(ipaddress.IPv4Address(v4))
    address = ipaddress.IPv6Address(v6)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return socket.inet_ntop(socket.AF_INET6, address.packed)

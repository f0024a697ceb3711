"""Addresses to listen on: `sesguard.config.listen`, and what counts as loopback."""

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.config.listen import ListenAddress, listen_addresses, parse_listen_address
from sesguard.config.schema import RelaySettings
from sesguard.core.loopback import is_loopback
from sesguard.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "address", "port", "loopback"),
    [
        ("127.0.0.1:2525", "127.0.0.1", 2525, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("0.0.0.0:65535", "0.0.0.0", 65535, False),
        ("128.0.0.1:25", "128.0.0.1", 25, False),
        ("[::1]:2525", "::1", 2525, True),
        ("[0:0:0:0:0:0:0:1]:2525", "::1", 2525, True),
        ("[::]:2525", "::", 2525, False),
        ("[2001:DB8::0]:465", "2001:db8::", 465, False),
        ("[::1.2.3.4]:465", "::1.2.3.4", 465, False),
        ("[::ffff:127.0.0.1]:2525", "127.0.0.1", 2525, True),
        ("[::ffff:192.0.2.1]:2525", "192.0.2.1", 2525, False),
    ],
)
def test_address_is_written_as_the_kernel_does(
    text: str, address: str, port: int, loopback: bool
) -> None:
    """However the settings write it, so that a socket of the service manager is recognised."""
    parsed = parse_listen_address(text)

    assert ListenAddress(address, port) == parsed
    assert loopback is parsed.is_loopback
    assert (port < 1024, ":" in address) == (parsed.needs_right, parsed.is_v6)
    assert parsed == parse_listen_address(str(parsed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2525",
        ":2525",
        "localhost:2525",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:٢٥",
        "127.0.0.1:2525\n",
        "127.1:2525",
        "127.0.0.01:2525",
        "::1:2525",
        "[::1]",
        "[127.0.0.1]:2525",
        "[::1%lo]:2525",
        "[fe80::1%eth0]:2525",
        "/run/relay.sock",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """No name, no short form, no zone, no port that cannot be told beforehand."""
    with pytest.raises(SettingsError, match="is not an address and a port"):
        parse_listen_address(text)


@given(st.ip_addresses())
def test_loopback_is_what_the_library_says(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """For every address in the kernel's spelling."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    mapped = getattr(address, "ipv4_mapped", None) or address

    assert mapped.is_loopback is is_loopback(socket.inet_ntop(family, address.packed))


@given(st.ip_addresses(network="127.0.0.0/8"))
def test_every_loopback_address_is_one(address: ipaddress.IPv4Address) -> None:
    """Also within IPv6, as a listener for both families shows its clients."""
    assert is_loopback(str(address))
    assert is_loopback(f"::ffff:{address}")


def test_an_address_that_is_named_twice_counts_once() -> None:
    """The second one would find the port in use, by ourselves."""
    relay = RelaySettings(listen=("127.0.0.1:2525", "[::1]:2525", "[::ffff:127.0.0.1]:2525"))

    assert ["127.0.0.1:2525", "[::1]:2525"] == [str(each) for each in listen_addresses(relay)]


@pytest.mark.parametrize(
    ("certificate", "key"), [(None, None), (Path("/relay.pem"), None), (None, Path("/relay.key"))]
)
def test_an_address_that_others_reach_needs_a_certificate(
    certificate: Path | None, key: Path | None
) -> None:
    """Certificate and key, both."""
    listen = ("127.0.0.1:2525", "0.0.0.0:465")
    relay = RelaySettings(listen=listen, certificate=certificate, certificate_key=key)

    with pytest.raises(SettingsError, match=r"0\.0\.0\.0:465 is not loopback"):
        listen_addresses(relay)

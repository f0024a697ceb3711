"""
Relay mode of Exim's configuration, as a pure function of its text.

It starts from what lookup mode makes of the text and changes two things: every transport that
delivers to SES hands its mail to our relay on this host, and the authenticator that asks for the
credential is switched off. An option that does not fit that (AUTH and TLS towards SES, a source
address, other hosts) is not taken away: it is *set aside*, as a comment with a mark, from which
`without_relay` brings it back to the byte. So ``without_relay(with_relay(text)) == text``, and the
outcome is the same whether the text was in lookup mode, in relay mode or in neither before.

The routers stay as they are: ``hosts_override`` makes the transport's own host the only one, and
``allow_localhost`` says of a transport what ``self = send`` says of a router. Without it Exim
defers mail for an address of its own host.

Known limit: Exim still looks the name of the SES host up while it routes.

Source: Exim specification, chapter 30 (smtp transport).
"""

import re
from collections.abc import Collection
from typing import Final

from sesguard.deploy.exim.syntax import Block, blocks

_ASIDE: Final = "#sesguard-relay# "
_HEADING: Final = "# Made by sesguard: the mail goes to its relay, which holds the credential."
_UNFIT: Final = frozenset(
    {
        "allow_localhost",
        "fallback_hosts",
        "hosts",
        "hosts_avoid_tls",
        "hosts_override",
        "hosts_require_auth",
        "hosts_require_tls",
        "hosts_try_auth",
        "interface",
        "protocol",
    }
)
"""What a transport to the relay must not have, or has with another value."""


def relay_options(hosts: str) -> dict[str, str]:
    """
    What every transport to SES has in relay mode.

    Args:
        hosts: The relay, as the option ``hosts`` names it.
    """
    return {
        "hosts": hosts,
        "hosts_override": "true",
        "allow_localhost": "true",
        "hosts_avoid_tls": "*",
    }


def with_relay(text: str, transports: Collection[str], authenticator: str, hosts: str) -> str:
    """
    Turn a text of lookup mode into one of relay mode.

    Args:
        text: One file of the configuration.
        transports: Names of the transports that deliver to SES.
        authenticator: Name of the authenticator that asks for the credential.
        hosts: The relay, as the option ``hosts`` names it.
    """
    lines = text.splitlines(keepends=True)
    for block in reversed(blocks(lines)):
        if block.name == authenticator:
            _set_aside(lines, block.start, block.options[-1].end)
        elif block.name in transports and block.value("driver") == "smtp":
            _rewire_transport(lines, block, hosts)
        elif (block.value("transport") or "").strip() in transports:
            # A router's own fallback hosts would get the mail without AUTH while we are down.
            for option in block.named("fallback_hosts"):
                _set_aside(lines, option.start, option.end)
    return "".join(lines)


def without_relay(text: str) -> str:
    """Take back what `with_relay` did; a text without it stays as it is."""
    kept: list[str] = []
    ours: set[str] = set()
    for line in text.splitlines(keepends=True):
        name = line.partition("=")[0].strip()
        if line.strip() == _HEADING:
            ours = set(relay_options(""))
        elif name in ours:
            ours.remove(name)
        else:
            ours = set()
            kept.append(line.removeprefix(_ASIDE))
    return "".join(kept)


def _rewire_transport(lines: list[str], block: Block, hosts: str) -> None:
    """From the bottom up, so that the line numbers of what is left stay true."""
    for option in reversed(block.options):
        if option.name in _UNFIT:
            _set_aside(lines, option.start, option.end)
        elif option.name == "driver":
            # Each branch of a conditional may have a driver line of its own.
            indent = re.match(r"[ \t]*", lines[option.start])
            new = [_HEADING, *(f"{key} = {value}" for key, value in relay_options(hosts).items())]
            lines[option.end : option.end] = [f"{indent[0] if indent else ''}{x}\n" for x in new]


def _set_aside(lines: list[str], start: int, end: int) -> None:
    lines[start:end] = [_ASIDE + line for line in lines[start:end]]

"""
The SES host that a configuration names somewhere else than beside the credential.

An Exim authenticator, for one, says nothing about the host: it stands in a router. When the whole
text names one SES host, outside of comments, that is the one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from sesguard.core.plaintext.interface import FoundCredential
from sesguard.core.plaintext.position import is_comment
from sesguard.core.shapes import SES_HOST

_ENDPOINT: Final = re.compile(
    rf"(?P<host>{SES_HOST.pattern})(?:\]?::?(?P<port>[0-9]{{1,5}})(?![0-9]))?", re.IGNORECASE
)


def endpoint_in(value: str) -> tuple[str | None, int | None]:
    """The first SES host in `value` and the port behind it: ``[host]:587``, ``tls://host:465``."""
    match = _ENDPOINT.search(value)
    return (None, None) if match is None else _endpoint(match)


def sole_endpoint(text: str) -> tuple[str | None, int | None]:
    """The only SES host that `text` names, and its only port; None where there are several."""
    hosts: set[str] = set()
    ports: set[int] = set()
    for match in _ENDPOINT.finditer(text) if "amazonaws" in text.lower() else ():
        if len(hosts) < 2 and not is_comment(text, match.start()):
            host, port = _endpoint(match)
            hosts.add(host)
            ports.update(() if port is None else (port,))
    if len(hosts) != 1:
        return None, None
    return hosts.pop(), ports.pop() if len(ports) == 1 else None


def with_endpoint(found: Iterable[FoundCredential], text: str) -> Iterator[FoundCredential]:
    """Give findings that name no host the only one of the text."""
    sole: tuple[str | None, int | None] | None = None
    for item in found:
        if item.host is not None:
            yield item
            continue
        sole = sole or sole_endpoint(text)
        yield replace(item, host=sole[0], port=item.port or sole[1]) if sole[0] else item


def port_number(text: str | None) -> int | None:
    """A TCP port, or None."""
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    return int(text) if 1 <= int(text) <= 65535 else None


def _endpoint(match: re.Match[str]) -> tuple[str, int | None]:
    return match["host"].lower(), port_number(match["port"])

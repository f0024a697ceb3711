"""
Mail DSNs: ``smtp://USER:PASSWORD@HOST:PORT``, as Symfony and Laravel read them.

Schemes: smtp, smtps, ses+smtp, ses+smtps. User and password are percent-decoded. A password whose
``/`` and ``+`` were left as they are is taken as well, because people write it. For Symfony's
``ses+smtp://USER:PASSWORD@default?region=...`` the host is the region's.

``ses://`` and ``ses+api://`` carry an IAM key for the SES API, which is no SMTP credential.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from sesguard.core.endpoints import smtp_host
from sesguard.core.plaintext.endpoint import endpoint_in, port_number, with_endpoint
from sesguard.core.plaintext.interface import FoundCredential, judge, present
from sesguard.core.plaintext.position import LineCounter, is_comment
from sesguard.core.shapes import REGION

_DSN: Final = re.compile(
    r"(?<![A-Za-z0-9+])(?:ses\+)?smtps?://(?P<user>[^:@/\s'\"<>]{20,60}):"
    r"(?P<password>[^:@\s'\"<>]{40,132})@(?P<host>[^:/?#\s'\"<>]{1,255})(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/?\?(?P<query>[^\s'\"<>#]{0,256}))?"
)
_REGION: Final = re.compile(rf"(?:^|[&;])region=(?P<region>{REGION.pattern})(?![\w-])")


class DsnParser:
    """DSNs anywhere in a text, outside of lines that start with ``#`` or ``//``."""

    name: Final = "dsn"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        yield from with_endpoint(_found(text), text)


def _found(text: str) -> Iterator[FoundCredential]:
    counter = LineCounter(text)
    for match in _DSN.finditer(text):
        if is_comment(text, match.start(), ("#", "//")):
            continue
        yield from present(
            judge(
                unquote(match["user"]),
                unquote(match["password"]),
                line=counter.line_at(match.start("password")),
                kind="dsn",
                host=endpoint_in(match["host"])[0] or _regional_host(match["query"]),
                port=port_number(match["port"]),
            )
        )


def _regional_host(query: str | None) -> str | None:
    match = _REGION.search(query or "")
    return smtp_host(match["region"]) if match else None

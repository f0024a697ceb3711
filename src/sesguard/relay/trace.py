"""
The lines that go before the header of each message.

``Received`` (RFC 5321, 4.4) names us and nothing of the app or its user. The two ``X-SES-`` fields
are read and removed by SES: the configuration set, and the tags ``app`` and ``host`` by which SES's
events tell whose mail bounced.

Source: docs.aws.amazon.com/ses/latest/dg/event-publishing-send-email.html.
"""

import itertools
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from sesguard.relay.model import App

_NOT_IN_TAG: Final = re.compile(r"[^A-Za-z0-9_.@-]")
_MAX_TAG: Final = 256


class Trace:
    """
    Writes the lines.

    Args:
        host: Name of this host.
        worker: Number of this process, so that no two write the same id.
    """

    def __init__(self, host: str, worker: int) -> None:
        self._host = _tag(host)
        self._worker = worker
        self._numbers = itertools.count()
        self._second = 0
        self._date = ""
        self._tags: dict[tuple[str, str | None], str] = {}

    def front(self, app: App, configuration_set: str | None, now: float, *, lmtp: bool) -> bytes:
        """The lines, each with CRLF."""
        if int(now) != self._second:
            self._second = int(now)
            self._date = format_datetime(datetime.fromtimestamp(self._second, UTC))
        key = (app.name, configuration_set)
        tags = self._tags.get(key)
        if tags is None:
            tags = self._tags[key] = self._ses_fields(app.name, configuration_set)
        number = f"{self._second:x}-{self._worker:x}-{next(self._numbers):x}"
        protocol = "LMTP" if lmtp else "ESMTP"
        received = f"Received: by {self._host} (sesguard) with {protocol} id {number};\r\n"
        return f"{received}\t{self._date}\r\n{tags}".encode("ascii")

    def _ses_fields(self, app: str, configuration_set: str | None) -> str:
        tags = f"X-SES-MESSAGE-TAGS: app={_tag(app)}, host={self._host}\r\n"
        if configuration_set is None:
            return tags
        return f"{tags}X-SES-CONFIGURATION-SET: {_tag(configuration_set)}\r\n"


def _tag(text: str) -> str:
    return _NOT_IN_TAG.sub("-", text)[:_MAX_TAG] or "-"

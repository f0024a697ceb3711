"""
Anything else: an access key id and, not far behind it, an SMTP password.

For what people paste or download: ``USER:PASSWORD``, two lines, the ``credentials.csv`` of the SES
console, YAML, JSON, a log, a comment. A password belongs to the last user before it, within
`MAX_DISTANCE` characters; several passwords may follow one user (one a region). A raw secret key
counts only directly behind the user, since 40 characters are no evidence on their own.
"""

import re
from collections.abc import Iterator
from typing import Final

from sesguard.core.plaintext.endpoint import with_endpoint
from sesguard.core.plaintext.interface import FoundCredential, judge, present
from sesguard.core.plaintext.position import LineCounter
from sesguard.core.shapes import ACCESS_KEY_ID, SECRET_KEY, SMTP_PASSWORD

MAX_DISTANCE: Final = 400

_TOKEN: Final = re.compile(
    rf"(?P<user>{ACCESS_KEY_ID.pattern})(?:[:,;\s]{{1,3}}(?P<raw>{SECRET_KEY.pattern}))?"
    rf"|(?P<password>{SMTP_PASSWORD.pattern})"
)


class PlainParser:
    """Pairs in any text."""

    name: Final = "plain"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        yield from with_endpoint(_found(text), text)


def _found(text: str) -> Iterator[FoundCredential]:
    counter = LineCounter(text)
    username, end = "", -MAX_DISTANCE - 1
    for match in _TOKEN.finditer(text):
        if match["user"]:
            username, end = match["user"], match.end()
        group = "raw" if match["user"] else "password"
        if match[group] and match.start() - end <= MAX_DISTANCE:
            line = counter.line_at(match.start(group))
            yield from present(judge(username, match[group], line=line, kind="plain pair"))

"""
Postfix: the SASL password map and passwords written into ``main.cf`` or ``master.cf``.

    [email-smtp.us-east-1.amazonaws.com]:587   USER:PASSWORD         sasl_passwd (postmap input)
    smtp_sasl_password_maps = static:USER:PASSWORD
    smtp_sasl_password_maps = inline:{ [email-smtp.us-east-1.amazonaws.com]:587 = USER:PASSWORD }

A line that starts with white space goes on with the line before it (postconf(5)). Compiled maps
(``.db``, ``.lmdb``) are not text; `sesguard.core.plaintext.redact` finds a known secret in them.
"""

import re
from collections.abc import Iterator
from typing import Final

from sesguard.core.plaintext.endpoint import endpoint_in, with_endpoint
from sesguard.core.plaintext.interface import FoundCredential, judge, present
from sesguard.core.plaintext.position import LineCounter, is_comment, logical_prefix

_PAIR: Final = re.compile(
    r"(?<![A-Za-z0-9])(?P<user>AKIA[A-Z0-9]{16}):(?P<password>[A-Za-z0-9+/]{40,44})(?![\w+/=])"
)


class PostfixParser:
    """``sasl_passwd``, and ``static:`` and ``inline:`` maps."""

    name: Final = "postfix"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        yield from with_endpoint(_found(text), text)


def _found(text: str) -> Iterator[FoundCredential]:
    counter = LineCounter(text)
    first_inline = text.find("inline:")
    for match in _PAIR.finditer(text):
        if is_comment(text, match.start()):
            continue
        inline = 0 <= first_inline < match.start()
        form = _form(logical_prefix(text, match.start()), inline=inline)
        if form is not None:
            kind, key = form
            host, port = endpoint_in(key)
            line = counter.line_at(match.start("password"))
            yield from present(
                judge(match["user"], match["password"], line=line, kind=kind, host=host, port=port)
            )


def _form(prefix: str, *, inline: bool) -> tuple[str, str] | None:
    """What the text before a pair makes of it: the kind and the key of the map entry."""
    before = prefix.rstrip()
    if before.endswith(("static:", "static:{")):
        return "postfix static", ""
    words = before.rstrip("= \t").split()
    if inline and words and before.endswith("="):
        return "postfix inline", words[-1].lstrip("{,")
    if len(words) == 1 and before != prefix and not prefix[0].isspace() and before[-1] not in ":=":
        return "postfix sasl_passwd", words[0]
    return None

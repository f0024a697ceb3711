"""
Environment files: ``NAME=value``, as Laravel, Symfony, Django, Docker and shells read them.

A value may be bare, in single quotes (taken as it is) or in double quotes (with backslash escapes);
``export``, ``Environment=`` and several assignments in a line are understood, and so are blanks
around the ``=`` of INI files. A DSN in a value is found as a DSN. Which settings belong together:
see `sesguard.core.plaintext.pairing`.

A value that refers to another variable is not looked at: the variable it refers to is.
"""

import re
from collections.abc import Iterator
from typing import Final

from sesguard.core.plaintext.dsn import DsnParser
from sesguard.core.plaintext.endpoint import with_endpoint
from sesguard.core.plaintext.interface import FoundCredential
from sesguard.core.plaintext.pairing import Setting, pair, setting
from sesguard.core.plaintext.position import LineCounter, line_before

_ASSIGNMENT: Final = re.compile(
    r"(?<![^\s\"'`])(?P<name>[A-Za-z_][A-Za-z0-9_.]{0,127})[ \t]*=[ \t]*"
    r"(?:\"(?P<double>(?:\\.|[^\"\\\n]){1,300})|'(?P<single>[^'\n]{1,300})"
    r"|(?P<bare>(?:\\.|[^\s\"'`;#\\]){1,300}))"
)
_ESCAPE: Final = re.compile(r"\\(.)")
_COMMENT: Final = re.compile(r"(?:^|\s)#")
_SHORTEST: Final = 20


class DotenvParser:
    """Environment files."""

    name: Final = "dotenv"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        if "AKIA" in text:
            found = [*pair(_settings(text), "dotenv"), *DsnParser().find(text)]
            yield from with_endpoint(sorted(found, key=lambda item: item.line), text)


def _settings(text: str) -> Iterator[Setting]:
    counter = LineCounter(text)
    for match in _ASSIGNMENT.finditer(text):
        name, group = match["name"], match.lastgroup or ""
        value = match[group]
        if len(value) < _SHORTEST and "port" not in name.lower():
            continue
        if _COMMENT.search(line_before(text, match.start())):
            continue
        value = value if group == "single" else _ESCAPE.sub(r"\1", value)
        item = setting(name, value.strip(), counter.line_at(match.start(group)))
        if item is not None:
            yield item

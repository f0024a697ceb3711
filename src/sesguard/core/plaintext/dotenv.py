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
    r"""
    (?: (?<=Environment=) | (?<![^\s"'`]) (?!Environment=) )
    (?P<name> [A-Za-z_][A-Za-z0-9_.]{0,127} )
    (?:
        (?<=[Pp][Oo][Rr][Tt]) [ \t]*=[ \t]* ["']? (?P<number> [0-9]{1,5} ) (?![\w.])
      | [ \t]*=[ \t]*
        (?:
            "(?P<double> (?: \\. | [^"\\\n] ){20,300} )
          | '(?P<single> [^'\n]{20,300} )
          | (?P<bare> (?: \\. | [^\s"'`;#\\] ){20,300} )
        )
    )
    """,
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(.)")


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
        group = match.lastgroup or ""
        value = match[group] if group == "single" else _ESCAPE.sub(r"\1", match[group])
        item = setting(match["name"], value.strip(), counter.line_at(match.start(group)))
        if item is not None and not _in_comment(line_before(text, match.start())):
            yield item


def _in_comment(before: str) -> bool:
    return before.lstrip().startswith("#") or " #" in before or "\t#" in before

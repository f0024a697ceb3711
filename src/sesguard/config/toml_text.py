"""
Reading TOML, and where its keys stand.

TOML readers give values without positions; an error message about a value needs its line.
`key_lines` walks over a text that `read_toml` has accepted and notes the line of every table, key
and array element, however it was written: plain, quoted or dotted keys, inline tables, arrays over
several lines. It raises nothing on such a text, and is not meant for any other.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sesguard.errors import SettingsError

Place = tuple[str | int, ...]
"""Keys and array indexes from the top of the document."""

_TOML_LINE: Final = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")
_TWICE: Final = ("Cannot overwrite a value", "Cannot declare", "Duplicate inline table key")
_TOKEN: Final = re.compile(
    r'''
    (?P<skipped> [ \t\r]+ | \#[^\n]* )
    | (?P<mark> [\n\[\]{}=,.] )
    | (?P<text> """(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))? | \'\'\'.*?\'\'\'(?:'{1,2}(?!'))?
        | "(?:\\.|[^"\\\n])*" | '[^'\n]*' | [^\s\[\]{}=,."'#]+ )
    ''',
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    line: int


def read_toml(content: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    """
    Decode and parse a file.

    Returns:
        The text and the document.

    Raises:
        SettingsError: Not UTF-8 or not TOML, with file and line; the key, where one is there twice.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _toml_error(path, "", line, "not UTF-8 text") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = _TOML_LINE.search(str(error))
        reason = str(error)[: where.start()] if where else str(error)
        line = int(where["line"]) if where and where["line"] else text.rstrip().count("\n") + 1
        raise _toml_error(path, text, line, reason) from None
    except RecursionError:
        raise _toml_error(path, text, 1, "nested too deeply") from None


def error_at(path: Path, line: int, key: str, reason: str, hint: str | None) -> SettingsError:
    """The error about a key: every message about the content of the file has this form."""
    return SettingsError(
        "{path}, line {line}: {key}: {reason}",
        hint=hint or "see docs/reference/settings.md",
        path=path,
        line=line,
        key=key,
        reason=reason,
    )


def key_lines(text: str) -> dict[Place, int]:
    """The line, from 1, of each table, key and array element of `text`."""
    return _Walk(text).lines


class _Walk:
    """One pass over the tokens."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._tokens = list(_tokens(text))
        self._next = 0
        self._document()

    def _document(self) -> None:
        table: Place = ()
        arrays: dict[Place, int] = {}
        while self._next < len(self._tokens):
            if self._take("\n"):
                continue
            if self._take("["):
                several = self._take("[")
                table = self._key(())
                if several:
                    arrays[table] = arrays.get(table, -1) + 1
                    table = (*table, arrays[table])
                self._next += 2 if several else 1
            else:
                self._assignment(table)

    def _assignment(self, table: Place) -> None:
        place = self._key(table)
        self._next += 1  # the equals sign
        self._value(place)

    def _key(self, table: Place) -> Place:
        """Read a dotted key below `table`; the tables on the way get their line as well."""
        place = table
        while True:
            token = self._tokens[self._next]
            self._next += 1
            place = (*place, _name(token.text))
            self.lines.setdefault(place, token.line)
            if not self._take("."):
                return place

    def _value(self, place: Place) -> None:
        if self._take("{"):
            while not self._take("}"):
                if not self._take(",", "\n"):
                    self._assignment(place)
        elif self._take("["):
            index = 0
            while not self._take("]"):
                if not self._take(",", "\n"):
                    self.lines[(*place, index)] = self._tokens[self._next].line
                    self._value((*place, index))
                    index += 1
        else:
            self._next += 1
            while self._take("."):  # of a number with a fraction
                self._next += 1

    def _take(self, *marks: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next].text in marks:
            self._next += 1
            return True
        return False


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if not match["skipped"]:
            yield _Token(match[0], line)
        line += match[0].count("\n")


def _name(text: str) -> str:
    if text[0] not in "\"'":
        return text
    return str(tomllib.loads(f"name = {text}")["name"])


def _toml_error(path: Path, text: str, line: int, reason: str) -> SettingsError:
    """A fault of the TOML itself."""
    if reason.startswith(_TWICE):
        lines = text.split("\n")[:line]
        while len(lines) > 1 and not re.match(r"\s*(?:\[|[\w.\"'-]+\s*=)", lines[-1]):
            lines.pop()
        key = re.split(r"\s*=", lines[-1].strip().strip("[]"))[0]
        return error_at(path, len(lines), key, "this key is there twice", None)
    return SettingsError(
        "{path}, line {line}: not valid TOML: {reason}",
        hint="correct the line; strings need quotes",
        path=path,
        line=line,
        reason=reason[:1].lower() + reason[1:],
    )

"""
Enough of Exim's configuration syntax to change options and leave every other byte alone.

A configuration is physical lines. A *logical line* is one or more of them: a line that ends in a
backslash goes on in the next one, whose leading white space does not count; comment lines in
between are skipped (Exim specification, chapter 6, "Configuration file format"). A *block* is a
driver instance: a line ``name:`` and the option lines after it, up to the next ``name:``, ``begin``
or cPanel ``@SECTION@`` marker. ACLs look like blocks too; what tells them apart is that a driver
instance has a ``driver`` option.

Everything refers to physical line numbers (0-based), so that an edit is a replacement of lines.
Conditional lines (``.ifdef``, ``.else``, ``.endif``) stay where they are; an option may therefore
appear several times in a block.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_MACRO: Final = re.compile(r"([A-Z][A-Za-z0-9_]*)[ \t]*=(?!=)[ \t]*(.*)", re.DOTALL)
_BLOCK: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)[ \t]*:[ \t]*")
_OPTION: Final = re.compile(
    r"(?:hide[ \t]+)?(?:no_|not_)?(?P<name>[a-z][a-z0-9_]*)[ \t]*(?:=[ \t]*(?P<value>.*))?",
    re.DOTALL,
)
_END_OF_BLOCK: Final = re.compile(r"begin[ \t]+[a-z]+|@[A-Z]+@|%[A-Z]+%")
_MAX_MACRO_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line as Exim sees it, and where it stands."""

    text: str
    """Joined, without leading and trailing white space."""
    start: int
    """First physical line."""
    end: int
    """One past the last physical line."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option line of a block."""

    name: str
    value: str
    """As written; an empty text for an option without a value."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """A driver instance: an authenticator, a transport or a router."""

    name: str
    start: int
    """Physical line of ``name:``."""
    end: int
    """One past its last physical line."""
    options: tuple[Option, ...] = field(default=())

    def values(self, name: str) -> list[str]:
        """All values given to an option, in order."""
        return [option.value for option in self.options if option.name == name]

    def value(self, name: str) -> str | None:
        """The first value of an option, or None."""
        return next(iter(self.values(name)), None)

    def named(self, name: str) -> list[Option]:
        """All lines that set an option."""
        return [option for option in self.options if option.name == name]


def logical_lines(lines: list[str]) -> Iterator[LogicalLine]:
    """
    Join continued lines; blank lines and comments are left out.

    Args:
        lines: Physical lines, with or without their line ends.
    """
    number = 0
    while number < len(lines):
        start = number
        text = lines[number].strip()
        number += 1
        if not text or text.startswith("#"):
            continue
        while text.endswith("\\") and number < len(lines):
            following = lines[number].strip()
            number += 1
            if not following.startswith("#"):
                text = text[:-1] + following
        yield LogicalLine(text.rstrip("\\") if number == len(lines) else text, start, number)


def blocks(lines: list[str]) -> list[Block]:
    """All driver instances of a configuration, or of a part of one."""
    found: list[Block] = []
    name = ""
    start = end = 0
    options: list[Option] = []

    def close() -> None:
        if name and any(option.name == "driver" for option in options):
            found.append(Block(name, start, end, tuple(options)))

    for line in logical_lines(lines):
        heading = _BLOCK.fullmatch(line.text)
        if heading or _END_OF_BLOCK.fullmatch(line.text):
            close()
            name, start, options = (heading[1] if heading else ""), line.start, []
        elif not line.text.startswith("."):
            match = _OPTION.fullmatch(line.text)
            if match:
                options.append(Option(match["name"], match["value"] or "", line.start, line.end))
        end = line.end
    close()
    return found


def macros(lines: list[str]) -> dict[str, str]:
    """Macro definitions; of several (in ``.ifdef`` branches) the first one counts."""
    found: dict[str, str] = {}
    for line in logical_lines(lines):
        match = _MACRO.fullmatch(line.text)
        if match:
            found.setdefault(match[1], match[2])
    return found


def expand_macros(text: str, definitions: Mapping[str, str]) -> str:
    """Replace macro names by their values, as Exim does: by text, longest name first."""
    if not definitions:
        return text
    names = sorted(definitions, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, names)))
    for _round in range(_MAX_MACRO_ROUNDS):
        expanded = pattern.sub(lambda match: definitions[match[0]], text)
        if expanded == text:
            break
        text = expanded
    return text


def includes(lines: list[str]) -> list[str]:
    """Paths of ``.include`` and ``.include_if_exists`` lines."""
    found = []
    for line in logical_lines(lines):
        match = re.fullmatch(r"\.include(?:_if_exists)?[ \t]+(.+)", line.text)
        if match:
            found.append(match[1].strip().strip('"'))
    return found

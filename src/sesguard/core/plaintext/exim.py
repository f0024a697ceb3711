r"""
Exim: ``client_send`` of an authenticator, and Debian's ``passwd.client``.

``client_send`` in the forms that Exim takes (specification, chapters 6 and 34):

    client_send = : USER : PASSWORD            a list, for LOGIN
    client_send = ^USER^PASSWORD               one item, for PLAIN
    client_send = <; ; USER ; PASSWORD         a list with another separator
    hide client_send = ": USER \
        : PASSWORD"                            quoted, with escapes; continued lines

A separator, or a ``^``, that is doubled stands for itself. Macros of the same text are put in, also
nested ones; where a macro has several definitions (in the branches of ``.ifdef``), the first and
the last one are tried. Blanks before the option and ``hide`` make no difference. A value with a
``$`` is made when mail is sent, and holds nothing for us.

``passwd.client`` is ``HOST:USER:PASSWORD`` in the format of lsearch: the host may be quoted, may be
a pattern, and may end in white space instead of the colon; the rest may stand in an indented line.

Limits: values of 4,096 characters, macros of 512; 20,000 macros and options a text.

Known faults: a macro name is recognised as a whole word only (Exim also replaces it inside a word);
``.include`` is not followed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final

from sesguard.core.plaintext.endpoint import endpoint_in, with_endpoint
from sesguard.core.plaintext.interface import FoundCredential, judge, present
from sesguard.core.plaintext.position import LineCounter, Traced, logical_prefix

_STATEMENT: Final = re.compile(
    r"^[ \t]*(?:(?P<macro>[A-Z][A-Za-z0-9_]{0,63})[ \t]*==?|(?:hide[ \t]+)?client_send[ \t]*=)"
    r"[ \t]*(?P<value>(?:[^\n]*\\[ \t\r]*\n(?:[ \t]*#[^\n]*\n)*)*[^\n]*)",
    re.MULTILINE,
)
_WORD: Final = re.compile(r"(?<![A-Za-z0-9_])[A-Z][A-Za-z0-9_]*")
_UNIT: Final = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9A-Fa-f]{1,2})|(?P<other>.))|(?P<plain>[^\\])",
    re.DOTALL,
)
_SEPARATOR: Final = re.compile(r"[ \t]*<([^\w\s])")
_PAIR: Final = re.compile(
    r"(?<![A-Za-z0-9])(?P<user>AKIA[A-Z0-9]{16}):(?P<password>[A-Za-z0-9+/]{40,44})(?![\w+/=])"
)
_KEY: Final = re.compile(r'(?:"[^"]*"|[^\s"#:=][^\s:=]*)(?:[ \t]*:|[ \t])[ \t]*')

_MAX_VALUE_CHARS: Final = 4096
_MAX_MACRO_CHARS: Final = 512
_MAX_STATEMENTS: Final = 20_000


class EximParser:
    """``client_send``, in any file that Exim reads as configuration."""

    name: Final = "exim"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        if "client_send" in text:
            yield from with_endpoint(_client_send(text), text)


class EximPasswdClientParser:
    """``passwd.client``."""

    name: Final = "exim_passwd_client"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        counter = LineCounter(text)
        for match in _PAIR.finditer(text):
            key = _KEY.fullmatch(logical_prefix(text, match.start()))
            if key is not None:
                host, port = endpoint_in(key[0])
                line = counter.line_at(match.start("password"))
                kind = "passwd.client"
                yield from present(
                    judge(
                        match["user"], match["password"], line=line, kind=kind, host=host, port=port
                    )
                )


def _client_send(text: str) -> Iterator[FoundCredential]:
    seen: set[tuple[str, str, int]] = set()
    for value in _values(text):
        for item in _pairs(value):
            key = (item.username, item.password.reveal(), item.line)
            if key not in seen:
                seen.add(key)
                yield item


def _values(text: str) -> Iterator[Traced]:
    """The values of all ``client_send`` options, with macros put in."""
    first: dict[str, Traced] = {}
    last: dict[str, Traced] = {}
    redefined = False
    counter = LineCounter(text)
    for match in islice(_STATEMENT.finditer(text), _MAX_STATEMENTS):
        if match.end() - match.start("value") > _MAX_VALUE_CHARS:
            continue
        name = match["macro"]
        raw = Traced(_joined(match["value"], counter.line_at(match.start("value"))))
        value = _expanded(raw, last)
        if name is None:
            yield value
            if redefined:
                yield _expanded(raw, first)
        elif len(value.text) <= _MAX_MACRO_CHARS:
            redefined = redefined or name in last
            first.setdefault(name, _expanded(raw, first))
            last[name] = value


def _joined(raw: str, line: int) -> Iterator[tuple[str, int]]:
    """The physical lines of a logical line as Exim joins them, each with its line number."""
    if "\n" not in raw:
        yield raw.rstrip(), line
        return
    parts = [
        (part.strip(), number)
        for number, part in enumerate(raw.split("\n"), line)
        if number == line or not part.lstrip().startswith("#")
    ]
    for part, number in parts[:-1]:
        yield part.removesuffix("\\"), number
    yield parts[-1]


def _expanded(value: Traced, macros: Mapping[str, Traced]) -> Traced:
    pieces: list[tuple[str, int]] = []
    for text, line in value.pieces:
        done = 0
        for word in _WORD.finditer(text) if macros else ():
            macro = macros.get(word[0])
            if macro is not None:
                pieces += [(text[done : word.start()], line), *macro.pieces]
                done = word.end()
        pieces.append((text[done:], line))
    return Traced(pieces)


def _pairs(value: Traced) -> Iterator[FoundCredential]:
    text, offsets = _unquoted(value.text)
    if "$" in text or "AKIA" not in text:
        return
    separator, start = ":", 0
    named = _SEPARATOR.match(text)
    if named:
        separator, start = named[1], named.end()
    fields = [
        (start + outer + inner, field)
        for outer, item in _split(text[start:], separator)
        for inner, field in _split(item, "^")
        if field.strip()
    ]
    for (_offset, username), (offset, password) in pairwise(fields):
        begin = offset + len(password) - len(password.lstrip())
        line = value.line_at(offsets[begin])
        yield from present(
            judge(username.strip(), password.strip(), line=line, kind="exim client_send")
        )


def _unquoted(text: str) -> tuple[str, Sequence[int]]:
    """The value of an option, and for each of its characters the offset in `text`."""
    if not text.startswith('"'):
        return text, range(len(text))
    if "\\" not in text:
        content = text[1:].partition('"')[0]
        return content, range(1, 1 + len(content))
    characters: list[str] = []
    offsets: list[int] = []
    for unit in _UNIT.finditer(text, 1):
        if unit["plain"] == '"':
            break
        characters.append(_character(unit))
        offsets.append(unit.start())
    return "".join(characters), offsets


def _character(unit: re.Match[str]) -> str:
    if unit["octal"]:
        return chr(int(unit["octal"], 8) & 0xFF)
    if unit["hex"]:
        return chr(int(unit["hex"], 16))
    other = unit["plain"] or unit["other"]
    return other if unit["plain"] or other not in "nrtbfv" else " "


def _split(text: str, separator: str) -> Iterator[tuple[int, str]]:
    """Split where `separator` stands alone; doubled it stands for itself. Offset and field."""
    offset = 0
    for field in text.replace(separator * 2, "\0\0").split(separator):
        yield offset, field.replace("\0\0", separator)
        offset += len(field) + 1

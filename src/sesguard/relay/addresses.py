"""
The addresses in a header field (RFC 5322, 3.4), read strictly.

Programs disagree about what a broken address field says, and that is how one sender passes for
another. So nothing is guessed here: `authors` reads what every program reads the same way, and
refuses the rest. Its grammar is that of a list of mailboxes, less what is obsolete (routes, spaces
around ``@``), and more by two things that many apps write and nobody misreads: dots in a name
(``John Q. Public <j@example.com>``) and an address in front of an address
(``j@example.com <j@example.com>``); every address of those counts.

Promises
    Linear time; no input raises anything but `AddressFault`.
    An address is ``local@domain`` without quotes, comments and spaces, its domain in lower case.
    One with characters beyond ASCII (RFC 6532) is kept as it is.

Limits
    Refused although valid: groups, a local part that needs its quotes, ``!`` and ``%`` in a local
    part (they were routes once, and some programs still read them so), addresses longer than 320
    characters, text beyond ASCII that is not UTF-8, and encoded words (RFC 2047) with a line end
    or NUL in them, which some programs put into the header when they decode it.

Needs no other part of sesguard, so that a program which imports it starts fast.
"""

import binascii
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

MAX_ADDRESS: Final = 320
"""Characters of an address (RFC 5321, 4.5.3.1: 64 before the ``@`` and 255 after it)."""

_MAX_CACHED: Final = 512
"""Bytes of a field that is worth remembering: an app's From is mostly the same."""

# A character of an atom (RFC 5322, 3.2.3; RFC 6532, 3.2), or a dot.
_TEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++"
_QUOTED = rb'"(?:[^"\\]++|\\.)*+"'
_LITERAL = rb"\[[^][\\\s()<>@,;:\"]*+\]"
_TOKEN: Final = re.compile(
    rb"[ \t\r\n]++"
    rb"|(?P<text>" + _TEXT + rb"|" + _QUOTED + rb")"
    rb"(?:@(?P<address>" + _TEXT + rb"|" + _LITERAL + rb"))?+"
    rb"|(?P<mark>[<>,:;])",
    re.DOTALL,
)
_KINDS: Final = {"text": "t", "address": "a"}
_COMMENT_PART: Final = re.compile(rb"[^()\\]++|\\.|[()]", re.DOTALL)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)

# A name may have dots in it, but begins with a word (RFC 5322, 4.1).
_MAILBOX = r"(?:a|(?:[at][adt]*)?<a>)"
_MAILBOXES: Final = re.compile(rf"{_MAILBOX}(?:,{_MAILBOX})*+")
_RECIPIENT: Final = re.compile(r"([at])|[adt]*<([at])>")

# Said by what they exclude: classes that reach beyond Latin-1 take 10 ms to compile.
_LOCAL_ATOM = r"[^\x00-\"%(),.:;<>@\[-\]\x7f]+"
_LOCAL: Final = re.compile(rf"{_LOCAL_ATOM}(?:\.{_LOCAL_ATOM})*")
_LABEL = r"[^\x00-,./:-@\[-^`{-\x7f]+"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[^]]*\]")
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]|\u2028|\u2029")
_ENCODED_WORD: Final = re.compile(rb"=\?[^?]*+\?([BbQq])\?([^?]*+)\?=")
_ENCODED_ENDS: Final = re.compile(rb"=0[0AaDd]")
_ENDS: Final = re.compile(rb"[\r\n\0]")
_SPECIALS: Final = frozenset('@<>()[],;:\\". \t')

_UNREADABLE: Final = {
    ord("@"): "it has an @ that belongs to no address",
    ord('"'): "a quote is not closed",
    ord("["): "a bracket is not in its place",
    ord("]"): "a bracket is not in its place",
    ord(")"): "a comment is closed that was not opened",
    ord("\\"): "a backslash is outside quotes",
}


class AddressFault(Exception):
    """The field cannot be read for sure; the text says why, in a few words."""


def authors(value: bytes) -> tuple[str, ...]:
    """
    Every address of a list of mailboxes, as in From or Sender.

    Args:
        value: What follows the colon, folded or not.

    Raises:
        AddressFault: It is not a list of mailboxes with an address in each.
    """
    return _cached_authors(value) if len(value) <= _MAX_CACHED else _read_authors(value)


def recipients(value: bytes) -> tuple[str, ...]:
    """
    Whom a To, Cc or Bcc field sends to: one for each mailbox, those of groups included.

    Returns:
        Addresses, and names of local users where a mailbox is one plain word.

    Raises:
        AddressFault: It cannot be read.
    """
    found: list[str] = []
    mailbox: list[tuple[str, str]] = []
    for kind, text in (*_tokens(value), (",", "")):
        if kind in ",;":
            found += _named(mailbox)
            mailbox = []
        elif kind == ":":
            mailbox = []
        else:
            mailbox.append((kind, text))
    return tuple(found)


def _named(mailbox: list[tuple[str, str]]) -> list[str]:
    """The one address that a mailbox stands for; none for an empty one."""
    shape = "".join(kind for kind, _ in mailbox)
    if not shape:
        return []
    match = _RECIPIENT.fullmatch(shape)
    if match is None:
        raise AddressFault("a mailbox is not: Name <user@example.com>")
    kind, text = mailbox[match.start(match.lastindex or 0)]
    if kind == "t" and _LOCAL.fullmatch(text) is None:
        raise AddressFault("a mailbox has no address")
    return [text]


def _read_authors(value: bytes) -> tuple[str, ...]:
    kinds: list[str] = []
    found: dict[str, None] = {}
    for kind, address in _tokens(value):
        kinds.append(kind)
        if kind == "a":
            found[address] = None
    shape = "".join(kinds)
    if _MAILBOXES.fullmatch(shape) is None:
        raise AddressFault(_misshapen(shape))
    return tuple(found)


_cached_authors: Final = lru_cache(maxsize=512)(_read_authors)


def _misshapen(shape: str) -> str:
    if "a" not in shape:
        return "it has no address"
    if ":" in shape or ";" in shape:
        return "it is a group"
    return "its names, addresses, commas and angle brackets do not make a list of mailboxes"


def _tokens(value: bytes) -> Iterator[tuple[str, str]]:
    """Kind (``a`` address, ``t`` text, ``d`` with a dot first, or a mark) and text of tokens."""
    _check_characters(value)
    position = 0
    while position < len(value):
        match = _TOKEN.match(value, position)
        if match is not None:
            position = match.end()
            kind = match.lastgroup
            if kind is not None:
                text = _address(match) if kind == "address" else match[0].decode()
                yield "d" if text.startswith(".") else _KINDS.get(kind, text), text
        elif value[position] == ord("("):
            position = _end_of_comment(value, position)
        else:
            raise AddressFault(_UNREADABLE.get(value[position], "it has a character out of place"))


def _check_characters(value: bytes) -> None:
    try:
        text = value.replace(b"\r\n", b"").decode()
    except UnicodeDecodeError:
        raise AddressFault("it has bytes that are not UTF-8") from None
    if _UNSEEN.search(text):
        raise AddressFault("it has control characters")
    if b"=?" in value and any(_hides_ends(match) for match in _ENCODED_WORD.finditer(value)):
        raise AddressFault("an encoded word has a line end or NUL in it")


def _hides_ends(encoded_word: re.Match[bytes]) -> bool:
    method, text = encoded_word.groups()
    if method in b"Qq":
        return _ENCODED_ENDS.search(text) is not None
    try:
        return _ENDS.search(binascii.a2b_base64(text)) is not None
    except binascii.Error:
        return False


def _end_of_comment(value: bytes, start: int) -> int:
    """Where the comment (RFC 5322, 3.2.2: they nest) that begins at `start` ends."""
    depth = 0
    for part in _COMMENT_PART.finditer(value, start):
        if part[0] == b"(":
            depth += 1
        elif part[0] == b")":
            depth -= 1
            if depth == 0:
                return part.end()
    raise AddressFault("a comment is not closed")


def _address(match: re.Match[bytes]) -> str:
    local, domain = match["text"].decode(), match["address"].decode()
    if local.startswith('"'):
        local = _QUOTED_PAIR.sub(rb"\1", match["text"][1:-1]).decode()
    if "=?" in local or "=?" in domain:
        raise AddressFault("an address is an encoded word")
    if _LOCAL.fullmatch(local) is None:
        raise AddressFault("the part of an address before the @ is not a plain one")
    if _DOMAIN.fullmatch(domain) is None:
        raise AddressFault("the domain of an address is not a plain one")
    address = f"{local}@{domain.lower() if domain.isascii() else domain}"
    if len(address) > MAX_ADDRESS:
        raise AddressFault("an address is too long")
    if not address.isascii():
        _check_look(address)
    return address


def _check_look(address: str) -> None:
    """Refuse characters that turn into an ``@``, a dot or the like where a program normalises."""
    normal = unicodedata.normalize("NFKC", address)
    if [c for c in normal if c in _SPECIALS] != [c for c in address if c in _SPECIALS]:
        raise AddressFault("an address has characters that pass for others")

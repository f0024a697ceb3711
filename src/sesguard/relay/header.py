"""
The header of a message, as the relay must know it: who its authors are.

`read_header` takes the whole header in wire form (see `sesguard.upstream.interface`) and finds
every address of From, Sender, Resent-From and Resent-Sender, so that the policy can judge them
all. What different programs would read differently is refused: the message that was judged must be
the message that is read.

Promises
    Nothing but `HeaderFault` is raised, whatever the input; time is linear in its length.
    `Header.rewritten` changes nothing but what it says: fields in front, no X-SES-* of the client.

Limits
    256 KiB, 1,000 fields, 998 octets a line (RFC 5322, 2.1.1, and what SES takes), 30 Received.
    Other fields than the four are not looked into, beyond their lines: what they may hold is
    anything but control characters.

Sources: RFC 5322, 2.2 and 3.6; RFC 5321, 6.3 (loops); RFC 6532.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sesguard.relay.addresses import AddressFault, authors
from sesguard.relay.model import Reason, Refusal

MAX_HEADER_BYTES: Final = 256 * 1024
MAX_FIELDS: Final = 1000
MAX_LINE: Final = 998
"""Octets of one line, without its CRLF."""
MAX_RECEIVED: Final = 30
"""Hosts that a message may have passed."""

_AUTHOR_FIELDS: Final = {
    b"from": "From",
    b"sender": "Sender",
    b"resent-from": "Resent-From",
    b"resent-sender": "Resent-Sender",
}
_SINGLE: Final = ("From", "Sender")
_RECEIVED = "Received"
_OURS = "X-SES-"
_OTHER = ""
_PLAIN: Final = bytes((9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)))
_NAME: Final = bytes(c for c in range(0x21, 0x7F) if c != ord(":"))
_MAX_CACHED_NAME: Final = 80
_BLANKS: Final = b" \t"
_CONTINUES: Final = (b" ", b"\t", b"")
"""What a line begins with that is no field of its own."""


class HeaderFault(Exception):
    """The header cannot be taken; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Header:
    """What the relay knows of a header."""

    authors: tuple[str, ...]
    """Every address of every From, Sender, Resent-From and Resent-Sender, once."""
    received: int
    """Received fields."""
    block: bytes
    """The header in wire form with its empty line, without the X-SES-* fields that it had."""

    def rewritten(self, front: bytes) -> bytes:
        """The header with the fields `front` (each with its CRLF) before it."""
        return front + self.block


def read_header(block: bytes) -> Header:
    """
    Read a header.

    Args:
        block: Everything up to and including the empty line, in wire form.

    Raises:
        HeaderFault: It breaks a rule, or not every program would find the same authors.
    """
    fields = _fields(_lines(block))
    found: dict[str, None] = {}
    seen: list[str] = []
    received = 0
    for kind, lines in fields:
        if kind == _OTHER:
            continue
        seen.append(kind)
        if kind == _RECEIVED:
            received += 1
        elif kind != _OURS:
            found.update(dict.fromkeys(_authors(kind, lines)))
    _check_counts(seen, received)
    if _OURS in seen:
        block = _without_ours(fields)
    return Header(tuple(found), received, block)


def _lines(block: bytes) -> list[bytes]:
    """The lines of the header, without the empty one."""
    lines = block.split(b"\r\n")
    breaks = len(lines) - 1
    if block.translate(None, _PLAIN) or not block.count(b"\r") == block.count(b"\n") == breaks:
        raise _fault("the header has control characters or bare line ends")
    if len(block) > MAX_HEADER_BYTES:
        raise _fault(f"the header is longer than {MAX_HEADER_BYTES // 1024} KiB")
    if max(map(len, lines)) > MAX_LINE:
        raise _fault(f"a line of the header is longer than {MAX_LINE} octets: fold it")
    if lines.pop() or not lines or lines.pop():
        raise _fault("the header has no end")
    return lines


def _fields(lines: list[bytes]) -> list[tuple[str, list[bytes]]]:
    """The kind and the lines of each field."""
    fields: list[tuple[str, list[bytes]]] = []
    for line in lines:
        # Wire form: the first dot of a line is not part of it.
        text = line[1:] if line.startswith(b".") else line
        if text[:1] in _CONTINUES:
            if not fields or not text.strip(_BLANKS):
                raise _fault(
                    "the header has a line of white space only, or begins with white space"
                )
            fields[-1][1].append(line)
            continue
        name, colon, _ = text.partition(b":")
        if not colon:
            raise _fault("the header has a line that is not a field")
        kind = _kind(name) if len(name) <= _MAX_CACHED_NAME else _kind.__wrapped__(name)
        fields.append((kind, [line]))
    if len(fields) > MAX_FIELDS:
        raise _fault(f"the header has more than {MAX_FIELDS:,} fields")
    return fields


@lru_cache(maxsize=1024)
def _kind(name: bytes) -> str:
    """What a field is to us; white space before the colon is no part of its name."""
    bare = name.rstrip(_BLANKS).lower()
    if not bare or bare.translate(None, _NAME):
        raise _fault("the header has a line that is not a field")
    if bare.startswith(b"x-ses-"):
        return _OURS
    return _RECEIVED if bare == b"received" else _AUTHOR_FIELDS.get(bare, _OTHER)


def _authors(kind: str, lines: list[bytes]) -> tuple[str, ...]:
    value = b"".join([line.removeprefix(b".") for line in lines]).partition(b":")[2]
    try:
        return authors(value)
    except AddressFault as fault:
        text = f"the {kind} field cannot be read for sure: {fault}; write Name <user@example.com>"
        raise HeaderFault(Refusal(Reason.AUTHOR, 550, "5.7.1", text)) from None


def _check_counts(seen: list[str], received: int) -> None:
    if "From" not in seen:
        raise _author_fault("the header has no From field: add one")
    for kind in _SINGLE:
        if seen.count(kind) > 1:
            raise _author_fault(f"the header has several {kind} fields: leave one")
    if received > MAX_RECEIVED:
        text = f"the message has passed more than {MAX_RECEIVED} hosts: it goes in a loop"
        raise HeaderFault(Refusal(Reason.LOOP, 554, "5.4.6", text))


def _without_ours(fields: list[tuple[str, list[bytes]]]) -> bytes:
    kept = [line for kind, lines in fields if kind != _OURS for line in lines]
    return b"\r\n".join((*kept, b"", b""))


def _author_fault(text: str) -> HeaderFault:
    return HeaderFault(Refusal(Reason.AUTHOR, 550, "5.7.1", text))


def _fault(text: str) -> HeaderFault:
    return HeaderFault(Refusal(Reason.HEADER, 550, "5.6.0", text))

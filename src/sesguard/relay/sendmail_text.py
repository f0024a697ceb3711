"""
The message that the sendmail program is given: read, completed, and put into wire form.

Apps write what they like into a pipe: LF, CRLF or CR line ends, a header with holes, or none at
all. What goes out has CRLF only, a From, a Date and a Message-ID, and no Bcc.

Promises
    The body is never held in memory: it passes in pieces of 64 KiB. The header is, up to 256 KiB.
    A CR on its own ends a line where the first line ends so. Elsewhere it becomes a line end in
    the body and a space in the header, since an app that lets a CR of a stranger into its Subject
    must not thereby send to the stranger's Bcc.

Imports little, so that the program starts fast.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

PIECE: Final = 64 * 1024
"""Bytes read at a time."""
MAX_HEADER_BYTES: Final = 256 * 1024

_LONE_DOT: Final = b"\n.\n"
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FIRST_END: Final = re.compile(rb"\r(?!\n)|\n|\r\n")
_DROPPED: Final = (b"bcc", b"resent-bcc")


class TextFault(Exception):
    """The message cannot be sent as it is; the text says why."""


def pieces(read: Callable[[int], bytes], *, ends_at_dot: bool) -> Iterator[bytes]:
    """
    The text piece by piece, with LF for CRLF.

    Args:
        read: Gives up to so many bytes; nothing at the end.
        ends_at_dot: Whether a line with only a dot ends the text.
    """
    lines = _with_lf(read)
    return _until_dot(lines) if ends_at_dot else lines


def _with_lf(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = b""
    is_cr: bool | None = None
    while data := read(PIECE):
        text = rest + data
        # A CR at the end may be half a line end.
        rest = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(b"\r")
        if is_cr is None and (first := _FIRST_END.search(text)):
            is_cr = first[0] == b"\r"
        text = text.replace(b"\r\n", b"\n")
        yield text.replace(b"\r", b"\n") if is_cr else text
    yield b"\n" if rest else b""


def _until_dot(lines: Iterator[bytes]) -> Iterator[bytes]:
    # The text is searched with a line end before it, which is taken off again.
    rest, skipped = b"\n", 1
    for text in lines:
        rest += text
        end = rest.find(_LONE_DOT)
        if end >= 0:
            yield rest[skipped : end + 1]
            return
        if len(rest) > len(_LONE_DOT):
            yield rest[skipped:-2]
            rest, skipped = rest[-2:], 0
    yield (rest.removesuffix(b".") if rest.endswith(b"\n.") else rest)[skipped:]


class Head:
    """The header fields of a message, each with its folded lines and line ends."""

    def __init__(self, fields: list[bytes]) -> None:
        self._fields = fields

    def values(self, *names: bytes) -> list[bytes]:
        """The unfolded values of all fields of these names, given in lower case."""
        found = [field for field in self._fields if _name(field) in names]
        return [field.partition(b":")[2].replace(b"\n", b"") for field in found]

    def add(self, name: str, value: str) -> None:
        """Put a field in, unless there is one of that name."""
        if not self.values(name.lower().encode()):
            self._fields.append(f"{name}: {value}\n".encode())

    def text(self) -> bytes:
        """The header with its empty line, without what names blind recipients."""
        return b"".join(f for f in self._fields if _name(f) not in _DROPPED) + b"\n"


def read_head(text: Iterator[bytes]) -> tuple[Head, bytes]:
    """
    Read the header from the front of a text.

    It ends at an empty line or, as sendmail always had it, at the first line that is not a field.

    Returns:
        The header, and the beginning of the body.

    Raises:
        TextFault: The header is too long.
    """
    head = b""
    for piece in text:
        head += piece
        if b"\n\n" in head or head.startswith(b"\n") or len(head) > MAX_HEADER_BYTES:
            break
    fields, body = _split(head)
    if len(head) > MAX_HEADER_BYTES and b"\n" not in body:
        raise TextFault("the header is longer than 256 KiB")
    return Head(fields), body


def _split(text: bytes) -> tuple[list[bytes], bytes]:
    fields: list[bytes] = []
    is_mailbox = text.startswith(b"From ") and not _FIELD.match(text)
    position = (text.find(b"\n") + 1 or len(text)) if is_mailbox else 0
    while position < len(text):
        end = text.find(b"\n", position) + 1 or len(text)
        line = text[position:end].replace(b"\r", b" ").removesuffix(b"\n") + b"\n"
        if line == b"\n":
            return fields, text[end:]
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        elif _FIELD.match(line):
            fields.append(line)
        else:
            break
        position = end
    return fields, text[position:]


def _name(field: bytes) -> bytes:
    match = _FIELD.match(field)
    return match[1].lower() if match else b""


class Wire:
    """Puts text with LF line ends into wire form, piece by piece."""

    def __init__(self) -> None:
        self._at_start = True

    def encode(self, text: bytes) -> bytes:
        """The next piece."""
        if not text:
            return b""
        lines = text.replace(b"\r", b"\n").replace(b"\n.", b"\n..")
        if self._at_start and text.startswith(b"."):
            lines = b"." + lines
        self._at_start = lines.endswith(b"\n")
        return lines.replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """The end of the message: of its last line, and the final dot."""
        return b".\r\n" if self._at_start else b"\r\n.\r\n"

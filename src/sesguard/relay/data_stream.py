"""
The text of a message as it comes in, after DATA or in chunks of BDAT.

`DotStream` and `ChunkStream` are fed the bytes of the connection as they come, in pieces of any
length, and give back what may go on at once, in *wire form* (`sesguard.upstream.interface`).

Promises
    After DATA, the text ends with CRLF.CRLF (or with a first line that is only a dot) and nowhere
    else, also not with CR CRLF.CRLF, which Exim has passed on as text; after BDAT, with the last
    octet of the chunk marked LAST.
    A CR or LF on its own, or a NUL, is a fault wherever it stands. Nothing of the piece in which it
    shows is given back, nor anything after it; the stream reads on to the true end all the same, so
    that what looks like an end, and the commands behind it, are never obeyed. A CR at the end of a
    piece is kept back until its LF is there, and so is a dot that may be the end.
    Nothing is altered: no line is broken, no dot is lost. A `ChunkStream` adds the dots that the
    wire form asks for, and a CRLF to a text that does not end with one.
    At most three octets are kept from piece to piece and no octet is looked at again with the next
    piece, so time is linear and memory flat for any message in any pieces.

Limits
    `limit` octets in all, without dots that a `ChunkStream` added; over it the text is a fault.
    Lines may be of any length: programs write longer ones than the 998 octets of RFC 5322, and
    whether those are taken is for the upstream to say.

Sources: RFC 5321, 2.3.8, 4.1.1.4 and 4.5.2; RFC 3030 (BDAT); RFC 1870 (SIZE); for the forms of
smuggling CVE-2023-51764 to CVE-2023-51766.
"""

import io
import re
from typing import Final

from sesguard.relay.model import Reason, Refusal

LINE_ENDS: Final = Refusal(
    Reason.LINE_ENDS, 550, "5.6.11", "the message has a CR, LF or NUL outside of its line ends"
)
TOO_LARGE: Final = Refusal(Reason.SIZE, 552, "5.3.4", "the message is too large")

_END: Final = b"\r\n.\r\n"
_SEEMING_END: Final = re.compile(rb"[\r\n]\.[\r\n]+\Z")
_EMPTY_END: Final = b".\r\n"
"""The end of a text at the beginning of a line."""


class _TextStream:
    """What both streams are to the session."""

    chunk_ended = False
    """Whether a chunk is complete and commands follow; the session replies to each chunk."""
    ended = False
    """Whether the message is complete, for better or worse."""
    seems_ended = False
    """Whether the piece ended with what some programs take for the end. Together with `fault` the
    client may be waiting for its reply: it may be given, if the connection is closed then."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        """Octets of the message so far, as they came."""
        self.fault: Refusal | None = None
        """Why the message is not to be taken; the first reason that was found."""
        self.rest = b""
        """What came after the end of the message or chunk: commands."""
        self._kept = b""
        """The last octets of the piece before, of which it is not known yet what they are."""
        self._at_line_start = True
        """Whether a line begins with `_kept`, or with the next octet."""
        self._before = b""
        """The octet before `_kept`."""

    def _pass(self, text: bytes) -> bytes:
        """Judge text that does not end within a line end; give it back if it may go on."""
        if not text:
            return b""
        tail = self._before + text[-3:]
        self._at_line_start = tail.endswith(b"\r\n") and not tail.endswith(b"\r\r\n")
        self._before = text[-1:]
        self.size += len(text)
        if self.fault is None:
            if not has_strict_line_ends(text):
                self.fault = LINE_ENDS
            elif self.size > self.limit:
                self.fault = TOO_LARGE
        return text if self.fault is None else b""


class DotStream(_TextStream):
    """
    The text after DATA.

    Args:
        limit: Octets that it may have; those of dots at line starts count as they come.
    """

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; give back what may go on now."""
        if self.ended:
            self.rest += data
            return b""
        text = self._kept + data
        end = self._find_end(text)
        if end >= 0:
            self.ended = True
            self._kept = b""
            self.rest = text[end + len(_EMPTY_END) :]
            return self._pass(text[:end])
        self.seems_ended = _SEEMING_END.search(text, max(0, len(text) - 6)) is not None
        end = self._undecided(text)
        self._kept = text[end:]
        return self._pass(text[:end])

    def _find_end(self, text: bytes) -> int:
        """Where the line that is only a dot begins, or -1."""
        if self._at_line_start and text.startswith(_EMPTY_END):
            return 0
        # The end has the last dot, mostly, and in base64 there is none for long before: one octet
        # is sought much faster than five.
        last = text.rfind(b".")
        at = text.find(_END, 0, text.rfind(b".", 0, last) + 3)
        if at < 0:
            at = text.find(_END, max(last - 2, 0), last + 3)
        while at >= 0 and (text[at - 1 : at] if at else self._before) == b"\r":
            at = text.find(_END, at + 1)
        return at + 2 if at >= 0 else -1

    def _undecided(self, text: bytes) -> int:
        """Where the octets begin that may be half of a line end, or of the end of the text."""
        end = len(text)
        if text.endswith(b"\r"):
            end -= 1
        if text.endswith(b"\r\n.", 0, end):
            return end - 1
        is_first_dot = self._at_line_start and end == 1 and text.startswith(b".")
        return 0 if is_first_dot else end


class ChunkStream(_TextStream):
    """
    The text in chunks: call `begin_chunk` for each BDAT, then `feed`, also when no octets follow.

    Args:
        limit: Octets that the message may have.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._due = 0
        self._is_last = False

    def begin_chunk(self, size: int, last: bool) -> None:
        """Be ready for a chunk of `size` octets, perhaps the last of the message."""
        self.chunk_ended = False
        self.rest = b""
        self._due = size
        self._is_last = last

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; give back what may go on now."""
        if self.chunk_ended:
            self.rest += data
            return b""
        text = self._kept + data[: self._due]
        if len(data) >= self._due:
            self.chunk_ended = True
            self.ended = self._is_last
            self.rest = data[self._due :]
        self._due -= len(data) - len(self.rest)
        self._kept = b""
        if text.endswith(b"\r") and not self.ended:
            text, self._kept = text[:-1], b"\r"
        payload = self._stuffed(text)
        if self.ended and self.fault is None and not self._at_line_start:
            self._at_line_start = True
            payload += b"\r\n"
        return payload

    def _stuffed(self, text: bytes) -> bytes:
        """Let text pass, with the dots of the wire form."""
        is_dot_first = self._at_line_start and text.startswith(b".")
        payload = self._pass(text).replace(b"\r\n.", b"\r\n..")
        return b"." + payload if is_dot_first and payload else payload


def has_strict_line_ends(text: bytes) -> bool:
    """Whether each CR and LF of `text` is part of a CRLF, and no NUL is in it."""
    if b"\0" in text:
        return False
    # The decoder notes which line ends it meets, in one pass: four times as fast as counting.
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(text.decode("latin-1"), final=True)
    return decoder.newlines is None or decoder.newlines == "\r\n"

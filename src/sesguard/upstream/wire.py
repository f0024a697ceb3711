"""
SMTP on the wire, without any input or output: replies to read, an envelope to say.

Promises: a reply is at most `MAX_REPLY_BYTES`; a command holds what the upstream offered to
understand and nothing else; no CR, LF, NUL or other control character of an address comes into a
command. `ReplyReader.feed` raises `NotSmtp`; an address that cannot be said is a `Reply`.

Sources: RFC 5321, 4.2 (replies); RFC 2920 (PIPELINING); RFC 6152 (8BITMIME); RFC 1870 (SIZE);
RFC 6531 (SMTPUTF8); RFC 5891, 4.4 (A-labels).
"""

import base64
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from sesguard.core.encodings import encoded_forms
from sesguard.core.envelope import Envelope
from sesguard.core.secret import REDACTED, Secret
from sesguard.upstream.dialogue import MAX_REPLY_BYTES
from sesguard.upstream.replies import Outcome, Reply

DATA: Final = b"DATA\r\n"
END_OF_DATA: Final = b".\r\n"

_UNSAYABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and the surrogates that stand for bytes that are not UTF-8."""
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_NOT_AN_ADDRESS: Final = Reply(553, "5.1.3 an address with control characters", Outcome.BAD_ADDRESS)
_NO_UTF8: Final = Reply(
    553, "5.6.7 the upstream takes addresses in ASCII only", Outcome.BAD_ADDRESS
)


class NotSmtp(Exception):
    """What the peer said is no reply, or one without an end."""


class ReplyReader:
    """Puts replies together from pieces of any length."""

    __slots__ = ("_code", "_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._code = b""
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def is_within_reply(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        Take the next bytes.

        Returns:
            Code and text of each reply that is complete now, lines joined by a newline.

        Raises:
            NotSmtp: These are not replies.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        replies = [reply for line in lines if (reply := self._add(line)) is not None]
        if self._size + len(self._rest) > MAX_REPLY_BYTES:
            raise NotSmtp
        return replies

    def _add(self, line: bytes) -> tuple[int, bytes] | None:
        code, mark = line[:3], line[3:4]
        self._size += len(line)
        if not (len(code) == 3 and code.isdigit() and mark in (b" ", b"-", b"\r", b"")):
            raise NotSmtp
        if self._size > MAX_REPLY_BYTES or (self._lines and code != self._code):
            raise NotSmtp
        self._code = code
        self._lines.append(line[4:].strip())
        if mark == b"-":
            return None
        reply = int(code), b"\n".join(self._lines)
        self._lines, self._size = [], 0
        return reply


@dataclass(frozen=True, slots=True)
class Offer:
    """What an upstream said that it understands."""

    starttls: bool = False
    auth_plain: bool = False
    pipelining: bool = False
    eight_bit: bool = False
    size: bool = False
    utf8: bool = False

    @classmethod
    def of_ehlo(cls, text: bytes) -> Self:
        """Read the text of a reply to EHLO."""
        words = [line.upper().split() for line in text.split(b"\n")[1:]]
        extensions = {line[0]: line[1:] for line in words if line}
        return cls(
            starttls=b"STARTTLS" in extensions,
            auth_plain=b"PLAIN" in extensions.get(b"AUTH", []),
            pipelining=b"PIPELINING" in extensions,
            eight_bit=b"8BITMIME" in extensions,
            size=b"SIZE" in extensions,
            utf8=b"SMTPUTF8" in extensions,
        )


@dataclass(frozen=True, slots=True)
class EnvelopeCommands:
    """What is said before the message."""

    commands: tuple[bytes, ...]
    """MAIL, one RCPT for each of `recipients`, DATA."""
    recipients: tuple[str, ...]
    """As they are in the envelope."""
    refused: Mapping[str, Reply]
    """Recipients that this upstream cannot be told of."""
    refusal: Reply | None
    """Why the sender cannot be said."""


def find_unsayable(envelope: Envelope) -> Reply | None:
    """The refusal of an envelope that no command can hold, or None."""
    found = any(_UNSAYABLE.search(address) for address in (envelope.sender, *envelope.addresses))
    return _NOT_AN_ADDRESS if found else None


def envelope_commands(envelope: Envelope, offer: Offer, size: int | None) -> EnvelopeCommands:
    """
    Say the envelope to an upstream.

    Args:
        envelope: One that `find_unsayable` has nothing against.
        offer: What the upstream understands.
        size: Octets of the message; None: not known yet.
    """
    sender = _sayable(envelope.sender, offer)
    said = {address: _sayable(address, offer) for address in envelope.addresses}
    recipients = tuple(address for address, form in said.items() if form is not None)
    utf8 = envelope.utf8 or not all(map(str.isascii, (envelope.sender, *recipients)))
    parameters = (
        (" BODY=8BITMIME" if envelope.eight_bit and offer.eight_bit else "")
        + (f" SIZE={size}" if size is not None and offer.size else "")
        + (" SMTPUTF8" if utf8 and offer.utf8 else "")
    )
    return EnvelopeCommands(
        (
            f"MAIL FROM:<{sender}>{parameters}\r\n".encode(),
            *(f"RCPT TO:<{said[address]}>\r\n".encode() for address in recipients),
            DATA,
        ),
        recipients,
        {address: _NO_UTF8 for address, form in said.items() if form is None},
        _NO_UTF8 if sender is None else None,
    )


def auth_plain_reveal(username: str, password: Secret) -> bytes:
    """The AUTH command, which holds the password."""
    message = base64.b64encode(f"\0{username}\0{password.reveal()}".encode())
    return b"AUTH PLAIN " + message + b"\r\n"


class Redactor:
    """Takes a password out of what a peer sends back, in every form that is known."""

    __slots__ = ("__forms",)

    def __init__(self, username: str, password: Secret) -> None:
        self.__forms = tuple(encoded_forms(password, username).values())

    def clean(self, text: bytes) -> str:
        """The text without the password."""
        for form in self.__forms:
            if form in text:
                text = text.replace(form, REDACTED.encode())
        return text.decode("utf-8", "backslashreplace")


def _sayable(address: str, offer: Offer) -> str | None:
    """The address in a form that the upstream understands, or None."""
    if address.isascii() or offer.utf8:
        return address
    local, at, domain = address.rpartition("@")
    name = _a_labels(domain)
    return f"{local}{at}{name}" if local.isascii() and _HOST_NAME.fullmatch(name) else None


def _a_labels(domain: str) -> str:
    # Not the codec "idna": it knows IDNA 2003, where two different domains become one.
    folded = unicodedata.normalize("NFKC", domain.lower())
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode()
        for label in folded.split(".")
    )

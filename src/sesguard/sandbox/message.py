"""
The header section of a message, read byte by byte as it came.

SES reads two headers and takes them out before it delivers: X-SES-CONFIGURATION-SET, and
X-SES-MESSAGE-TAGS (``name=value, name=value``). It refuses a message without From, with a header
that must be unique twice, or with an address it cannot read, by ``554 Transaction failed: ...``;
`MessageError` has that reply.

Known fault: SES also puts a Message-ID, Date and Feedback-ID of its own in; the sandbox does not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Final

_UNIQUE_HEADERS: Final = frozenset(
    {
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "x-ses-configuration-set",
        "x-ses-message-tags",
    }
)
_TAG: Final = re.compile(r"([A-Za-z0-9_.:-]{1,256})=([A-Za-z0-9_.@-]{1,256})")
_HEADER_LINE: Final = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_LINE: Final = re.compile(rb"[^\n]*\n|[^\n]+")


class MessageError(Exception):
    """SES would refuse the message; the text is its reply."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox in a header."""

    display_name: str
    address: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the client sent it."""

    headers: tuple[tuple[str, str], ...]
    """Names and unfolded values."""
    delivered: bytes
    """The message without the headers that SES takes out."""
    sender: Address
    """The first mailbox of From."""
    author_addresses: tuple[str, ...]
    """Addresses of From and Sender."""
    configuration_set: str | None
    tags: dict[str, str]


def read_message(content: bytes) -> Message:
    """
    Read a message.

    Raises:
        MessageError: SES would refuse it.
    """
    fields, body = _split(content)
    headers = tuple((name, value) for name, value, _ in fields)
    _require_unique(headers)
    values = {name.lower(): value for name, value in headers}
    authors = _mailboxes(values.get("from", ""))
    if not authors:
        raise MessageError("554 Transaction failed: Missing required header 'From'.")
    senders = _mailboxes(values.get("sender", ""))
    taken_out = {"x-ses-configuration-set", "x-ses-message-tags"}
    return Message(
        headers,
        b"".join(raw for name, _, raw in fields if name.lower() not in taken_out) + body,
        authors[0],
        tuple(dict.fromkeys(mailbox.address for mailbox in (*authors, *senders))),
        values.get("x-ses-configuration-set") or None,
        _tags(values.get("x-ses-message-tags", "")),
    )


def _split(content: bytes) -> tuple[list[tuple[str, str, bytes]], bytes]:
    """The header fields (name, unfolded value, raw lines), and the rest of the message."""
    fields: list[tuple[str, str, bytes]] = []
    raw, end = b"", 0
    for line in _lines(content):
        if raw and line[:1] not in {b" ", b"\t"}:
            fields.append(_field(raw))
            raw = b""
        if not line.strip(b"\r\n") or not (raw or _HEADER_LINE.match(line)):
            break
        raw += line
        end += len(line)
    else:
        if raw:
            fields.append(_field(raw))
    return fields, content[end:]


def _lines(content: bytes) -> Iterator[bytes]:
    for match in _LINE.finditer(content):
        yield match[0]


def _field(raw: bytes) -> tuple[str, str, bytes]:
    match = _HEADER_LINE.match(raw)
    assert match is not None
    value = re.sub(rb"\r?\n(?=[ \t])", b"", match[2]).strip()
    return match[1].decode("ascii"), value.decode("utf-8", "replace"), raw


def _require_unique(headers: tuple[tuple[str, str], ...]) -> None:
    seen: set[str] = set()
    for name, _ in headers:
        lower = name.lower()
        if lower in seen and lower in _UNIQUE_HEADERS:
            raise MessageError(f"554 Transaction failed: Duplicate header '{name}'.")
        seen.add(lower)


def _mailboxes(value: str) -> list[Address]:
    if not value:
        return []
    mailboxes = [Address(_decoded(name), address) for name, address in getaddresses([value])]
    for mailbox in mailboxes:
        local, at, domain = mailbox.address.rpartition("@")
        if not (local and at and domain):
            raise MessageError("554 Transaction failed: Missing final '@domain'.")
    return mailboxes


def _decoded(text: str) -> str:
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text


def _tags(value: str) -> dict[str, str]:
    tags = {}
    for part in filter(None, (item.strip() for item in value.split(","))):
        match = _TAG.fullmatch(part)
        if match is None:
            raise MessageError("554 Transaction failed: Illegal header 'X-SES-MESSAGE-TAGS'.")
        tags[match[1]] = match[2]
    return tags

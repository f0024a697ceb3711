"""
What the queue keeps of a message, and what is asked and told about it: plain records.

The id that people see is the number of the database in the digits of Crockford's base 32.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from sesguard.core.envelope import Envelope

ID_SHIFT: Final = 11
"""A message's pieces have the numbers that follow its own."""

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGIT_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_ID_DIGITS: Final = 11


class State(StrEnum):
    """Where a message stands."""

    RECEIVING = "receiving"
    """Still coming in; nobody was told that it is ours."""
    QUEUED = "queued"
    SENDING = "sending"
    """Being delivered; after a crash it may have been sent."""
    HELD = "held"
    """Waits for a person."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message comes from, and the credential it goes with."""

    app: str
    uid: int | None
    credential_id: str | None
    is_notice: bool = False
    """Whether we wrote it, to tell the app's sender what became of mail: no notice answers it."""


class NewMessage(NamedTuple):
    """A message to be stored, or its first piece."""

    origin: Origin
    envelope: Envelope
    received_at: float
    state: State
    hold_reason: str | None
    data: bytes


class Piece(NamedTuple):
    """The next piece of a message that is being received."""

    message_id: int
    app: str
    number: int
    data: bytes
    state: State
    """``RECEIVING``, or what the message is with this last piece."""


class QueuedMessage(NamedTuple):
    """A message that was claimed for delivery."""

    id: int
    origin: Origin
    envelope: Envelope
    size: int
    received_at: float
    age_from: float
    """When it was received, or a person let it go: it is given up so long after that."""
    attempts: int
    maybe_sent: bool
    """An earlier attempt may have delivered it."""
    first_piece: bytes
    last_reply: str


class ClaimRequest(NamedTuple):
    """How many messages are wanted."""

    limit: int
    now: float
    allowances: Mapping[str, int]
    """The most of a credential (empty name: none); those that are missing have no limit."""
    expired: Mapping[str, float]
    """Credentials that cannot send, and the start of the age of mail that is given up."""
    turns: Mapping[tuple[str, str], int] = MappingProxyType({})
    """When a credential's mail of an app had its last turn; who waits for longest is first."""
    resting: Collection[str] = ()
    """Apps whose mail stays where it is."""


class Claim(NamedTuple):
    """What was claimed."""

    messages: Sequence[QueuedMessage]
    expired: Sequence[QueuedMessage]
    unreadable: Sequence[QueuedMessage]
    """Damaged: without a text, or without recipients."""
    next_due: float | None
    """When the next one is due, of the credentials that may send; None: nothing waits."""


class Settlement(NamedTuple):
    """How an attempt ends."""

    message: QueuedMessage
    retry_at: float | None
    """None: the message leaves the queue, or is held."""
    attempts: int = 0
    remaining: Envelope | None = None
    """The recipients that are tried again; None: all."""
    reply: str = ""
    maybe_sent: bool = False
    notices: Sequence[NewMessage] = ()
    """Messages to its sender about it."""
    hold_reason: str | None = None
    """Why it waits for a person from here on."""


class Total(NamedTuple):
    """Messages in one state."""

    messages: int
    bytes: int


def public_id(message_id: int) -> str:
    """The id that people see: eleven digits and capitals, without I, L, O and U."""
    rest = message_id >> ID_SHIFT
    digits = []
    for _place in range(_ID_DIGITS):
        digits.append(_DIGITS[rest & 31])
        rest >>= 5
    return "".join(reversed(digits))


def parse_public_id(text: str) -> int | None:
    """The message's id, or None where `text` is none."""
    value = 0
    for digit in text.upper():
        if digit not in _DIGIT_VALUES:
            return None
        value = value * 32 + _DIGIT_VALUES[digit]
    return value << ID_SHIFT if len(text) == _ID_DIGITS and value < 1 << 52 else None

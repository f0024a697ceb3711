"""What the parts of the relay hand to each other: callers, apps, refusals."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the kernel says is at the other end of a connection."""

    uid: int | None
    """None: it could not be told, so only a token can name the app."""
    gid: int | None = None
    """Known on Unix sockets only."""
    pid: int | None = None
    """Known on Unix sockets only."""


UNKNOWN: Final = Caller(None)


class DeliveryMode(StrEnum):
    """When a message is accepted."""

    PASS = "pass"  # noqa: S105 - not a password
    """When the upstream took it; for callers that have a queue."""
    SPOOL = "spool"
    """When it is on our disk."""


class PolicyMode(StrEnum):
    """What a broken rule leads to."""

    ENFORCE = "enforce"
    LEARN = "learn"
    """It is sent and noted."""
    HOLD = "hold"
    """It is taken, and waits in the queue for a person."""


class Reason(StrEnum):
    """Why a message was refused or held; the label of its metric."""

    UNKNOWN_CALLER = "unknown-caller"
    BAD_TOKEN = "bad-token"  # noqa: S105 - a name
    SUSPENDED = "suspended"
    SENDER = "sender"
    """An envelope sender that the app may not use."""
    AUTHOR = "author"
    """A From or Sender that the app may not use, or that cannot be told."""
    RECIPIENT = "recipient"
    RECIPIENTS = "recipients"
    """Too many of them."""
    SIZE = "size"
    RATE = "rate"
    HEADER = "header"
    """A header that different programs would read differently."""
    LINE_ENDS = "line-ends"
    """A CR or LF on its own, or a NUL."""
    SYNTAX = "syntax"
    LOOP = "loop"
    BUSY = "busy"
    """We have no room: disk, connections, queue."""
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not taken, as the client hears it."""

    reason: Reason
    code: int
    """SMTP code: 4xx keeps the mail with the sender, 5xx forbids it."""
    status: str
    """Enhanced status code (RFC 3463)."""
    text: str
    """For a person; it may hold what the client sent, in printable ASCII."""

    @property
    def is_kept(self) -> bool:
        """Whether the mail stays with its sender, to be sent again."""
        return self.code < 500

    def line(self) -> bytes:
        """The reply line, with CRLF."""
        return f"{self.code} {self.status} {self.text}\r\n".encode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Rates:
    """The most recipients in a time; None: no limit."""

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None


@dataclass(frozen=True, slots=True)
class App:
    """One app: what it is called and what it may do."""

    name: str
    """Such as ``shop``, or ``cpanel:alice`` where one table of the settings is for many users."""
    senders: tuple[str, ...] = ()
    """Addresses and ``*@domain`` that it may send as; empty: none."""
    allowed_recipients: tuple[str, ...] = ()
    """Empty: all that are not denied."""
    denied_recipients: tuple[str, ...] = ()
    max_recipients: int = 50
    max_message_bytes: int = 40 * 1024 * 1024
    rates: Rates = Rates()
    policy: PolicyMode = PolicyMode.ENFORCE
    delivery: DeliveryMode = DeliveryMode.SPOOL
    credential_id: str | None = None
    """None: the one that the settings name for the sender's domain."""
    configuration_set: str | None = None

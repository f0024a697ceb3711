"""What the relay reports: one event for each message, and for each caller that got no further."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sesguard.relay.model import Reason


class Fate(StrEnum):
    """What became of a message."""

    SENT = "sent"
    """The upstream has it."""
    QUEUED = "queued"
    """It is on our disk."""
    HELD = "held"
    """It is on our disk and waits for a person."""
    REFUSED = "refused"
    """5xx."""
    DEFERRED = "deferred"
    """4xx: the client keeps it."""
    ABANDONED = "abandoned"
    """The client went away before it was complete."""


@dataclass(frozen=True, slots=True)
class RelayEvent:
    """One message, or what was refused before there was one."""

    fate: Fate
    protocol: str
    """``smtp`` or ``lmtp``."""
    app: str | None = None
    """None: nobody knew the caller."""
    uid: int | None = None
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    size: int = 0
    """Octets, as the client sent them."""
    reason: Reason | None = None
    """Why it was refused or held."""
    reply: str | None = None
    """What the client heard, or the upstream said."""
    ses_message_id: str | None = None
    credential_id: str | None = None
    credential_version: int | None = None
    noted: tuple[Reason, ...] = ()
    """Rules it broke in ``learn`` mode."""
    uncertain: bool = False
    """Whether the upstream may have taken it although nobody heard so."""


EventSink = Callable[[RelayEvent], None]
"""Takes each event; it must neither raise nor wait."""

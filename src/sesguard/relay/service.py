"""What all sessions of one process share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sesguard.relay.authentication import GuessingCosts
from sesguard.relay.events import EventSink
from sesguard.relay.identity import Identities
from sesguard.relay.rates import RateTable
from sesguard.relay.refused import RefusedRecipients
from sesguard.relay.routes import Routes
from sesguard.relay.shares import Shares
from sesguard.relay.spool import SpoolCarrier
from sesguard.relay.trace import Trace
from sesguard.upstream.interface import Carrier

if TYPE_CHECKING:
    from sesguard.relay.session import Session


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How much of us one client may use."""

    max_connections: int = 500
    command_timeout_s: float = 300.0
    """Time to send the next command, or the next piece of a message."""
    message_timeout_s: float = 3600.0
    """Time for one message to come in."""
    parting_s: float = 5.0
    """Time to take the last reply, and to end TLS."""
    login_timeout_s: float = 10.0
    """Time for a caller without an app to log in, from the connect."""
    public_login_timeout_s: float = 30.0
    """The same for one from elsewhere."""
    handshake_timeout_s: float = 10.0
    """Part of that: time to begin TLS."""


@dataclass(slots=True)
class Relay:
    """The parts that sessions work with; those that settings change are replaced as a whole."""

    identities: Identities
    rates: RateTable
    routes: Routes
    upstream: Carrier
    spool: SpoolCarrier
    trace: Trace
    sink: EventSink
    host_name: str
    limits: SessionLimits
    now: Callable[[], float]
    """Wall clock in seconds."""
    guessing: GuessingCosts = field(default_factory=lambda: GuessingCosts(time.monotonic))
    refused_recipients: RefusedRecipients = field(
        default_factory=lambda: RefusedRecipients(time.monotonic)
    )
    sessions: set[Session] = field(default_factory=set)
    """Connections at this moment, until their last octet is sent or given up."""
    shares: Shares = field(default_factory=Shares)
    """Who holds how many of them."""
    greeting: bytes = field(init=False)
    """The first line that a client hears."""

    def __post_init__(self) -> None:
        self.greeting = f"220 {self.host_name} ESMTP sesguard\r\n".encode("ascii")

"""
How an attempt to deliver ends: what is written to the queue, and what is told about it.

Promises: what is given up leads to exactly one bounce, which is written in the transaction that
takes the message out of the queue; a bounce is never answered by a bounce. Since it comes from an
address of the app (`sesguard.relay.bounce`), it is known by its `Origin`.

Sources: RFC 3461, 5.2 (a bounce asks for none); RFC 5321, 4.5.4 and 4.5.5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.relay.ledger import LedgerEntry
from sesguard.relay.pacing import Pace
from sesguard.relay.spool_records import NewMessage, QueuedMessage, Settlement, State, public_id
from sesguard.relay.verdict import Verdict, judge, retry_delay_s
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Reply


class Ending(StrEnum):
    """How an attempt to deliver ended, for some recipients."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    """Its envelope sender is told."""
    DROPPED = "dropped"
    """Nobody is told: it was a bounce itself, or its sender wanted none."""
    RECOVERED = "recovered"
    """It did not: the process died, or was stopped, before it heard the answer."""
    HELD = "held"
    """It cannot be read, and waits for a person."""


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """One attempt to deliver, for the recipients that fared alike."""

    public_id: str
    app: str
    uid: int | None
    sender: str
    recipients: int
    size: int
    outcome: Ending
    reply: str
    """What the upstream said."""
    ses_message_id: str | None
    credential_id: str | None
    credential_version: int | None
    attempts: int
    """With this one; trouble of the credential counts as none."""
    possible_duplicate: bool
    age_s: float
    """Since it was received."""
    reason: str | None = None
    """Why it is held."""


class BounceMaker(Protocol):
    """Writes the message that tells a sender what was not delivered."""

    def __call__(
        self,
        envelope: Envelope,
        header: bytes,
        failures: Mapping[str, Reply],
        *,
        arrived_at: float,
        now: float,
        reason_expired: bool,
    ) -> bytes | None:
        """
        Write it.

        Args:
            envelope: Of the message.
            header: Of the message.
            failures: What was said last, by recipient.
            arrived_at: When the message was received, wall clock in seconds.
            now: Likewise.
            reason_expired: Whether we gave up, rather than the upstream refused.

        Returns:
            The whole message with CRLF, before dots are doubled; None where nobody is to be told.
        """
        ...


class ReceiptMaker(Protocol):
    """Writes the message that tells a sender who asked for it what was handed on."""

    def __call__(
        self,
        envelope: Envelope,
        header: bytes,
        replies: Mapping[str, Reply],
        *,
        arrived_at: float,
        now: float,
    ) -> bytes | None:
        """Write it; arguments and result as for `BounceMaker`."""
        ...


class Ended(NamedTuple):
    """The end of an attempt."""

    settlement: Settlement
    events: Sequence[DeliveryEvent]


class Settler:
    """
    Decides what becomes of messages.

    Args:
        bounce: Writes bounces.
        receipt: Writes receipts.
        bounce_after_s: Age at which a message is given up.
        chance: Numbers from 0 to 1, for the jitter of retries.
    """

    def __init__(
        self,
        bounce: BounceMaker,
        receipt: ReceiptMaker,
        *,
        bounce_after_s: float,
        chance: Callable[[], float],
    ) -> None:
        self._bounce = bounce
        self._receipt = receipt
        self._bounce_after_s = bounce_after_s
        self._chance = chance

    def settle(
        self,
        message: QueuedMessage,
        result: Result,
        pace: Pace,
        *,
        now: float,
        clock: float,
        may_expire: bool,
    ) -> Ended:
        """
        Decide what becomes of a message.

        Args:
            message: As it was claimed.
            result: Of the attempt.
            pace: Of its credential, which is told.
            now: Wall clock in seconds.
            clock: Monotonic seconds.
            may_expire: Whether it may be given up for its age.
        """
        verdict = judge(message.envelope, result)
        trouble = verdict.trouble
        _tell(pace, verdict, clock)
        is_expired = may_expire and now - message.age_from >= self._bounce_after_s
        failures = {**verdict.refused, **(verdict.later if is_expired else {})}
        later = {} if is_expired else verdict.later
        attempts = message.attempts + (trouble is None)
        delay_s = retry_delay_s(attempts, self._chance) if trouble is None else 0.0
        bounce = self._bounce_of(message, failures, now, reason_expired=not verdict.refused)
        receipt = self._receipt_of(message, verdict.delivered, result.reply, now)
        settlement = Settlement(
            message,
            now + delay_s if later else None,
            attempts,
            _without(message.envelope, later),
            str(next(iter(later.values()), result.reply)),
            message.maybe_sent or result.uncertain,
            tuple(notice for notice in (bounce, receipt) if notice is not None),
        )
        given_up = Ending.DROPPED if bounce is None else Ending.BOUNCED
        fates = [
            (Ending.DELIVERED, {each.address: result.reply for each in verdict.delivered}),
            (given_up, failures),
            (Ending.DEFERRED, later),
        ]
        return Ended(settlement, _events(settlement, fates, result, now))

    def _bounce_of(
        self,
        message: QueuedMessage,
        failures: Mapping[str, Reply],
        now: float,
        *,
        reason_expired: bool,
    ) -> NewMessage | None:
        if not failures or not _may_be_told(message):
            return None
        text = self._bounce(
            message.envelope,
            header_of(message.first_piece),
            failures,
            arrived_at=message.received_at,
            now=now,
            reason_expired=reason_expired,
        )
        return _notice(message, text, now)

    def _receipt_of(
        self, message: QueuedMessage, delivered: Sequence[Recipient], reply: Reply, now: float
    ) -> NewMessage | None:
        wanted = {each.address: reply for each in delivered if Notify.SUCCESS in each.notify}
        if not wanted or not _may_be_told(message):
            return None
        text = self._receipt(
            message.envelope,
            header_of(message.first_piece),
            wanted,
            arrived_at=message.received_at,
            now=now,
        )
        return _notice(message, text, now)


def header_of(piece: bytes) -> bytes:
    """The header of the message that begins with `piece`, dots no longer doubled."""
    end = piece.find(b"\r\n\r\n")
    header = piece if end < 0 else piece[: end + 2]
    return (b"\r\n" + header).replace(b"\r\n.", b"\r\n")[2:]


def ledger_entry(event: DeliveryEvent, at: float) -> LedgerEntry | None:
    """The row of the ledger for an event; None where the message is not at its end."""
    if event.outcome in (Ending.DEFERRED, Ending.RECOVERED, Ending.HELD):
        return None
    return LedgerEntry(
        at,
        event.outcome.value,
        event.app,
        event.uid,
        event.sender,
        event.recipients,
        event.size,
        event.ses_message_id,
        event.public_id,
        event.credential_id,
        event.credential_version,
        event.possible_duplicate,
    )


def recovered(message: QueuedMessage, now: float) -> DeliveryEvent:
    """What is told of a message that was being sent when the process died."""
    return _own_event(message._replace(maybe_sent=True), Ending.RECOVERED, now, None)


def held(message: QueuedMessage, reason: str, now: float) -> Ended:
    """Let a message wait for a person."""
    settlement = Settlement(message, None, message.attempts, hold_reason=reason)
    return Ended(settlement, [_own_event(message, Ending.HELD, now, reason)])


def _own_event(
    message: QueuedMessage, outcome: Ending, now: float, reason: str | None
) -> DeliveryEvent:
    """What is told of a message that was not answered."""
    return DeliveryEvent(
        public_id(message.id),
        message.origin.app,
        message.origin.uid,
        message.envelope.sender,
        len(message.envelope.recipients),
        message.size,
        outcome,
        "",
        None,
        message.origin.credential_id,
        None,
        message.attempts,
        message.maybe_sent,
        now - message.received_at,
        reason,
    )


def _in_wire_form(text: bytes) -> bytes:
    return (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]


def _tell(pace: Pace, verdict: Verdict, clock: float) -> None:
    if verdict.delivered:
        pace.note_sent()
    if verdict.trouble is not None:
        pace.note_trouble(verdict.trouble, next(iter(verdict.later.values())), clock)


def _without(envelope: Envelope, later: Mapping[str, Reply]) -> Envelope:
    """The envelope for those that are tried again."""
    kept = tuple(each for each in envelope.recipients if each.address in later)
    return envelope if len(kept) == len(envelope.recipients) else replace(envelope, recipients=kept)


def _may_be_told(message: QueuedMessage) -> bool:
    """Whether it has a sender who may hear of it."""
    return bool(message.envelope.sender) and not message.origin.is_notice


def _notice(message: QueuedMessage, text: bytes | None, now: float) -> NewMessage | None:
    """A message to the sender, from the same address."""
    if text is None:
        return None
    sender = message.envelope.sender
    envelope = Envelope(
        sender,
        (Recipient(sender, frozenset({Notify.NEVER})),),
        eight_bit=not text.isascii(),
        utf8=message.envelope.utf8,
    )
    origin = replace(message.origin, is_notice=True)
    return NewMessage(origin, envelope, now, State.QUEUED, None, _in_wire_form(text))


def _events(
    settlement: Settlement,
    fates: Sequence[tuple[Ending, Mapping[str, Reply]]],
    result: Result,
    now: float,
) -> list[DeliveryEvent]:
    """One event for each fate that a recipient had."""
    message = settlement.message
    events = []
    for outcome, replies in fates:
        reply = next(iter(replies.values()), None)
        if reply is None:
            continue
        event = DeliveryEvent(
            public_id(message.id),
            message.origin.app,
            message.origin.uid,
            message.envelope.sender,
            len(replies),
            message.size,
            outcome,
            str(reply),
            reply.message_id,
            result.credential_id or message.origin.credential_id,
            result.credential_version,
            settlement.attempts,
            settlement.maybe_sent,
            now - message.received_at,
        )
        events.append(event)
    return events

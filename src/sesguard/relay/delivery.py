"""
Delivers what is in the queue.

Promises
    A message leaves the queue after it was delivered, or in the same transaction that stores the
    bounce for it: nothing is lost and nothing bounces twice, whenever the process is killed.
    A message is marked in the database before it is sent. After a crash it is reported as a
    possible duplicate, and only then put back to be sent again; a crash in between reports it once
    more. Where only the upstream's answer was lost, the event of that attempt says so.
    Mail bounces where SES refuses the message or an address, and after `bounce_after_s`; never
    because of our credential before that time, and not in the first minutes after a start, when
    the network may not be up. A bounce is never answered by a bounce: it is dropped, and reported.
    Each app has its turn, however much another one has in the queue; so has each credential.
    A message that cannot be read is held for a person, and reported once: it is not sent in part.
    What cannot be written to the database is tried again, and takes no new work meanwhile.

Limits
    `max_in_flight` messages at a time, at most 256 KiB of each in memory. Of all processes that use
    the queue one delivers: it holds the lock ``deliver.lock``, the others wait for it.

Woken by `wake`, by the eventfd (`ring` in `sesguard.relay.spool`), when a message is due, and every
`poll_s`, which finds what the command line released.

Known faults: where the wall clock is set back, retries wait longer by as much.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sesguard.errors import Error, SystemFault
from sesguard.relay.attempt import Attempt
from sesguard.relay.ledger import Ledger
from sesguard.relay.pacing import Pace
from sesguard.relay.settling import (
    BounceMaker,
    DeliveryEvent,
    Ending,
    ReceiptMaker,
    Settler,
    held,
    ledger_entry,
    recovered,
)
from sesguard.relay.spool import Spool
from sesguard.relay.spool_records import Claim, ClaimRequest, QueuedMessage, Settlement
from sesguard.system.locks import exclusive_lock
from sesguard.upstream.interface import Carrier, Result

__all__ = [
    "BounceMaker",
    "Deliverer",
    "DeliveryEvent",
    "DeliveryLimits",
    "Ending",
    "ReceiptMaker",
]

_LOCK: Final = "deliver.lock"
_AGAIN_S: Final = 1.0
"""After the database could not be written."""
SUSPENDED_S: Final = 30.0
"""After which a suspended app's mail is looked at again."""
_DAMAGED: Final = "a part of it cannot be read"
_GRACE_S: Final = 900.0
"""After a start nothing is given up for its age."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How delivery is done."""

    bounce_after_s: float = 48 * 3600.0
    max_in_flight: int = 50
    poll_s: float = 5.0


class Deliverer:
    """
    Takes messages from the queue to a carrier; made and used on the running event loop.

    Args:
        spool: The queue.
        carrier: Where mail goes.
        ledger: Where its end is written down.
        bounce: Writes bounces.
        receipt: Writes what tells a sender who asked (NOTIFY=SUCCESS) that mail was handed on.
        sink: Takes each event, after what it tells is on the disk.
        limits: How it is done.
        clock: Monotonic seconds.
        chance: Numbers from 0 to 1, for the jitter of retries.
        may_send: Whether an app may send now; what it may not send stays, and counts no attempt.
    """

    def __init__(
        self,
        spool: Spool,
        carrier: Carrier,
        *,
        ledger: Ledger,
        bounce: BounceMaker,
        sink: Callable[[DeliveryEvent], None],
        receipt: ReceiptMaker = lambda *_arguments, **_options: None,
        limits: DeliveryLimits = DeliveryLimits(),
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        may_send: Callable[[str], bool] = lambda _app: True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._spool = spool
        self._carrier = carrier
        self._ledger = ledger
        self._settler = Settler(
            bounce, receipt, bounce_after_s=limits.bounce_after_s, chance=chance
        )
        self._sink = sink
        self._limits = limits
        self._clock = clock
        self._may_send = may_send
        self._paces: dict[str, Pace] = {}
        self._turns: dict[tuple[str, str], int] = {}
        """Of a credential and an app: the number of the last claim that gave them something."""
        self._claims = 0
        self._rests_until: dict[str, float] = {}
        """Suspended apps, and when to look at their mail again."""
        self._in_flight: dict[int, Attempt | None] = {}
        """None: nothing is tried, only written down."""
        self._bell: int | None = None
        self._lock = contextlib.ExitStack()
        self._is_ready = False
        self._is_stopping = False
        self._is_claiming = False
        self._is_wanted = False
        """Whether something may have become due since the last claim was begun."""
        self._timer: asyncio.TimerHandle | None = None
        self._keeps_all_until = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    # For its owner.

    def start(self, bell: int | None = None) -> None:
        """
        Begin, once no other process delivers.

        Args:
            bell: An eventfd that other processes ring after they queued a message.
        """
        self._keeps_all_until = self._clock() + min(_GRACE_S, self._limits.bounce_after_s)
        if bell is not None:
            self._bell = bell
            self._loop.add_reader(bell, self._rung, bell)
        self._begin()

    def wake(self) -> None:
        """Look for due messages now."""
        self._is_wanted = True
        self._claim()

    async def stop(self, *, timeout_s: float) -> None:
        """
        Begin nothing more, and wait for what is being delivered.

        What is not finished after `timeout_s` goes back into the queue, as does what was claimed
        and not begun. What was sent to its end, and not answered, is tried again at the next start
        as a possible duplicate.
        """
        self._is_ready = False
        self._is_stopping = True
        if self._bell is not None:
            self._loop.remove_reader(self._bell)
            self._bell = None
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        if self._is_claiming:
            await self._written()
        for attempt in list(self._in_flight.values()):
            if attempt is not None and attempt.give_up():
                untried = _untried(attempt.message, self._spool.now())
                with contextlib.suppress(Error):
                    await self._spool.writer.call(self._spool.table.settle, untried)
        await self._written()
        self._lock.close()

    async def _written(self) -> None:
        """Wait until all is written, or cannot be, that was put so far."""
        with contextlib.suppress(Error):
            await self._spool.totals()

    # Starting and waking.

    def _begin(self) -> None:
        try:
            self._lock.enter_context(exclusive_lock(self._spool.directory / _LOCK))
        except SystemFault:
            self._timer = self._loop.call_later(self._limits.poll_s, self._begin)
        else:
            self._find_interrupted()

    def _find_interrupted(self) -> None:
        self._spool.writer.put(self._spool.table.interrupted, None, self._found_interrupted)

    def _found_interrupted(self, found: list[QueuedMessage] | None, error: Error | None) -> None:
        if found is None or error is not None:
            self._timer = self._loop.call_later(_AGAIN_S, self._find_interrupted)
            return
        self._tell([recovered(message, self._spool.now()) for message in found])
        self._recover()

    def _recover(self) -> None:
        now = self._spool.now()
        self._spool.writer.put(self._spool.table.recover, now, self._recovered)

    def _recovered(self, _nothing: None, error: Error | None) -> None:
        if error is not None:
            self._timer = self._loop.call_later(_AGAIN_S, self._recover)
            return
        self._is_ready = not self._is_stopping
        self.wake()

    def _rung(self, bell: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell)
        self.wake()

    def _wake_in(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(delay_s, 0.0), self.wake)

    # Claiming.

    def _claim(self) -> None:
        free = self._limits.max_in_flight - len(self._in_flight)
        if not self._is_ready or self._is_claiming or not self._is_wanted or free <= 0:
            return
        self._is_claiming = True
        self._idle.clear()
        self._is_wanted = False
        now, clock = self._spool.now(), self._clock()
        self._rests_until = {app: at for app, at in self._rests_until.items() if at > clock}
        request = ClaimRequest(
            free,
            now,
            {name: pace.allowance(clock) for name, pace in self._paces.items()},
            self._given_up_before(now, clock),
            self._turns.copy(),
            frozenset(self._rests_until),
        )
        self._spool.writer.put(self._spool.table.claim, request, self._claimed)

    def _given_up_before(self, now: float, clock: float) -> dict[str, float]:
        if clock < self._keeps_all_until:
            return {}
        before = now - self._limits.bounce_after_s
        return {name: before for name, pace in self._paces.items() if pace.is_stopped}

    def _claimed(self, claim: Claim | None, error: Error | None) -> None:
        self._is_claiming = False
        if self._is_stopping:
            self._put_back_all(claim)
        elif claim is None or error is not None:
            self._is_wanted = True
            self._wake_in(_AGAIN_S)
        else:
            self._begin_attempts(claim.messages)
            self._give_up(claim.expired)
            for message in claim.unreadable:
                self._hold(message)
            self._plan(claim)
            self._claim()
        self._note_idle()

    def _plan(self, claim: Claim) -> None:
        """Say when to look again, unless something ends before."""
        clock = self._clock()
        delays = [self._limits.poll_s]
        if claim.next_due is not None:
            delay_s = claim.next_due - self._spool.now()
            if delay_s > 0:
                delays.append(delay_s)
            elif claim.messages or claim.expired or claim.unreadable:
                self._is_wanted = True
        for pace in self._paces.values():
            chance = pace.next_chance(clock)
            if chance is not None:
                delays.append(chance - clock)
        delays += [at - clock for at in self._rests_until.values()]
        self._wake_in(min(delays))

    # Attempts.

    def _begin_attempts(self, messages: Iterable[QueuedMessage]) -> None:
        clock = self._clock()
        self._claims += 1
        for message in messages:
            origin = message.origin
            self._turns[origin.credential_id or "", origin.app] = self._claims
            if not self._may_send(origin.app):
                self._rests_until[origin.app] = clock + SUSPENDED_S
                self._put_back(message, 0.0)
                continue
            attempt = Attempt(message, self._spool, self._ended, self._interrupted)
            self._in_flight[message.id] = attempt
            self._pace_of(message).begin(len(message.envelope.recipients), clock)
            attempt.begin(self._carrier)

    def _ended(self, message: QueuedMessage, result: Result) -> None:
        pace = self._pace_of(message)
        pace.end()
        self._judge(message, result, pace)

    def _give_up(self, messages: Iterable[QueuedMessage]) -> None:
        """Let mail bounce that is too old, and whose credential cannot send anyway."""
        for message in messages:
            self._in_flight[message.id] = None
            # Nothing was tried, so the pace of the credential hears nothing.
            self._judge(message, Result(self._pace_of(message).last_reply), Pace())

    def _judge(self, message: QueuedMessage, result: Result, pace: Pace) -> None:
        clock = self._clock()
        ended = self._settler.settle(
            message,
            result,
            pace,
            now=self._spool.now(),
            clock=clock,
            may_expire=clock >= self._keeps_all_until,
        )
        self._settle(ended.settlement, ended.events)

    def _interrupted(self, message: QueuedMessage, is_damaged: bool) -> None:
        self._pace_of(message).end()
        if is_damaged:
            self._hold(message)
        else:
            self._put_back(message, self._limits.poll_s)

    def _hold(self, message: QueuedMessage) -> None:
        self._in_flight[message.id] = None
        ended = held(message, _DAMAGED, self._spool.now())
        self._settle(ended.settlement, ended.events)

    def _put_back_all(self, claim: Claim | None) -> None:
        if claim is not None:
            for message in (*claim.messages, *claim.expired, *claim.unreadable):
                self._put_back(message, 0.0)

    def _put_back(self, message: QueuedMessage, delay_s: float) -> None:
        """Look at it again after a while, as if nothing had been tried."""
        self._in_flight[message.id] = None
        self._settle(_untried(message, self._spool.now() + delay_s), ())

    def _settle(self, settlement: Settlement, events: Sequence[DeliveryEvent]) -> None:
        def settled(_value: None, error: Error | None) -> None:
            if error is not None:
                self._loop.call_later(_AGAIN_S, self._settle, settlement, events)
                return
            del self._in_flight[settlement.message.id]
            self._note_idle()
            self._tell(events)
            self.wake()

        self._spool.writer.put(self._spool.table.settle, settlement, settled)

    def _note_idle(self) -> None:
        if not self._in_flight and not self._is_claiming:
            self._idle.set()

    def _tell(self, events: Sequence[DeliveryEvent]) -> None:
        for event in events:
            entry = ledger_entry(event, self._spool.now())
            if entry is not None:
                self._ledger.add(entry)
            self._sink(event)

    def _pace_of(self, message: QueuedMessage) -> Pace:
        return self._paces.setdefault(message.origin.credential_id or "", Pace())


def _untried(message: QueuedMessage, retry_at: float) -> Settlement:
    """A message that goes back as it was."""
    return Settlement(
        message,
        retry_at,
        message.attempts,
        reply=message.last_reply,
        maybe_sent=message.maybe_sent,
    )

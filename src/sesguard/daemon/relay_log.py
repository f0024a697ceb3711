"""
Where the relay's events go: a line of the log, a number of the metrics, a row of the ledger.

The log tells apps, numbers, SES's message ids and replies; whom a message was from and for it tells
only where the settings ask for it, and otherwise masks the local part of addresses in replies. The
ledger, which is not readable by others, always knows the sender.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from sesguard.daemon.log import JsonLog, Throttle
from sesguard.relay.delivery import DeliveryEvent
from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.ledger import Ledger, LedgerEntry
from sesguard.relay.metrics import Counters
from sesguard.relay.model import Reason

_LOCAL_PART: Final = re.compile(r"[^\s<>@:]{1,64}@")
_HINTS: Final = {Reason.SUSPENDED: "run: sesguard app resume NAME"}
_UNLIMITED: Final = frozenset({Fate.SENT, Fate.QUEUED, Fate.HELD})


class RelayLog:
    """
    Takes the events of one process.

    Args:
        log: Where lines go.
        counters: What is counted.
        ledger: Where messages that were passed on are written down; the queue does so itself.
        log_addresses: Whether lines name senders and recipients.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        log: JsonLog,
        counters: Counters,
        ledger: Ledger,
        *,
        log_addresses: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log_addresses = log_addresses
        self._log = log
        self._counters = counters
        self._ledger = ledger
        self._throttle = Throttle(clock)

    def message(self, event: RelayEvent) -> None:
        """Take what became of a message of a client."""
        self._counters.count_message(event)
        if event.fate is Fate.SENT:
            self._ledger.add(_entry(event))
        is_limited = event.fate not in _UNLIMITED and not event.uncertain
        left_out = self._throttle.admit((event.fate, event.reason)) if is_limited else 0
        if left_out is None:
            return
        self._log.write(
            f"relay.{event.fate}",
            protocol=event.protocol,
            app=event.app,
            uid=event.uid,
            reason=event.reason,
            size=event.size or None,
            recipients=len(event.recipients) or None,
            message_id=event.ses_message_id,
            credential=event.credential_id,
            version=event.credential_version,
            reply=self._shown(event.reply),
            noted=", ".join(event.noted) or None,
            uncertain=event.uncertain or None,
            hint=_HINTS.get(event.reason) if event.reason is not None else None,
            left_out=left_out or None,
            **self._addresses(event.sender, event.recipients),
        )

    def delivery(self, event: DeliveryEvent) -> None:
        """Take what became of an attempt to deliver a queued message."""
        self._counters.count_delivery(event)
        self._log.write(
            f"queue.{event.outcome}",
            queue_id=event.public_id,
            app=event.app,
            uid=event.uid,
            size=event.size,
            recipients=event.recipients,
            message_id=event.ses_message_id,
            credential=event.credential_id,
            version=event.credential_version,
            attempts=event.attempts,
            age_s=round(event.age_s, 3),
            possible_duplicate=event.possible_duplicate or None,
            reason=event.reason,
            reply=self._shown(event.reply) or None,
            **self._addresses(event.sender, ()),
        )

    def _shown(self, reply: str | None) -> str | None:
        if reply is None or self.log_addresses:
            return reply
        return _LOCAL_PART.sub("*@", reply)

    def _addresses(self, sender: str | None, recipients: Iterable[str]) -> dict[str, object]:
        if not self.log_addresses:
            return {}
        return {"sender": sender, "to": ", ".join(recipients) or None}


def _entry(event: RelayEvent) -> LedgerEntry:
    return LedgerEntry(
        time.time(),
        "delivered",
        event.app or "",
        event.uid,
        event.sender or "",
        len(event.recipients),
        event.size,
        event.ses_message_id,
        None,
        event.credential_id,
        event.credential_version,
        event.uncertain,
    )

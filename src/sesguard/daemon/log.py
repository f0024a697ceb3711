"""
The log of sesguardd: one JSON object a line, on standard error.

Every line has ``time`` (RFC 3339, UTC) and ``event``; docs/protocols/control.md lists the events.

Promises:
- No secret: nothing that is written here ever held one.
- No injection: text of a client is cut to a fixed length and escaped, so that a line is one line of
  printable ASCII and one valid object, whatever was sent.
- No flood: refusals for one reason are written 100 at once and then 10 a second; the next line that
  is written says how many were left out. Grants are never left out.
- No delay: mail does not wait for the log. A line that cannot be written at once (a full disk, a
  reader that hangs) is dropped and counted.

Limits: a line has at most 4096 bytes, what a pipe takes in one piece.
"""

import contextlib
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import Final

import msgspec

from sesguard.lookup.model import LookupEvent, Outcome

STDERR: Final = 2

_MAX_TEXT: Final = 256
_BURST: Final = 100.0
_PER_SECOND: Final = 10.0
_MAX_GRANTS: Final = 1000


def printable(text: str, limit: int = _MAX_TEXT) -> str:
    r"""`text` in printable ASCII (other characters as ``\n``, ``\xe9``...), cut to `limit`."""
    if not (text.isascii() and text.isprintable()):
        # Not by the codec unicode_escape, which Python may have to load after rights were dropped.
        text = ascii(text[:limit])[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."


def reserve_standard_descriptors() -> None:
    """Fill descriptors 0 to 2 where they are closed, or a client's socket would become our log."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class JsonLog:
    """
    Writes events as lines of JSON.

    Args:
        descriptor: Where to; it is never closed.
    """

    def __init__(self, descriptor: int = STDERR) -> None:
        self.lost = 0
        """Lines that could not be written."""
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, event: str, **fields: object) -> None:
        """Write an event; fields that are None are left out, text is made printable."""
        now = datetime.now(UTC).isoformat("T", "milliseconds")
        entry: dict[str, object] = {"time": now.removesuffix("+00:00") + "Z", "event": event}
        for name, value in fields.items():
            if value is not None:
                entry[name] = value if isinstance(value, int | float) else printable(str(value))
        self._write_line(msgspec.json.encode(entry) + b"\n")

    def _write_line(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            ready = self._poll.poll(0)
            takes_it = ready and ready[0][1] & select.POLLOUT
            if takes_it and os.write(self._descriptor, line) == len(line):
                return
        self.lost += 1


class Allowance:
    """A token bucket that counts what it holds back."""

    __slots__ = ("_at", "_tokens", "held_back")

    def __init__(self, now: float) -> None:
        self._tokens = _BURST
        self._at = now
        self.held_back = 0

    def take(self, now: float) -> bool:
        """Whether one more line may be written."""
        self._tokens = min(_BURST, self._tokens + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._tokens < 1:
            self.held_back += 1
            return False
        self._tokens -= 1
        return True


class Throttle:
    """
    An allowance for each kind of line.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._allowances: dict[Hashable, Allowance] = {}

    def admit(self, kind: Hashable) -> int | None:
        """How many lines of that kind were left out before this one; None: leave it out, too."""
        now = self._clock()
        allowance = self._allowances.setdefault(kind, Allowance(now))
        if not allowance.take(now):
            return None
        left_out, allowance.held_back = allowance.held_back, 0
        return left_out


class LookupLog:
    """
    The event sink of the servers: counts and logs.

    Args:
        log: Where the lines go.
        clock: Monotonic seconds.
    """

    def __init__(self, log: JsonLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[Outcome] = Counter()
        """Lookups by outcome; what happens on the control socket is not counted."""
        self.last_grants: dict[tuple[str, int], datetime] = {}
        """Credential and version to when it was handed out last; the newest `_MAX_GRANTS`."""
        self._log = log
        self._throttle = Throttle(clock)

    def __call__(self, event: LookupEvent) -> None:
        """Take one event."""
        if event.protocol != "control":
            self.counts[event.outcome] += 1
        if event.credential_id is not None and event.version is not None:
            self._remember(event.credential_id, event.version)
        left_out = self._throttle.admit(event.reason) if event.outcome is Outcome.REFUSED else 0
        if left_out is None:
            return
        self._log.write(
            f"lookup.{event.outcome}",
            protocol=event.protocol,
            reason=event.reason,
            detail=event.detail,
            peer_uid=event.peer and event.peer.uid,
            peer_pid=event.peer and event.peer.pid,
            credential=event.credential_id,
            version=event.version,
            host=event.host,
            sender=event.sender,
            message_id=event.message_id,
            cipher=event.cipher,
            left_out=left_out or None,
        )

    def _remember(self, credential_id: str, version: int) -> None:
        key = (credential_id, version)
        self.last_grants.pop(key, None)
        self.last_grants[key] = datetime.now(UTC)
        if len(self.last_grants) > _MAX_GRANTS:
            self.last_grants.pop(next(iter(self.last_grants)))

"""
How fast one credential may send: account-wide quotas, and what is done while it cannot send at all.

Promises
    A credential that is refused or cannot reach its upstream is left alone, and probed with
    one message after 5 s, then 10 s, at most every 60 s; the first that goes through ends that.
    Where the daily quota is used up the probe comes after 15 min.
    Over the rate (SES counts recipients in a second) it is slowed down to half of what it did,
    and goes faster by 2 % each second, until ten minutes have passed without such a reply.

No I/O and no clock of its own: times are seconds of a monotonic clock.
"""

import math
from typing import Final

from sesguard.relay.verdict import Trouble
from sesguard.upstream.replies import Outcome, Reply

NO_LIMIT: Final = 1_000_000
_FIRST_PROBE_S: Final = 5.0
_LONGEST_PROBE_S: Final = 60.0
_QUOTA_PROBE_S: Final = 900.0
_SLOWEST: Final = 1.0
"""Recipients in a second; that of the SES sandbox."""
_GROWTH: Final = 0.02
_CUT_EVERY_S: Final = 1.0
_FORGOTTEN_AFTER_S: Final = 600.0


class Pace:
    """The pace of one credential."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Messages that are being delivered."""
        self.last_reply = Reply(451, "not tried", Outcome.TEMPORARY)
        """The last one that told of trouble."""
        self._probe_at = 0.0
        self._probe_delay_s = 0.0
        """0: it works."""
        self._rate = _Rate()

    @property
    def is_stopped(self) -> bool:
        """Whether it cannot send: nothing but probes is tried."""
        return self._probe_delay_s > 0

    def allowance(self, now: float) -> int:
        """How many messages may be begun."""
        if not self.is_stopped:
            return self._rate.allowance(now)
        return 1 if now >= self._probe_at and not self.in_flight else 0

    def next_chance(self, now: float) -> float | None:
        """When more may be begun; None: now, or when one in flight has ended."""
        if self.is_stopped:
            return self._probe_at if now < self._probe_at else None
        return self._rate.next_chance(now)

    def begin(self, recipients: int, now: float) -> None:
        """Note that a message is being delivered."""
        self.in_flight += 1
        self._rate.take(recipients, now)

    def end(self) -> None:
        """Note that a message is delivered no more, whatever became of it."""
        self.in_flight -= 1

    def note_sent(self) -> None:
        """Note that a message went through."""
        self._probe_delay_s = 0.0

    def note_trouble(self, trouble: Trouble, reply: Reply, now: float) -> None:
        """Note why a message did not."""
        self.last_reply = reply
        if trouble is Trouble.RATE:
            self._rate.cut(now)
        elif now >= self._probe_at or not self.is_stopped:
            # Of those that were in flight together only the first one lengthens the delay.
            delay_s = min(max(2 * self._probe_delay_s, _FIRST_PROBE_S), _LONGEST_PROBE_S)
            self._probe_delay_s = _QUOTA_PROBE_S if trouble is Trouble.QUOTA else delay_s
            self._probe_at = now + self._probe_delay_s


class _Rate:
    """A token bucket that is there only after the upstream asked for one."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._tokens = 0.0
        self._filled_at = 0.0
        self._cut_at = -math.inf
        self._window_from = 0.0
        self._window_count = 0
        self._last_rate = 0.0

    def allowance(self, now: float) -> int:
        self._fill(now)
        return NO_LIMIT if self._rate is None else max(int(self._tokens), 0)

    def next_chance(self, now: float) -> float | None:
        self._fill(now)
        if self._rate is None or self._tokens >= 1:
            return None
        return now + (1 - self._tokens) / self._rate

    def take(self, recipients: int, now: float) -> None:
        self._fill(now)
        self._tokens -= recipients
        if now - self._window_from >= 1:
            self._last_rate = self._window_count / (now - self._window_from)
            self._window_from, self._window_count = now, 0
        self._window_count += recipients

    def cut(self, now: float) -> None:
        # Those that were in flight together are one excess.
        if now - self._cut_at < _CUT_EVERY_S:
            return
        before = self._rate or max(self._last_rate, self._window_count)
        self._rate = max(before / 2, _SLOWEST)
        self._tokens = 0.0
        self._filled_at = self._cut_at = now

    def _fill(self, now: float) -> None:
        if self._rate is None:
            return
        if now - self._cut_at > _FORGOTTEN_AFTER_S:
            self._rate = None
            return
        passed_s, self._filled_at = now - self._filled_at, now
        self._tokens = min(self._tokens + self._rate * passed_s, max(self._rate, 1.0))
        self._rate *= (1 + _GROWTH) ** passed_s

"""
The sending quotas: recipients a second and in 24 hours.

SES counts recipients, not messages. A message is refused when the last second already holds as many
as the rate allows, so one message may exceed the rate, as SES lets short bursts pass; refused
messages do not count. Both refusals are temporary (454), as in the AWS page on SMTP issues.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from sesguard.sandbox.model import SandboxSettings

RATE_EXCEEDED: Final = "454 Throttling failure: Maximum sending rate exceeded"
DAILY_EXCEEDED: Final = "454 Throttling failure: Daily message quota exceeded"

_DAY_S: Final = 24 * 3600.0


class Quota:
    """Counts what was sent."""

    def __init__(self, settings: Callable[[], SandboxSettings], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, int]] = deque()
        self._sent_today = 0

    def take(self, recipients: int) -> str | None:
        """Count a message in, or give the reply that refuses it."""
        settings, now = self._settings(), self._clock()
        with self._lock:
            self._forget_before(now - _DAY_S)
            if 0 <= settings.max_24_hour_send < self._sent_today + recipients:
                return DAILY_EXCEEDED
            if 0 <= settings.max_send_rate <= self._sent_since(now - 1.0):
                return RATE_EXCEEDED
            self._sent.append((now, recipients))
            self._sent_today += recipients
        return None

    def sent_last_24_hours(self) -> int:
        """Recipients of the last 24 hours."""
        with self._lock:
            self._forget_before(self._clock() - _DAY_S)
            return self._sent_today

    def clear(self) -> None:
        """Forget what was sent."""
        with self._lock:
            self._sent.clear()
            self._sent_today = 0

    def _forget_before(self, limit: float) -> None:
        while self._sent and self._sent[0][0] <= limit:
            self._sent_today -= self._sent.popleft()[1]

    def _sent_since(self, start: float) -> int:
        total = 0
        for time, recipients in reversed(self._sent):
            if time <= start:
                break
            total += recipients
        return total

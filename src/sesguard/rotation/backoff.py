"""Pauses between the attempts at something, each twice as long as the one before."""

import math
from dataclasses import dataclass

from sesguard.rotation.context import Pace


@dataclass(slots=True)
class Backoff:
    """
    How long to wait before the next attempt, and whether there is one.

    An attempt that would begin after `deadline` is not worth its pause, so it is given up at once.
    """

    pace: Pace
    pause_s: float
    """The next pause."""
    longest_s: float = math.inf
    """No pause is longer."""
    deadline: float = math.inf
    """Time of `Pace.monotonic` after which no attempt begins."""
    attempts: float = math.inf
    """How many there may be, the first included."""

    def wait(self) -> bool:
        """Pause before another attempt; False, without a pause, when there is to be none."""
        self.attempts -= 1
        if self.attempts <= 0 or self.pace.monotonic() + self.pause_s > self.deadline:
            return False
        self.pace.sleep(self.pause_s)
        self.pause_s = min(2 * self.pause_s, self.longest_s)
        return True

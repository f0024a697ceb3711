"""
Whether a client keeps up while its message holds what others want: a session, or memory.

Time counts against a client only while nobody but itself holds the message up. What it is behind
`FLOOR_BYTES_S` adds up; a fast spell makes up for it, but is not saved for later.
"""

from typing import Final

SILENCE_S: Final = 60.0
"""A client that sends nothing for so long is given up."""
LAG_S: Final = 10.0
"""A client that is so far behind is given up while others wait."""
FLOOR_BYTES_S: Final = 64 * 1024
"""What is expected of a client while others wait."""


class Pace:
    """
    How one message comes in.

    Args:
        now: Time of the event loop.
        octets: What has come so far.
        silence_s: Instead of `SILENCE_S`.
        lag_s: Instead of `LAG_S`.
    """

    __slots__ = ("_heard_at", "_lag_s", "_looked_at", "_most_lag_s", "_octets", "_silence_s")

    def __init__(
        self, now: float, octets: int, *, silence_s: float = SILENCE_S, lag_s: float = LAG_S
    ) -> None:
        self._silence_s = silence_s
        self._most_lag_s = lag_s
        self._looked_at = now
        self._heard_at = now
        self._octets = octets
        self._lag_s = 0.0

    def look(self, now: float, octets: int, *, held: bool) -> None:
        """
        Note what has come; about once a second.

        Args:
            now: Time of the event loop.
            octets: What has come so far.
            held: Whether the client may not send, because of somebody else.
        """
        passed, came = now - self._looked_at, octets - self._octets
        self._looked_at, self._octets = now, octets
        if came or held:
            self._heard_at = now
        if not held:
            lag_s = self._lag_s + passed - came / FLOOR_BYTES_S
            self._lag_s = min(max(lag_s, 0.0), self._most_lag_s)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for too long."""
        return self._looked_at - self._heard_at >= self._silence_s

    @property
    def is_behind(self) -> bool:
        """Whether it is too slow while others wait."""
        return self._lag_s >= self._most_lag_s

"""
Memory for messages that must be whole before they can be sent.

Promises
    A message of up to `SMALL_BYTES` always has room. Larger ones share a budget, from their first
    octet until they are done with; when it is used up they are paused, and go on in the order in
    which they came as room comes back.
    The first of them may always go on to its end when no complete message will give room back. So
    nobody waits for ever, and one message at most is beyond the budget, with one piece of each.
    A client that is too slow (`sesguard.upstream.pace`) while others wait for room is cut, however
    many of them there are.
"""

import asyncio
from typing import Final, Protocol

from sesguard.upstream.pace import Pace

SMALL_BYTES: Final = 64 * 1024

_TICK_S: Final = 1.0
_PIECE_BYTES: Final = 256 * 1024
"""What a client may bring at one time: the most that the event loop reads at once."""


class Holder(Protocol):
    """A message in memory."""

    @property
    def size(self) -> int:
        """Octets that it has."""
        ...

    def pause(self) -> None:
        """Take nothing more for now."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def cut(self) -> None:
        """End it: its client is too slow."""
        ...


class Budget:
    """
    Shares the memory out. Made and used on one event loop.

    Args:
        limit: Octets for large messages.
        lag_s: How far a client may be behind while others wait.
    """

    def __init__(self, limit: int, lag_s: float) -> None:
        self._limit = limit
        self._lag_s = lag_s
        self._loop = asyncio.get_running_loop()
        self._used = 0
        self._coming: dict[Holder, int] = {}
        """Large messages that are not complete, in the order in which they came, with their size
        as it was counted."""
        self._complete: dict[Holder, int] = {}
        self._paused: dict[Holder, None] = {}
        self._paces: dict[Holder, Pace] = {}
        """Of those that are coming, while others wait."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def used(self) -> int:
        """Octets that large messages have."""
        return self._used

    def note(self, holder: Holder) -> None:
        """A message has grown."""
        known = self._coming.get(holder, 0)
        if holder.size <= SMALL_BYTES:
            return
        self._used += holder.size - known
        self._coming[holder] = holder.size
        if self._used >= self._limit and not self._must_go_on(holder):
            self._paused[holder] = None
            holder.pause()
            self._watch()
        elif self._paused and self._used < self._limit:
            self._go_on()

    def complete(self, holder: Holder) -> None:
        """A message is complete, and is kept until it is done with."""
        if holder in self._coming:
            self._complete[holder] = self._coming.pop(holder)
            self._forget(holder)

    def release(self, holder: Holder) -> None:
        """A message is done with, at whatever point."""
        self._used -= self._coming.pop(holder, 0) + self._complete.pop(holder, 0)
        self._forget(holder)
        self._go_on()

    def _must_go_on(self, holder: Holder) -> bool:
        """Whether nothing but the end of this message will give room back."""
        return not self._complete and holder is next(iter(self._coming))

    def _go_on(self) -> None:
        """Let those go on whose next piece has room."""
        room = self._limit - self._used
        for holder in [each for each in self._coming if each in self._paused]:
            if room <= 0 and not self._must_go_on(holder):
                return
            self._paused.pop(holder, None)
            holder.resume()
            room -= _PIECE_BYTES

    def _forget(self, holder: Holder) -> None:
        self._paused.pop(holder, None)
        self._paces.pop(holder, None)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(min(_TICK_S, self._lag_s / 4), self._tick)

    def _tick(self) -> None:
        """Cut those who are too slow for the others who wait for room."""
        self._timer = None
        if not self._paused or self._used < self._limit:
            self._paces.clear()
            self._go_on()
        if not self._paused:
            return
        self._watch()
        now = self._loop.time()
        for holder in [*self._coming]:
            pace = self._paces.get(holder)
            if pace is None:
                pace = self._paces[holder] = Pace(now, holder.size, lag_s=self._lag_s)
            pace.look(now, holder.size, held=holder in self._paused)
        for holder in [each for each, pace in self._paces.items() if pace.is_behind]:
            holder.cut()

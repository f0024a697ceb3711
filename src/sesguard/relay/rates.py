"""
How much an app may send in a minute, an hour and a day.

The rule is the generic cell rate algorithm, kept as a leaky bucket: each recipient adds one, and
the bucket of a window drains evenly, a full one in just that window. A message is admitted when its
recipients still fit into every bucket, and then fills all of them; a refused one fills none.

So a limit of n a minute allows n at once and then n a minute, evenly. In any minute at most 2n are
admitted (n at once after a rest, and what drained meanwhile), over a long time n a minute.

Promises
    A message that its sender keeps, because the upstream did not take it, is given back to the hour
    and the day, so that an honest retry counts once; to the minute it is not, which bounds how
    often anybody tries. What is abandoned counts.
    Several processes that share the file admit together what one would. Restarts and kill -9 change
    nothing. A message of more recipients than a limit is refused for good, the others until there
    is room. An app without limits costs nothing, not even the file.
    A clock that goes back or forth keeps an app out for at most the one window; a lowered limit
    likewise.
    Where the file cannot be used nothing is admitted: the mail stays with its sender.

Raises nothing; `usage` a SystemFault where the file cannot be read.

Sources: ITU-T I.371, annex A (the two forms of the algorithm).
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault
from sesguard.relay.model import App, Rates, Reason, Refusal
from sesguard.system.shared_table import SharedTable, Values, read_row

RATES_FILE: Final = "rates"
"""Its name in the directory of the queue."""
ROWS: Final = 8192
"""Apps whose limits matter at one time."""

_WINDOWS: Final = (("minute", 60.0), ("hour", 3600.0), ("day", 86400.0))
_COLUMNS: Final = 1 + len(_WINDOWS)
"""The time of the last admission, and a bucket for each window."""
_UNUSABLE: Final = Refusal(
    Reason.BUSY, 451, "4.3.0", "the relay cannot count its mail now; try again later"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """How full one bucket is."""

    window: str
    """``minute``, ``hour`` or ``day``."""
    limit: int
    used: float
    """Recipients that count at this moment."""


class RateTable:
    """
    Counts what apps send.

    Args:
        path: The file that all processes share. It is made with the first app that has a limit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table: SharedTable | None = None

    def take(self, app: App, count: int, now: float) -> Refusal | None:
        """
        Count a message if it is within the limits.

        Args:
            app: Whose it is.
            count: Its recipients.
            now: Seconds since 1970.

        Returns:
            Why it may not be sent now or at all; None: it may, and was counted.
        """
        rates = app.rates
        if rates.per_minute is None and rates.per_hour is None and rates.per_day is None:
            return None
        bucket = _Buckets(app, count, now)
        if bucket.refusal is None:
            try:
                self._open().update(app.name, now, bucket.fill)
            except SystemFault:
                return _UNUSABLE
        return bucket.refusal

    def give_back(self, app: App, count: int, now: float) -> None:
        """
        Count a message no more, in the hour and the day, that `take` has counted.

        Where the file cannot be used it stays counted.

        Args:
            app: Whose it is.
            count: Its recipients.
            now: Seconds since 1970.
        """
        if app.rates.per_hour is not None or app.rates.per_day is not None:
            with contextlib.suppress(SystemFault):
                self._open().update(app.name, now, _Buckets(app, count, now).empty)

    def usage(self, app: App, now: float) -> tuple[Usage, ...]:
        """
        How full the buckets of an app are; nothing is changed or made.

        Raises:
            SystemFault: The file is there and cannot be read.
        """
        limits = _limits(app.rates)
        row = read_row(self._path, app.name, columns=_COLUMNS) if any(limits) else None
        return tuple(
            Usage(name, limit, level)
            for (name, _), limit, level in zip(
                _WINDOWS, limits, _drained(row, limits, now), strict=True
            )
            if limit is not None
        )

    def _open(self) -> SharedTable:
        if self._table is None:
            self._table = SharedTable(self._path, columns=_COLUMNS, rows=ROWS)
        return self._table


class _Buckets:
    """One message before the buckets of its app."""

    def __init__(self, app: App, count: int, now: float) -> None:
        self._name = app.name
        self._limits = _limits(app.rates)
        self._count = count
        self._now = now
        self.refusal = self._never()

    def fill(self, row: Values | None) -> tuple[Values, float] | None:
        """Fill all buckets, or none and set `refusal`; see `sesguard.system.shared_table`."""
        levels = _drained(row, self._limits, self._now)
        wait = self._longest(
            [
                level + self._count - (limit or 0)
                for level, limit in zip(levels, self._limits, strict=True)
            ]
        )
        if wait > 0:
            self.refusal = self._later(wait)
            # After a step back of the clock the buckets must begin to drain from here.
            is_ahead = row is not None and row[0] > self._now
            return self._row(levels) if is_ahead else None
        return self._row([level + self._count for level in levels])

    def empty(self, row: Values | None) -> tuple[Values, float]:
        """Take the message out of the buckets of the hour and the day."""
        minute, *others = _drained(row, self._limits, self._now)
        return self._row([minute, *(max(0.0, level - self._count) for level in others)])

    def _row(self, levels: Sequence[float]) -> tuple[Values, float]:
        return (self._now, *levels), self._now + self._longest(levels)

    def _longest(self, levels: Sequence[float]) -> float:
        """Seconds until so much has drained from every bucket."""
        return max(
            level * seconds / limit
            for (_, seconds), limit, level in zip(_WINDOWS, self._limits, levels, strict=True)
            if limit is not None
        )

    def _never(self) -> Refusal | None:
        for (window, _), limit in zip(_WINDOWS, self._limits, strict=True):
            if limit is not None and self._count > limit:
                return Refusal(
                    Reason.RATE,
                    550,
                    "5.5.3",
                    f"{self._count} recipients are more than app {self._name} may write to"
                    f" in a {window} ({limit}): send it in parts",
                )
        return None

    def _later(self, wait: float) -> Refusal:
        return Refusal(
            Reason.RATE,
            450,
            "4.7.1",
            f"app {self._name} has sent what it may for now; try again in {int(wait) + 1} s",
        )


def _limits(rates: Rates) -> tuple[int | None, int | None, int | None]:
    return rates.per_minute, rates.per_hour, rates.per_day


def _drained(
    row: Values | None, limits: tuple[int | None, ...], now: float
) -> tuple[float, float, float]:
    """What is left in the buckets at `now`; never more than a full one."""
    if row is None:
        return 0.0, 0.0, 0.0
    last, *levels = row
    # After a step back of the clock nothing has drained yet.
    passed = now - last if now > last else 0.0
    left = [
        0.0 if limit is None else min(float(limit), level) - passed * limit / seconds
        for (_, seconds), limit, level in zip(_WINDOWS, limits, levels, strict=True)
    ]
    minute, hour, day = (level if level > 0 else 0.0 for level in left)
    return minute, hour, day

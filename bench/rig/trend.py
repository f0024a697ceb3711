"""
Whether something grows: samples over time, told by the medians of the first and last quarter.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WARM_UP_SHARE = 0.05
"""Share of the samples at the beginning that are left out: caches and pools fill first."""
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much the last quarter may be above the first."""

    share: float
    amount: float


TOLERANCES: Mapping[str, Tolerance] = {
    "memory_mb": Tolerance(0.05, 2.0),
    "descriptors": Tolerance(0.05, 5.0),
    "threads": Tolerance(0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Trend:
    """One series of one process."""

    name: str
    first: float
    """Median of the first quarter."""
    last: float
    """Median of the last quarter."""
    most: float
    is_flat: bool
    picture: str


def trend(name: str, samples: Sequence[float], tolerance: Tolerance) -> Trend:
    """
    Judge a series.

    Raises:
        ValueError: There are fewer than eight samples.
    """
    settled = samples[int(len(samples) * WARM_UP_SHARE) :]
    if len(settled) < 8:
        raise ValueError(f"{name}: {len(samples)} samples are too few")
    quarter = len(settled) // 4
    first, last = statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])
    limit = first * (1 + tolerance.share) + tolerance.amount
    return Trend(name, first, last, max(samples), last <= limit, sparkline(samples))


def sparkline(samples: Sequence[float], width: int = 60) -> str:
    """A picture of one line: from nothing to the greatest sample."""
    top = max(samples, default=0) or 1
    count = min(width, len(samples))
    groups = (
        samples[i * len(samples) // count : (i + 1) * len(samples) // count] for i in range(count)
    )
    heights = (statistics.fmean(group) / top for group in groups)
    return "".join(_BARS[min(len(_BARS) - 1, int(height * len(_BARS)))] for height in heights)

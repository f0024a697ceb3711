"""
One relay under each load: what it managed, what it cost, and whether all mail arrived.
"""

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rig.native import CACHE, Load, Sent, Sink, account, send, wait_until
from rig.peers import Running
from rig.usage import Usage, Watch, look, watching

WARM_UP = Load(connections=10, messages=100, limit_s=20)
PATIENCE_S = 15.0
"""Time without a message at the sink after which a relay is taken to deliver no more."""


class Relay(Protocol):
    """One relay in one configuration."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        ...

    def prepare(self) -> None:
        """Get what it needs; raises `rig.peers.Unavailable`."""
        ...

    def running(self, sink: Sink) -> contextlib.AbstractContextManager[Running]:
        """Run it in front of a sink."""
        ...


def loads(seconds: float) -> dict[str, Load]:
    """The loads by name; each lasts so many seconds, but for the single message."""
    few = Load(seconds=seconds, limit_s=4 * seconds + 10)
    return {
        "40 MB": Load(connections=1, size=40_000_000, messages=1, limit_s=60),
        "1 connection": replace(few, connections=1, reuse=True),
        "4 KB": few,
        "4 KB, reuse": replace(few, reuse=True),
        "100 KB": replace(few, size=100_000),
        "500 connections": replace(few, connections=500),
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """One load on one relay."""

    accepted_per_s: float
    delivered_per_s: float
    """From the first connection until the sink had the last message."""
    cpu_s_per_1000: float
    """Of all its processes, until the last message was delivered."""
    p50_ms: float
    p99_ms: float
    idle_mb: float
    """Memory before the load."""
    peak_mb: float
    accepted: int
    failed: int
    """Messages that were not accepted."""
    lost: int
    duplicated: int
    altered: int


def measure(relay: Running, sink: Sink, load: Load, run: str) -> Figures:
    """Put one load on a running relay, and wait until the sink has what was accepted."""
    load = replace(load, sender=relay.sender)
    ids = CACHE / "accepted"
    before, start = sink.messages, look(relay.pid)
    with watching(relay.pid) as watch:
        sent = send(relay.target, load, run, ids, user=relay.user)
        sink.wait_for(before + sent.accepted, patience_s=PATIENCE_S)
        end = watch.look()
    size = -1

    def log_is_written() -> bool:
        nonlocal size
        previous, size = size, sink.log.stat().st_size
        return previous == size

    wait_until(log_is_written, "the sink's log", pause_s=0.3)
    with ids.open() as accepted, sink.log.open() as log:
        fate = account(accepted, log, run, sent.body)
    return Figures(
        **_speed(sent, sink, start, end, watch),
        accepted=sent.accepted,
        failed=sent.failed,
        lost=fate.lost,
        duplicated=fate.duplicated,
        altered=fate.altered,
    )


def _speed(sent: Sent, sink: Sink, start: Usage, end: Usage, watch: Watch) -> dict[str, float]:
    whole_s = max((sink.last_ns - sent.began_ns) / 1e9, sent.seconds)
    return {
        "accepted_per_s": sent.accepted / sent.seconds if sent.seconds else 0.0,
        "delivered_per_s": sent.accepted / whole_s if whole_s else 0.0,
        "cpu_s_per_1000": (end.cpu_s - start.cpu_s) / max(1, sent.accepted) * 1000,
        "p50_ms": sent.p50_ms,
        "p99_ms": sent.p99_ms,
        "idle_mb": start.memory_mb,
        "peak_mb": watch.peak_mb,
    }


def measure_all(
    relay: Relay, sink: Sink, chosen: Iterable[tuple[str, Load]], prefix: str
) -> Iterator[tuple[str, Figures]]:
    """Start a relay, warm it up, and put one load after the other on it."""
    with relay.running(sink) as running:
        ids = CACHE / "accepted"
        warm_up = send(running.target, WARM_UP, f"{prefix}w", ids, user=running.user)
        sink.wait_for(warm_up.accepted, patience_s=PATIENCE_S)
        for number, (name, load) in enumerate(chosen):
            yield name, measure(running, sink, load, f"{prefix}{number}")


def median(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure; the sum of what was lost, duplicated or altered."""

    def of(name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in rounds))

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in rounds)

    names = ("accepted_per_s", "delivered_per_s", "cpu_s_per_1000", "p50_ms", "p99_ms", "idle_mb")
    return Figures(
        **{name: of(name) for name in names},
        peak_mb=max(each.peak_mb for each in rounds),
        accepted=total("accepted"),
        failed=total("failed"),
        lost=total("lost"),
        duplicated=total("duplicated"),
        altered=total("altered"),
    )

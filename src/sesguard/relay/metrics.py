"""
The relay's numbers, in Prometheus' text format.

Each process counts for itself. What it counted goes into a `Snapshot`, which is plain data, so that
one process can add the snapshots of all up and tell the sum. A process that replaces another one
goes on from its snapshot: a counter never falls.

Limits: `MOST_APPS` apps have numbers of their own; the others are counted together.

Source: prometheus.io/docs/instrumenting/exposition_formats.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sesguard.relay.delivery import DeliveryEvent
from sesguard.relay.events import RelayEvent

_NOBODY: Final = ""
"""The app of a caller that nobody knows."""
MOST_APPS: Final = 1000
OTHERS: Final = "(others)"
"""No name of an app: those have no parentheses."""
_COUNTERS: Final = {
    "messages": (
        "sesguard_relay_messages_total",
        ("app", "fate"),
        "Messages and refused commands of clients, by what became of them.",
    ),
    "refusals": (
        "sesguard_relay_refusals_total",
        ("app", "reason"),
        "Broken rules, whether they were enforced, held or only noted.",
    ),
    "deliveries": (
        "sesguard_relay_deliveries_total",
        ("app", "outcome"),
        "Attempts to deliver queued messages.",
    ),
}
GAUGES: Final = {
    "connections": ("sesguard_relay_connections", "Clients connected at this moment."),
    "upstream_connections": (
        "sesguard_relay_upstream_connections",
        "Sessions with the upstream at this moment.",
    ),
    "upstream_waiting": (
        "sesguard_relay_upstream_waiting",
        "Messages that wait for a session with the upstream.",
    ),
    "queue_messages": ("sesguard_relay_queue_messages", "Messages in the queue."),
    "queue_held": ("sesguard_relay_queue_held", "Messages in the queue that wait for a person."),
    "queue_bytes": ("sesguard_relay_queue_bytes", "Octets of mail in the queue."),
}


@dataclass(slots=True)
class Snapshot:
    """The numbers of one process, or of several added up."""

    counters: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    """Counter to its first label, second label and value."""
    gauges: dict[str, float] = field(default_factory=dict)


class Counters:
    """
    What one process counts.

    Args:
        before: What the process counted that this one replaces.
    """

    def __init__(self, before: Snapshot | None = None) -> None:
        self._counts: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in _COUNTERS}
        self._apps: set[str] = set()
        for name, rows in (before.counters if before else {}).items():
            for app, second, count in rows:
                self._counts[name][self._label(app), second] += count

    def count_message(self, event: RelayEvent) -> None:
        """Count a message, or what was refused before there was one."""
        app = self._label(event.app or _NOBODY)
        self._counts["messages"][app, event.fate] += 1
        if event.reason is not None:
            self._counts["refusals"][app, event.reason] += 1
        for reason in event.noted:
            self._counts["refusals"][app, reason] += 1

    def count_delivery(self, event: DeliveryEvent) -> None:
        """Count an attempt to deliver."""
        self._counts["deliveries"][self._label(event.app or _NOBODY), event.outcome] += 1

    def snapshot(self, gauges: Mapping[str, float]) -> Snapshot:
        """The numbers so far, with those that the caller measured."""
        counters = {
            name: [(str(first), str(second), count) for (first, second), count in counts.items()]
            for name, counts in self._counts.items()
        }
        return Snapshot(counters, dict(gauges))

    def _label(self, app: str) -> str:
        if app not in self._apps:
            if len(self._apps) >= MOST_APPS:
                return OTHERS
            self._apps.add(app)
        return app


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum of the numbers of several processes."""
    counts: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in _COUNTERS}
    gauges: Counter[str] = Counter()
    for snapshot in snapshots:
        for name, rows in snapshot.counters.items():
            for first, second, count in rows:
                counts[name][first, second] += count
        gauges.update(snapshot.gauges)
    counters = {
        name: [(first, second, count) for (first, second), count in sorted(rows.items())]
        for name, rows in counts.items()
    }
    return Snapshot(counters, dict(gauges))


def exposition(snapshot: Snapshot) -> str:
    """The numbers in Prometheus' text format."""
    lines = []
    for name, (metric, labels, meaning) in _COUNTERS.items():
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} counter"]
        for first, second, count in snapshot.counters.get(name, []):
            given = f'{labels[0]}="{_escaped(first)}",{labels[1]}="{_escaped(second)}"'
            lines.append(f"{metric}{{{given}}} {count}")
    for name, (metric, meaning) in GAUGES.items():
        if name in snapshot.gauges:
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
            lines.append(f"{metric} {snapshot.gauges[name]:g}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

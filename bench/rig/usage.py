"""
What a tree of processes uses: CPU time, memory, descriptors, threads.

CPU time is that of the living processes and of all children that they waited for. A relay that
starts processes runs in a PID namespace of its own, so that what its children leave behind is
waited for by the first process of the namespace and nothing is missed.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Usage:
    """One look at a tree of processes."""

    cpu_s: float = 0.0
    memory_mb: float = 0.0
    """Memory that is not from files, of all of them, and the most that one of them has from files:
    what they share is counted once."""
    processes: int = 0


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat_fields(int(entry.name))[1]), []).append(
                    int(entry.name)
                )
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name of the program; the first is the state."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def status_kb(pid: int) -> dict[str, int]:
    """The lines of ``/proc/PID/status`` that are a number of kB, and the number of threads."""
    found = {}
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB") or name == "Threads":
            found[name] = int(value.split()[0])
    return found


def look(root: int) -> Usage:
    """Look at a tree of processes once."""
    ticks, own, files, count = 0, 0, 0, 0
    for pid in tree(root):
        with contextlib.suppress(OSError, ProcessLookupError):
            ticks += sum(map(int, stat_fields(pid)[11:15]))
            sizes = status_kb(pid)
            own += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
            files = max(files, sizes.get("RssFile", 0))
            count += 1
    return Usage(ticks * _TICK_S, (own + files) / 1024, count)


@dataclass(slots=True)
class Watch:
    """The most memory that a tree had while it was watched."""

    root: int
    peak_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> Usage:
        """Look once, and remember the peak."""
        usage = look(self.root)
        self.peak_mb = max(self.peak_mb, usage.memory_mb)
        return usage

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.look()


@contextlib.contextmanager
def watching(root: int) -> Iterator[Watch]:
    """Look at a tree's memory five times a second for the length of a ``with`` block."""
    watch = Watch(root)
    thread = threading.Thread(target=watch._run)  # noqa: SLF001 - its own class
    watch.look()
    thread.start()
    try:
        yield watch
    finally:
        watch._stop.set()  # noqa: SLF001
        thread.join()
        watch.look()

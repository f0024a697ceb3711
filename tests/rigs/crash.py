"""
Kills a process at its n-th point of no return, without touching the code under test.

`count_points` and `killed_at` run a callable in a forked child. An audit hook (PEP 578) sees each
rename, link, removal and start of a program, and a trace on each SQLite connection sees every
COMMIT; the child counts them and, at the chosen one, kills itself with SIGKILL *before* it happens.
"""

import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONNECT = sqlite3.connect
WATCHED = frozenset({"os.rename", "os.link", "os.remove", "subprocess.Popen"})


def count_points(act: Callable[[], object], scratch: Path) -> int:
    """Run `act` in a child to its end and tell how many points it passed."""
    report = scratch / "points"
    status = _run(act, None, report)
    assert os.waitstatus_to_exitcode(status) == 0
    return int(report.read_text())


def killed_at(act: Callable[[], object], point: int) -> bool:
    """Run `act` in a child that dies at `point`; False when it ended before (the last point)."""
    status = _run(act, point, None)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _run(act: Callable[[], object], point: int | None, report: Path | None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            counter = _Counter(point)
            sys.addaudithook(counter.hook)
            sqlite3.connect = counter.connect  # type: ignore[assignment]
            act()
            counter.active = False
            if report is not None:
                report.write_text(str(counter.count))
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


class _Counter:
    def __init__(self, point: int | None) -> None:
        self.point = point
        self.count = 0
        self.active = True

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED:
            self._pass()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _CONNECT(*arguments, **options)
        connection.set_trace_callback(self._trace)
        return connection

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self._pass()

    def _pass(self) -> None:
        if not self.active:
            return
        self.count += 1
        if self.count == self.point:
            os.kill(os.getpid(), signal.SIGKILL)

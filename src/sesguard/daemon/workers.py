"""
Several processes for one relay: a supervisor that forks, waits and forwards.

The supervisor opens nothing, reads nothing and serves nobody; it has no event loop. All sockets are
open and all rights are dropped before it forks, so a worker that is started again takes over the
same sockets, and clients wait in their queues meanwhile.

Promises
    A worker that ends is started again; one that ends within `SHORT_LIFE_S` only after a pause, so
    that a fault at the start does not spin.
    SIGTERM and SIGINT end all workers and then the supervisor; SIGHUP goes to all workers.
    When the supervisor dies, by whatever, its workers are told to end by the kernel.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from sesguard.daemon.log import JsonLog
from sesguard.system.privileges import die_with_parent

SHORT_LIFE_S: Final = 5.0
_PAUSE_S: Final = 1.0
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def supervise(count: int, work: Callable[[int, bool], None], log: JsonLog) -> None:
    """
    Run `count` workers until one of the ending signals comes.

    Args:
        count: Number of processes.
        work: What worker number 0, 1, ... does until it is told to stop; it is told whether it is
            started in place of one that ended.
        log: Told of workers that end by themselves.
    """
    _Supervisor(count, work, log).run()


class _Supervisor:
    def __init__(self, count: int, work: Callable[[int, bool], None], log: JsonLog) -> None:
        self._count = count
        self._work = work
        self._log = log
        self._pids: dict[int, int] = {}
        """Process id to worker number."""
        self._started: dict[int, float] = {}
        """Worker number to when it was started."""
        self._stopping = False

    def run(self) -> None:
        with self._signals():
            for number in range(self._count):
                self._start(number)
            while self._pids:
                self._wait()

    def _start(self, number: int) -> None:
        parent = os.getpid()
        # A signal between fork and the worker's own handlers must not run those of the supervisor,
        # and an ending one must not find a worker missing that is started after it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        try:
            if self._stopping:
                return
            is_replaced = number in self._started
            self._started[number] = time.monotonic()
            pid = os.fork()
            if pid == 0:
                self._become_worker(number, parent, is_replaced)
            self._pids[pid] = number
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)

    def _become_worker(self, number: int, parent: int, is_replaced: bool) -> None:
        status = 1
        try:
            for each in _FORWARDED:
                # Until it serves there is nothing to read again, and SIGHUP must not end it.
                ignored = each == signal.SIGHUP
                signal.signal(each, signal.SIG_IGN if ignored else signal.SIG_DFL)
            die_with_parent(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
            self._work(number, is_replaced)
            status = 0
        except BaseException as error:  # noqa: BLE001 - a worker never returns into the supervisor
            self._log.write("worker.failed", worker=number, type=type(error).__name__)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _wait(self) -> None:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            self._pids.clear()
            return
        number = self._pids.pop(pid, None)
        if number is None or self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        self._log.write("worker.ended", worker=number, pid=pid, exit_code=code)
        if time.monotonic() - self._started[number] < SHORT_LIFE_S:
            time.sleep(_PAUSE_S)
        self._start(number)

    def _forward(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP:
            self._stopping = True
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self._forward) for each in _FORWARDED}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

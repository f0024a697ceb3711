"""A lock between processes on one host, released by the kernel when its holder dies."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sesguard.errors import SystemFault


class LockBusyError(SystemFault):
    """Another process holds the lock."""


@contextlib.contextmanager
def exclusive_lock(path: Path, *, timeout_s: float = 0.0) -> Iterator[None]:
    """
    Hold an exclusive `flock` on `path` (made 0600 when missing; never removed).

    The file stays: removing a lock file lets a third process lock a new file of the same name while
    a second still waits on the old one.

    Raises:
        LockBusyError: Still held by another process after `timeout_s`.
        SystemFault: The file cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise SystemFault(
            "cannot open the lock {path}: {reason}", path=path, reason=error.strerror
        ) from error
    try:
        _acquire(descriptor, path, time.monotonic() + timeout_s)
        try:
            yield
        finally:
            # Closing is not enough while a child that was just forked has the descriptor too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockBusyError(
                    "another sesguard process holds {path}",
                    hint="wait for it to end and try again",
                    path=path,
                ) from None
            time.sleep(0.02)
        else:
            return

"""A lock between processes."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.locks import LockBusyError, exclusive_lock
from unit.system.children import in_child


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Where the lock is."""
    return tmp_path / "lock"


def _holder(lock: Path) -> int:
    """A child that holds the lock until it is killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with exclusive_lock(lock):
            os.write(writing, b"held")
            signal.pause()
        os._exit(1)
    assert b"held" == os.read(reading, 4)
    os.close(reading)
    os.close(writing)
    return pid


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_lock_is_held_by_one_process_at_a_time(lock: Path) -> None:
    """Another process is told so at once."""

    def act() -> None:
        with exclusive_lock(lock):
            pass

    with exclusive_lock(lock):
        assert f"LockBusyError: another sesguard process holds {lock}" == in_child(act)
    assert "None" == in_child(act)


def test_a_lock_counts_within_a_process_too(lock: Path) -> None:
    """Two threads of the daemon cannot both hold it."""
    with exclusive_lock(lock), pytest.raises(LockBusyError) as caught, exclusive_lock(lock):
        pass
    assert "wait for it to end and try again" == caught.value.hint


def test_a_lock_is_freed_when_its_holder_is_killed(lock: Path) -> None:
    """The kernel does it: there are no stale locks."""
    pid = _holder(lock)
    with pytest.raises(LockBusyError), exclusive_lock(lock):
        pass
    _kill(pid)
    with exclusive_lock(lock):
        pass


def test_a_waiter_gets_the_lock_when_it_is_freed(lock: Path) -> None:
    """Before its time is over."""
    pid = _holder(lock)
    waiter = os.fork()
    if waiter == 0:
        with exclusive_lock(lock, timeout_s=30):
            os._exit(7)
    _kill(pid)
    assert 7 == os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1])


def test_a_waiter_gives_up_when_its_time_is_over(lock: Path) -> None:
    """Not before and not long after."""
    pid = _holder(lock)
    began = time.monotonic()
    with pytest.raises(LockBusyError), exclusive_lock(lock, timeout_s=0.1):
        pass
    assert 0.1 <= time.monotonic() - began < 10
    _kill(pid)


def test_a_lock_is_freed_by_an_exception(lock: Path) -> None:
    """And by the end of the block; the file stays, private."""
    with pytest.raises(ZeroDivisionError), exclusive_lock(lock):
        raise ZeroDivisionError
    with exclusive_lock(lock):
        pass
    assert 0o600 == stat.S_IMODE(lock.stat().st_mode)


def test_a_child_program_does_not_keep_the_lock(lock: Path) -> None:
    """Neither one that was started, nor a fork that still has the descriptor."""
    with exclusive_lock(lock):
        started = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        forked = os.fork()
        if forked == 0:
            signal.pause()
    with exclusive_lock(lock):
        pass
    _kill(started)
    _kill(forked)


def test_a_lock_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    """A link, a directory, a directory that is missing."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path, tmp_path / "no" / "lock"):
        with (
            pytest.raises(SystemFault, match=f"cannot open the lock {path}: "),
            exclusive_lock(path),
        ):
            pass
    assert not (tmp_path / "elsewhere").exists()

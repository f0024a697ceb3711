"""
Running other programs.

Promises: an argument list, never a shell; a fixed and small environment; a time limit; standard
input closed unless given; bounded output. A secret is never an argument or in the environment: what
a program needs of it goes to its standard input.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sesguard.errors import SystemFault

DEFAULT_TIMEOUT_S: Final = 60.0
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024

_BASE_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}


@dataclass(frozen=True, slots=True)
class Completed:
    """Exit status and output (decoded as UTF-8, undecodable bytes escaped) of a program."""

    arguments: tuple[str, ...]
    status: int
    output: str
    errors: str

    @property
    def ok(self) -> bool:
        """Whether the program exited with 0."""
        return self.status == 0


def run_program(
    arguments: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    user: tuple[int, int] | None = None,
) -> Completed:
    """
    Run a program and wait for it.

    Args:
        arguments: Program and arguments.
        stdin: What it reads.
        timeout_s: It is killed after this time, with all that it started in its session.
        environment: Added to PATH, LC_ALL and HOME.
        user: (uid, gid) to run as, without supplementary groups; needs root.

    Raises:
        SystemFault: Not found, not executable, or out of time.
    """
    command = tuple(str(argument) for argument in arguments)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_BASE_ENVIRONMENT, **(environment or {})},
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot_run(command, error) from error
    with process:
        try:
            output, errors = process.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise SystemFault(
                "{program} did not end within {timeout:g} s",
                program=command[0],
                timeout=timeout_s,
            ) from error
        finally:
            _kill_session(process)
    return Completed(
        command,
        process.returncode,
        _decode(output[:MAX_OUTPUT_BYTES]),
        _decode(errors[:MAX_OUTPUT_BYTES]),
    )


def start_program(
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    log: IO[bytes] | None = None,
    inherit_environment: bool = False,
) -> subprocess.Popen[bytes]:
    """
    Start a long-running program in a session of its own; the caller stops it with `stop_process`.

    Args:
        arguments: Program and arguments.
        environment: Added to PATH, LC_ALL and HOME, or to our own environment.
        log: Where its output and errors go; None discards them.
        inherit_environment: Whether it gets our environment as well.

    Raises:
        SystemFault: Not found or not executable.
    """
    base = dict(os.environ) if inherit_environment else _BASE_ENVIRONMENT
    command = tuple(str(argument) for argument in arguments)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=log or subprocess.DEVNULL,
            env={**base, **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot_run(command, error) from error


def stop_process(process: subprocess.Popen[bytes], *, timeout_s: float = 10.0) -> None:
    """End a process that we started: SIGTERM; after `timeout_s` SIGKILL, to its whole session."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _kill_session(process)
        process.wait()


def process_alive(pid: int) -> bool:
    """Whether a process with that id exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The name in brackets may hold any byte, a bracket as well.
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def signal_process(pid: int, number: signal.Signals) -> None:
    """
    Send a signal.

    Raises:
        SystemFault: No such process, or not ours to signal. An id below 1 would mean a group of
            processes, or all of them, and is no process.
    """
    try:
        if pid < 1:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        os.kill(pid, number)
    except OSError as error:
        raise SystemFault(
            "cannot send {signal} to process {pid}: {reason}",
            signal=number.name,
            pid=pid,
            reason=error.strerror,
        ) from error


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    """Wait for a process to end; False when it is still there after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while process_alive(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _cannot_run(command: tuple[str, ...], error: OSError) -> SystemFault:
    return SystemFault("cannot run {program}: {reason}", program=command[0], reason=error.strerror)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")

"""
A real sesguardd as a child process.

    with running_daemon(settings_path) as daemon:
        daemon.status()["lookups"]

It is started with ``python -m sesguard.daemon``, ready once its control socket answers, and stopped
by its own process id. Its log is ``sesguardd.log`` beside the settings file.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

from sesguard.config.load import load_settings
from sesguard.errors import SettingsError

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `condition` until it is true; fail with `what` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for: {what}"
        time.sleep(0.01)


def ask(path: Path, request: bytes, *, timeout_s: float = 10.0) -> bytes:
    """Send a request to a Unix socket and read until it is closed; a reset counts as a close."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(request)
            while data := client.recv(65536):
                answer += data
        return answer


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running sesguardd."""

    process: subprocess.Popen[bytes]
    runtime_directory: Path
    log_path: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def socket_path(self, name: str) -> Path:
        """Where the socket ``exim``, ``postfix`` or ``control`` is."""
        return self.runtime_directory / f"{name}.sock"

    def ask(self, name: str, request: bytes) -> bytes:
        """Send one request to one of the sockets; see `ask`."""
        return ask(self.socket_path(name), request)

    def status(self) -> dict[str, Any]:
        """What the control socket says."""
        document: dict[str, Any] = json.loads(self.ask("control", b"status\n"))
        return document

    def log(self) -> list[dict[str, Any]]:
        """All complete lines of JSON; what the interpreter itself prints is left out."""
        whole, _, _ = self.log_path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one event."""
        return [entry for entry in self.log() if entry["event"] == event]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> int:
        """End it with SIGTERM and give its exit code (SIGKILL after a while)."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start_daemon(
    settings_path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Daemon:
    """
    Start sesguardd without waiting for it.

    Args:
        settings_path: Its settings file.
        environment: Added to ours.
        wrapper: Program and arguments that run the rest of their command line in their place.
        stderr: Where the log goes instead of into the log file.
        pass_fds: Our descriptors that it, or the wrapper, has too.
    """
    _open_coverage_directory()
    log_path = settings_path.with_name("sesguardd.log")
    program = [sys.executable, "-m", "sesguard.daemon", "--config", str(settings_path)]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*wrapper, *program],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log if stderr is None else stderr,
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
        )
    try:
        directory = load_settings(settings_path).daemon.runtime_directory
    except SettingsError:
        directory = settings_path.parent
    return Daemon(process, directory, log_path)


@contextlib.contextmanager
def running_daemon(
    settings_path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    stderr: int | None = None,
) -> Iterator[Daemon]:
    """Run sesguardd for the length of a ``with`` block; see `start_daemon` for the arguments."""
    daemon = start_daemon(settings_path, environment=environment, wrapper=wrapper, stderr=stderr)
    try:
        wait_until(lambda: _is_ready(daemon), f"sesguardd to answer; see {daemon.log_path}")
        yield daemon
    finally:
        daemon.stop()


def _open_coverage_directory() -> None:
    """Let the daemon, which has become another user by its end, leave its coverage there."""
    current = coverage.Coverage.current()
    if current is not None and os.geteuid() == 0:
        directory = Path(current.config.data_file).absolute().parent
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o1777)


def _is_ready(daemon: Daemon) -> bool:
    assert daemon.process.poll() is None, daemon.log_path.read_text(errors="replace")
    with contextlib.suppress(OSError, ValueError):
        return bool(daemon.status()["pid"] == daemon.pid)
    return False

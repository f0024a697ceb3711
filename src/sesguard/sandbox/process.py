"""
The sandbox as a child process: start it, find it, stop it.

`running_sandbox` is for tests and the demo: the sandbox lives as long as the block, and ends by
itself when its parent dies. `start_sandbox` leaves it running; `find_sandbox` finds it again by the
state file in its directory, and trusts that file only when the process answers with the same pid.

The directory must belong to us and nobody else may write to it: what the state file says is put
into the user's environment. The child gets our environment without its AWS and moto settings, and
writes its log to ``sandbox.log`` there.

Raises `SandboxError`: moto is not installed, the directory is not ours, the process did not come
up.
"""

import importlib.util
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sesguard.errors import SandboxError
from sesguard.sandbox.client import SandboxClient
from sesguard.sandbox.model import DEFAULT_REGION, LOG_FILE, LOGGER, STATE_FILE, SandboxInfo, decode
from sesguard.system.files import ensure_directory, read_if_exists, remove_file
from sesguard.system.locks import exclusive_lock
from sesguard.system.processes import (
    process_alive,
    signal_process,
    start_program,
    stop_process,
    wait_until_gone,
)

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
ADMIN_ACCESS_KEY: Final = "sandbox-admin"
"""Access key id and secret key of the sandbox's root user; any other unknown key does as well."""

_LOCK_FILE: Final = "sandbox.lock"
_POLL_S: Final = 0.01
_LIBRARIES: Final = ("aiosmtpd", "flask", "flask_cors", "moto", "trustme", "werkzeug")
_FOREIGN_VARIABLES: Final = ("AWS_", "MOTO_")
_PACKAGE_ROOT: Final = Path(__file__).parents[2]
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox."""

    info: SandboxInfo

    @property
    def client(self) -> SandboxClient:
        """The control interface."""
        return SandboxClient(self.info.endpoint_url)

    def environment(self) -> dict[str, str]:
        """The variables that lead AWS clients, and our own tools, to this sandbox."""
        return {
            "AWS_ENDPOINT_URL": self.info.endpoint_url,
            "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ADMIN_ACCESS_KEY,
            "AWS_DEFAULT_REGION": self.info.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SESGUARD_SANDBOX_SMTP_HOST": self.info.smtp_host,
            "SESGUARD_SANDBOX_SMTP_PORT": str(self.info.starttls_port),
            "SESGUARD_SANDBOX_SMTP_TLS_PORT": str(self.info.tls_port),
            "SESGUARD_SANDBOX_CA_FILE": str(self.info.ca_file),
        }


def default_directory() -> Path:
    """``$XDG_RUNTIME_DIR/sesguard-sandbox``, or one in /tmp that has our uid in its name."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "sesguard-sandbox"
    return Path(f"/tmp/sesguard-sandbox-{os.geteuid()}")  # noqa: S108 - owner and mode are checked


def require_libraries() -> None:
    """
    Check that what the sandbox is made of is installed.

    Raises:
        SandboxError: It is not.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise SandboxError(
            "the sandbox needs Python packages that are not installed: {names}",
            hint='install sesguard with the extra "sandbox"',
            names=", ".join(missing),
        )


def prepare_directory(directory: Path) -> None:
    """
    Make the directory (0700), or check that it is ours alone.

    Raises:
        SandboxError: It belongs to another user, others may write to it, or it is a link.
        SystemFault: It cannot be made.
    """
    if not os.path.lexists(directory):
        ensure_directory(directory, mode=0o700)
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise SandboxError("{path} is not a directory", path=directory)
    if status.st_uid != os.geteuid() or status.st_mode & _WRITABLE_BY_OTHERS:
        raise SandboxError(
            "{path} can be changed by other users",
            hint="remove it, or name another directory with --directory",
            path=directory,
        )


def start_sandbox(directory: Path, *, region: str = DEFAULT_REGION) -> Sandbox:
    """
    Start a sandbox that outlives us.

    Args:
        directory: For its state file, CA certificate and log; made if missing.
        region: Region of the SMTP endpoint.

    Raises:
        SandboxError: It did not come up; the reason is from its log.
    """
    process = start_program(_arguments(directory, region), environment=_child_environment())
    try:
        sandbox = _wait_until_ready(directory, process.pid)
    except BaseException:
        stop_process(process)
        raise
    # It is not ours to wait for any more: without this, Popen complains when it is forgotten.
    process.returncode = 0
    return sandbox


def ensure_sandbox(directory: Path, *, region: str = DEFAULT_REGION) -> Sandbox:
    """
    The sandbox that runs with that directory, or a new one; of two callers one starts it.

    Args:
        directory: For its state file, CA certificate and log; made if missing.
        region: Region of the SMTP endpoint of a new one.

    Raises:
        SandboxError: It did not come up.
    """
    prepare_directory(directory)
    with exclusive_lock(directory / _LOCK_FILE, timeout_s=START_TIMEOUT_S):
        return find_sandbox(directory) or start_sandbox(directory, region=region)


@contextmanager
def running_sandbox(directory: Path, *, region: str = DEFAULT_REGION) -> Iterator[Sandbox]:
    """
    Run a sandbox for the length of a block.

    Args:
        directory: For its state file, CA certificate and log; made if missing.
        region: Region of the SMTP endpoint.

    Raises:
        SandboxError: It did not come up; the reason is from its log.
    """
    process = start_program(
        [*_arguments(directory, region), "--exit-with-parent"], environment=_child_environment()
    )
    try:
        yield _wait_until_ready(directory, process.pid)
    finally:
        stop_process(process, timeout_s=STOP_TIMEOUT_S)


def find_sandbox(directory: Path) -> Sandbox | None:
    """The sandbox that runs with that directory, or None."""
    if not os.path.lexists(directory):
        return None
    prepare_directory(directory)
    info = _read_info(directory)
    if info is None or not process_alive(info.pid):
        return None
    sandbox = Sandbox(info)
    try:
        answers = sandbox.client.status().pid == info.pid
    except SandboxError:
        answers = False
    return sandbox if answers else None


def stop_sandbox(sandbox: Sandbox) -> None:
    """
    End a sandbox that `find_sandbox` found.

    Raises:
        SandboxError: It does not end.
    """
    signal_process(sandbox.info.pid, signal.SIGTERM)
    if not wait_until_gone(sandbox.info.pid, STOP_TIMEOUT_S):
        raise SandboxError(
            "the sandbox (process {pid}) does not end",
            hint="run: kill -9 {pid}",
            pid=sandbox.info.pid,
        )


def _arguments(directory: Path, region: str) -> list[str]:
    require_libraries()
    prepare_directory(directory)
    remove_file(directory / STATE_FILE)
    command = [sys.executable, "-m", "sesguard.sandbox"]
    return [*command, "--directory", str(directory), "--region", region]


def _child_environment() -> dict[str, str]:
    """Ours, without what could lead AWS clients elsewhere, and with the way to this package."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)
    }
    path = [str(_PACKAGE_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


def _wait_until_ready(directory: Path, pid: int) -> Sandbox:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        info = _read_info(directory)
        if info is not None and info.pid == pid:
            return Sandbox(info)
        if not process_alive(pid):
            raise SandboxError(
                "the sandbox did not start: {reason}",
                hint="look at {path}",
                reason=_last_line(directory / LOG_FILE),
                path=directory / LOG_FILE,
            )
        time.sleep(_POLL_S)
    raise SandboxError(
        "the sandbox did not start within {timeout:g} s",
        hint="look at {path}",
        timeout=START_TIMEOUT_S,
        path=directory / LOG_FILE,
    )


def _read_info(directory: Path) -> SandboxInfo | None:
    state = read_if_exists(directory / STATE_FILE)
    if state is None:
        return None
    try:
        return decode(state.content, SandboxInfo)
    except msgspec.DecodeError:
        return None


def _last_line(path: Path) -> str:
    state = read_if_exists(path)
    lines = state.content.decode("utf-8", "replace").strip().splitlines() if state else []
    if not lines:
        return "no reason given"
    return lines[-1].partition(f"{LOGGER}: ")[2] or lines[-1]

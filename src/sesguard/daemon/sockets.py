"""
The runtime directory and the sockets in it.

The directory is 0755 and belongs to root, or to the daemon's user when it is not started by root.
Whoever could write into it could put another socket in place of ours, so one that others may write
to is refused; and so is one that holds a file named `FORBIDDEN_NAME`: the deployed Exim expression
reads that file to fail on purpose when no credential was released (docs/protocols/exim-lookup.md).

A lookup socket is 0660 and belongs to root and to the primary group of the first allowed user that
exists. That is the second lock; the first is the uid that the kernel tells about each peer.

A socket file that was left by a killed daemon is removed when nobody listens on it. A file that is
no socket is never removed. Two daemons at a time are kept apart by a lock (`runtime_lock`).

Socket activation: a listening socket that the service manager passes under the name ``exim``,
``postfix``, ``relay``, ``lmtp`` or ``control`` is used as it is. TCP sockets are the relay's,
whatever their name; their addresses tell which they are (`sesguard.daemon.relay_sockets`).

Raises `SystemFault` for everything that goes wrong.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault
from sesguard.system.files import ensure_directory
from sesguard.system.locks import LockBusyError, exclusive_lock
from sesguard.system.privileges import User, is_root

FORBIDDEN_NAME: Final = "credential-not-released"
CONTROL: Final = "control"

_BACKLOG: Final = 1024
_LOCK_NAME: Final = "sesguardd.lock"
_MAX_PATH_BYTES: Final = 107
"""sizeof(sun_path) without the final NUL, unix(7)."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """A socket that is to be opened."""

    name: str
    """``exim``, ``postfix`` or ``control``; the file is ``NAME.sock``."""
    mode: int
    gid: int


def socket_path(directory: Path, name: str) -> Path:
    """Where the socket of that name is."""
    return directory / f"{name}.sock"


def plan_lookup_socket(name: str, users: tuple[User, ...]) -> SocketPlan:
    """Plan the socket for users of the host, of whom there is at least one."""
    if not is_root():
        return SocketPlan(name, 0o660, os.getegid())
    first = next((user for user in users if user.uid != 0), users[0])
    return SocketPlan(name, 0o660, first.gid)


def users_kept_out(plan: SocketPlan, users: tuple[User, ...]) -> list[str]:
    """Names of the users whom the mode of the planned socket keeps out."""
    return [
        user.name
        for user in users
        if user.uid not in (0, os.geteuid())
        and plan.gid not in (user.gid, *os.getgrouplist(user.name, user.gid))
    ]


def prepare_directory(directory: Path) -> None:
    """
    Make the runtime directory, or check the one that is there.

    Raises:
        SystemFault: Others can write to it, it belongs to somebody else, or it holds the file that
            must not exist.
    """
    if os.path.lexists(directory):
        _require_safe_directory(directory, os.lstat(directory))
    else:
        ensure_directory(directory, mode=0o755)
    forbidden = directory / FORBIDDEN_NAME
    if os.path.lexists(forbidden):
        raise SystemFault(
            "{path} exists, and Exim would send what is in it as a credential",
            hint="run: rm {path}",
            path=forbidden,
        )


@contextlib.contextmanager
def runtime_lock(directory: Path) -> Iterator[None]:
    """
    Be the only daemon of a runtime directory.

    Raises:
        SystemFault: Another one is running.
    """
    try:
        with exclusive_lock(directory / _LOCK_NAME):
            yield
    except LockBusyError as error:
        raise SystemFault(
            "another sesguardd is running on {directory}",
            hint="stop it first, or set daemon.runtime_directory",
            directory=directory,
        ) from error


def open_socket(directory: Path, plan: SocketPlan) -> socket.socket:
    """
    Bind and listen.

    Raises:
        SystemFault: Somebody listens there already, a file is in the way, or the path is too long.
    """
    path = socket_path(directory, plan.name)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise SystemFault(
            "the socket path {path} is longer than {max} bytes",
            hint="set a shorter daemon.runtime_directory",
            path=path,
            max=_MAX_PATH_BYTES,
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _bind(listener, path, plan)
    except OSError as error:
        listener.close()
        raise SystemFault(
            "cannot listen on {path}: {reason}", path=path, reason=error.strerror
        ) from error
    return listener


def require_listening(inherited: socket.socket, name: str) -> socket.socket:
    """
    Give back a socket that was passed to us, when it is one to accept connections on.

    Raises:
        SystemFault: It is not.
    """
    if inherited.family == socket.AF_UNIX and _is_listening(inherited):
        return inherited
    raise SystemFault(
        "the socket {name} that the service manager passed is no listening Unix stream socket",
        hint="use ListenStream= with a path in its unit",
        name=name,
    )


def is_tcp_listener(inherited: socket.socket) -> bool:
    """Whether a socket that was passed to us accepts TCP connections."""
    return inherited.family in (socket.AF_INET, socket.AF_INET6) and _is_listening(inherited)


def remove_socket(directory: Path, name: str) -> None:
    """Remove our socket file where we may; after rights are dropped we mostly may not."""
    with contextlib.suppress(OSError):
        os.unlink(socket_path(directory, name))


def _is_listening(inherited: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        kind = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return kind == socket.SOCK_STREAM and bool(listening)
    return False


def _bind(listener: socket.socket, path: Path, plan: SocketPlan) -> None:
    # Nobody else can connect before owner and mode are set: the file begins as 0600.
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    os.chown(path, os.geteuid(), plan.gid, follow_symlinks=False)
    os.chmod(path, plan.mode)
    listener.listen(_BACKLOG)


def _require_safe_directory(directory: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise SystemFault("{path} is not a directory", path=directory)
    if status.st_mode & 0o022:
        raise SystemFault(
            "others can write to the runtime directory {path} (mode {mode})",
            hint="run: chmod 755 {path}",
            path=directory,
            mode=f"{stat.S_IMODE(status.st_mode):04o}",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise SystemFault(
            "the runtime directory {path} belongs to uid {uid}",
            hint="remove it, or set daemon.runtime_directory",
            path=directory,
            uid=status.st_uid,
        )


def _remove_stale(path: Path) -> None:
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFault(
            "cannot look at {path}: {reason}", path=path, reason=error.strerror
        ) from error
    if not stat.S_ISSOCK(kind):
        raise SystemFault("{path} is in the way and is no socket", hint="remove it", path=path)
    if _somebody_listens(path):
        raise SystemFault(
            "another process listens on {path}",
            hint="stop it first, or set daemon.runtime_directory",
            path=path,
        )
    os.unlink(path)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            # Such as a full queue: there is somebody.
            return True
    return True

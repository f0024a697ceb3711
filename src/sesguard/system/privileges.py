"""
Users, groups, and giving rights up.

`harden_process` makes the process non-dumpable: no core file, and no other process of the same user
may attach to it or read /proc/PID/mem and /proc/PID/environ (prctl(2), PR_SET_DUMPABLE). Changing
user makes the kernel reset the flag, so call it again after `drop_rights`.
"""

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_GET_DUMPABLE: Final = 3
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAP_NET_BIND_SERVICE: Final = 10
_CAPABILITY_VERSION_3: Final = 0x20080522
"""Of the structures of capset(2)."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the host and its primary group."""

    name: str
    uid: int
    gid: int


def find_user(name: str) -> User | None:
    """The user with that name (or decimal uid), or None."""
    # A name with a zero byte is a ValueError.
    with contextlib.suppress(KeyError, ValueError):
        numeric = name.isascii() and name.isdecimal()
        entry = pwd.getpwuid(int(name)) if numeric else pwd.getpwnam(name)
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
    return None


def require_user(name: str) -> User:
    """
    The user with that name.

    Raises:
        SystemFault: There is none.
    """
    user = find_user(name)
    if user is None:
        raise SystemFault(
            "there is no user {name} on this host",
            hint="make the user, or name another one in the settings",
            name=name,
        )
    return user


def current_user() -> User:
    """The effective user of this process, also when it has no name."""
    uid = os.geteuid()
    return find_user(str(uid)) or User(str(uid), uid, os.getegid())


def group_name(gid: int) -> str:
    """The name of a group, or its number."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def is_root() -> bool:
    """Whether this process acts as root."""
    return os.geteuid() == 0


def drop_rights(user: User, *, keep_low_ports: bool = False) -> None:
    """
    Become `user` for good: no supplementary groups, no way back.

    Call it before there are threads: capabilities belong to each of them.

    Args:
        user: Whom to become.
        keep_low_ports: Whether sockets may still be bound to ports below 1024, where we may now
            (CAP_NET_BIND_SERVICE). Programs that we start do not inherit it.

    Raises:
        SystemFault: Not root, or the way back is still open afterwards.
    """
    if keep_low_ports:
        _prctl(_PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise SystemFault(
            "cannot become user {user}: {reason}", user=user.name, reason=error.strerror
        ) from error
    if keep_low_ports and user.uid != 0:
        _keep_only(_CAP_NET_BIND_SERVICE)
    if user.uid != 0:
        with contextlib.suppress(PermissionError):
            os.setresuid(0, 0, 0)
            raise SystemFault("rights were dropped but can be taken back")


@contextlib.contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """
    Be the owner of `path`, as far as files are concerned, where we are root.

    Files that are made meanwhile are the owner's. It concerns the whole process, and there is a way
    back: it is no protection from what runs in the block.

    Raises:
        OSError: `path` is not there.
    """
    status = path.stat()
    if not is_root() or status.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def harden_process() -> None:
    """
    No core file, not dumpable, no new privileges by exec.

    Raises:
        SystemFault: The kernel refused one of them.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_core_dumps() -> None:
    """
    Let no crash write the memory of this process to a disk, as far as that costs it nothing else.

    The limit is honoured by systemd-coredump too. A process of root also becomes not dumpable; for
    another user that would take its own files in /proc away.

    Raises:
        SystemFault: The kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if is_root():
        _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """
    Be told to end (SIGTERM) when `parent`, which forked us, ends. Lost by a change of user.

    Raises:
        SystemFault: The kernel refused.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def is_dumpable() -> bool:
    """Whether this process may be dumped or attached to."""
    return _prctl(_PR_GET_DUMPABLE, 0) != 0


def _keep_only(capability: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable: capabilities 0 to 31, then those from 32 on.
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        kept = sets[1] & 1 << capability
        sets[:] = [kept, kept, 0, 0, 0, 0]
        if libc.capset(header, sets) == 0:
            return
    raise SystemFault("cannot give rights up: {reason}", reason=os.strerror(ctypes.get_errno()))


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.prctl(option, value, 0, 0, 0))
    if result < 0:
        raise SystemFault(
            "prctl({option}) failed: {reason}",
            option=option,
            reason=os.strerror(ctypes.get_errno()),
        )
    return result

"""
Files that survive a crash, and that nobody can trick us with.

`write_atomic` is the only way sesguard changes a file: it writes a temporary file in the same
directory, sets owner and mode, flushes it to the disk, renames it over the target and flushes the
directory. A reader sees the old bytes or the new bytes, never a mixture, and after a power failure
one of the two is there. On any exception the temporary file is removed.

Reading goes through one open file descriptor with O_NOFOLLOW, so that the file that was checked is
the file that is read.

Raises `SystemFault`, with the path and the reason of the operating system, for everything that
goes wrong.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault

MAX_CONFIG_BYTES: Final = 64 * 1024 * 1024
"""A configuration file larger than this is not one of ours to read."""

_TEMPORARY_MARK: Final = ".sesguard-tmp-"


@dataclass(frozen=True, slots=True)
class FileState:
    """A regular file's bytes, owner and mode: what undo puts back."""

    content: bytes
    uid: int
    gid: int
    mode: int
    """Permission bits only."""


def read_file(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> FileState:
    """
    Read a regular file, following symbolic links in its directory part only.

    Raises:
        SystemFault: Not there, not a regular file, a symbolic link, too large or not readable.
    """
    with _system_faults(path, "read"):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SystemFault("{path} is not a regular file", path=path)
            with open(descriptor, "rb", closefd=False) as stream:
                content = stream.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    if len(content) > max_bytes:
        raise SystemFault("{path} is larger than {max} bytes", path=path, max=max_bytes)
    return FileState(content, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def read_if_exists(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> FileState | None:
    """Read like `read_file`, or give None when there is no such file."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _fault(path, "read", error) from error
    return read_file(path, max_bytes=max_bytes)


def write_atomic(
    path: Path,
    content: bytes,
    *,
    mode: int,
    uid: int | None = None,
    gid: int | None = None,
) -> None:
    """
    Replace (or make) a file in one durable step.

    Args:
        path: The file. A symbolic link at this place is replaced, not followed.
        content: All of its bytes.
        mode: Permission bits. Until the content is written the file is 0600.
        uid: Owner; None keeps the process's own.
        gid: Group; None keeps the process's own.

    Raises:
        SystemFault: The file is as it was before; unless the disk fails at the last flush.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}{secrets.token_hex(6)}")
    # The directory is opened before anything is changed: where it cannot be flushed, nothing is.
    with _system_faults(path, "write"), _opened_directory(path.parent) as directory:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                if uid is not None or gid is not None:
                    os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        os.fsync(directory)


def write_state(path: Path, state: FileState) -> None:
    """Put a file back with its bytes, owner and mode."""
    write_atomic(path, state.content, mode=state.mode, uid=state.uid, gid=state.gid)


def keep_copy(path: Path, copy: Path) -> None:
    """
    Give the present content of `path` the second name `copy`, durably and in one step.

    A hard link is used: when `path` is replaced afterwards, `copy` keeps the old bytes.
    """
    temporary = copy.with_name(f".{copy.name}{_TEMPORARY_MARK}{secrets.token_hex(6)}")
    with _system_faults(copy, "write"):
        os.link(path, temporary, follow_symlinks=False)
        try:
            os.replace(temporary, copy)
        except BaseException:
            os.unlink(temporary)
            raise
        # Renaming onto another name of the same file does nothing and leaves both names.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        sync_directory(copy.parent)


def append_line(path: Path, line: str) -> None:
    """
    Add a line to a file (made 0600 when missing) and flush it to the disk.

    Args:
        path: The file, which may not be a symbolic link.
        line: Without its end. It is written at once, so that lines of two processes do not mix.

    Raises:
        SystemFault: It was not written, or not wholly.
    """
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with _system_faults(path, "write"):
        descriptor = os.open(path, flags, 0o600)
        try:
            if os.write(descriptor, data) != len(data):
                raise SystemFault("cannot write all of a line to {path}", path=path)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file durably; not there is fine."""
    with _system_faults(path, "remove"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        sync_directory(path.parent)


def remove_stale_temporaries(directory: Path, name: str = "") -> None:
    """
    Remove what a killed `write_atomic` left in `directory`. Call it with the lock held.

    Args:
        directory: Where to look.
        name: How the name of the file that was being written begins; empty means any.
    """
    with _system_faults(directory, "clean up"), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(f".{name}") and _TEMPORARY_MARK in entry.name:
                os.unlink(entry.path)


def ensure_directory(
    path: Path, *, mode: int, uid: int | None = None, gid: int | None = None
) -> None:
    """
    Make a directory (and its parents, 0755) and set its owner and mode, as often as you like.

    The umask makes no difference; parents that are there stay as they are.

    Raises:
        SystemFault: Cannot be made, or something else is there: a file, a symbolic link.
    """
    with _system_faults(path, "make"):
        for parent in reversed([parent for parent in path.parents if not parent.exists()]):
            parent.mkdir(exist_ok=True, mode=0o755)
            parent.chmod(0o755)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            with _opened_directory(path, os.O_NOFOLLOW) as opened:
                if uid is not None or gid is not None:
                    os.fchown(opened, -1 if uid is None else uid, -1 if gid is None else gid)
                os.fchmod(opened, mode)
        except NotADirectoryError:
            raise SystemFault("{path} is not a directory", path=path) from None


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    with _opened_directory(path) as descriptor:
        os.fsync(descriptor)


def require_private(path: Path, *, allowed_uids: frozenset[int] = frozenset({0})) -> None:
    """
    Check that only its owner can read or change a file.

    Args:
        path: The file, which may not be a symbolic link.
        allowed_uids: Who may own it; the present effective uid is allowed as well.

    Raises:
        SystemFault: A link, a loose mode or a foreign owner; the hint has the command to run.
    """
    with _system_faults(path, "check"):
        status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise SystemFault(
            "{path} is a symbolic link",
            hint="put the file itself there: a link may be pointed elsewhere",
            path=path,
        )
    if status.st_uid not in allowed_uids | {os.geteuid()}:
        raise SystemFault(
            "{path} belongs to uid {uid}",
            hint="run: chown root: {path}",
            path=path,
            uid=status.st_uid,
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SystemFault(
            "{path} can be read or changed by others (mode {mode})",
            hint="run: chmod 600 {path}",
            path=path,
            mode=f"{stat.S_IMODE(status.st_mode):04o}",
        )


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A directory of our own (0700) that is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_tree(path: Path) -> None:
    """Remove a directory of ours with all that is in it; not there is fine."""
    shutil.rmtree(path, ignore_errors=True)


def find_program(*names: str) -> Path | None:
    """The first of `names` on PATH or in the sbin directories, which a user's PATH often lacks."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found)
    return None


@contextlib.contextmanager
def _opened_directory(path: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _system_faults(path: Path, act: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _fault(path, act, error) from error


def _fault(path: Path, act: str, error: OSError) -> SystemFault:
    if error.errno == errno.ELOOP:
        return SystemFault(
            "cannot {act} {path}: it is a symbolic link",
            hint="put the file itself there: a link may be pointed elsewhere",
            act=act,
            path=path,
        )
    return SystemFault(
        "cannot {act} {path}: {reason}",
        act=act,
        # A call on a descriptor leaves its number there, which says nothing to a reader.
        path=error.filename if isinstance(error.filename, str) else path,
        reason=error.strerror or str(error),
    )

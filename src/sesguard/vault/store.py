"""
The files of the vault: names, modes, the lock and the order of writing.

    vault            the current generation
    vault.previous   the last good generation before it
    vault.next       the coming one, while it is being written
    mark             the highest generation known to have been in use
    mark.next        the coming mark, while the manifest key is being changed
    lock             held by whoever changes anything; never by a reader

With a reader's group the directory is 0750 and the files 0640, otherwise 0700 and 0600; the lock
is always 0600. This module knows bytes only.

Raises `SystemFault` for what the operating system refuses.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault, VaultBusy
from sesguard.system.files import (
    ensure_directory,
    keep_copy,
    read_if_exists,
    remove_file,
    remove_stale_temporaries,
    write_atomic,
)
from sesguard.system.locks import LockBusyError, exclusive_lock
from sesguard.vault.format import MAX_FILE_BYTES

Stamp = tuple[int, int, int, int]
"""Inode, time of last write, size, time of last change of the vault file."""

LOCK_TIMEOUT_S: Final = 10.0


class VaultFiles:
    """
    The files in one vault directory.

    Args:
        directory: Where they are.
        reader_gid: Group that may read them; None for the owner alone.
        lock_timeout_s: How long to wait for another writer.
    """

    def __init__(self, directory: Path, reader_gid: int | None, lock_timeout_s: float) -> None:
        self.directory = directory
        self.current = directory / "vault"
        self.previous = directory / "vault.previous"
        self.mark = directory / "mark"
        self.next_mark = directory / "mark.next"
        self._next = directory / "vault.next"
        self._lock = directory / "lock"
        self._gid = reader_gid
        self._lock_timeout_s = lock_timeout_s

    @property
    def stamp(self) -> Stamp | None:
        """Something that differs once the vault file was changed; None when it cannot be seen."""
        try:
            status = os.stat(self.current, follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns

    def exists(self) -> bool:
        """Whether there is a vault, in whatever state: the current or the previous generation."""
        return any(_is_there(path) for path in (self.current, self.previous))

    def read(self, path: Path) -> bytes | None:
        """The bytes of one of the files, or None when there is no such file."""
        state = read_if_exists(path, max_bytes=MAX_FILE_BYTES)
        return None if state is None else state.content

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """
        Hold the lock, with what a killed writer left behind cleared away.

        The directory is made when it is not there; its mode and group are set right.

        Raises:
            VaultBusy: Another process holds the lock for longer than the time limit.
            SystemFault: No directory or lock can be made.
        """
        directory_mode = 0o700 if self._gid is None else 0o750
        ensure_directory(self.directory, mode=directory_mode, gid=self._gid)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self._lock, timeout_s=self._lock_timeout_s))
            except LockBusyError as error:
                raise VaultBusy(
                    "another process is changing the vault in {directory}",
                    hint="wait for it to end and try again",
                    directory=self.directory,
                ) from error
            remove_file(self._next)
            remove_stale_temporaries(self.directory)
            yield

    def commit(self, data: bytes, *, keep_current: bool) -> None:
        """
        Make `data` the current generation.

        The new file is whole and on the disk before anything else changes, so that a full disk
        leaves everything as it was. The commit point is the rename inside the last `keep_copy`.

        Args:
            data: All bytes of the new vault file.
            keep_current: Whether the present one becomes ``vault.previous``.
        """
        self._write(self._next, data)
        if keep_current:
            keep_copy(self.current, self.previous)
        keep_copy(self._next, self.current)
        remove_file(self._next)

    def write_previous(self, data: bytes) -> None:
        """Replace ``vault.previous``."""
        self._write(self.previous, data)

    def write_mark(self, data: bytes) -> None:
        """Replace the mark; a coming one has no meaning from then on."""
        self._write(self.mark, data)
        remove_file(self.next_mark)

    def write_next_mark(self, data: bytes) -> None:
        """Write the coming mark; see `sesguard.vault.next_mark`."""
        self._write(self.next_mark, data)

    def _write(self, path: Path, data: bytes) -> None:
        write_atomic(path, data, mode=0o600 if self._gid is None else 0o640, gid=self._gid)


def _is_there(path: Path) -> bool:
    try:
        os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SystemFault(
            "cannot look for {path}: {reason}", path=path, reason=error.strerror
        ) from error
    return True

"""
A small table of numbers that several processes share, in a file.

Each row has a name and some float64 columns. `SharedTable.update` reads a row, lets the caller
change it and writes it back, under a lock that the kernel releases when its holder dies. The file
keeps its content over restarts and kill -9; it is not flushed to the disk, so a power failure may
lose the last half minute.

A row is given to another name only when its content no longer matters, which the caller tells by
the time from which that is so; of several such rows the one that matters least long goes first.

The file is read and written by pread(2) and pwrite(2). A mapping would save two system calls and
kill the process (SIGBUS) on a full disk or when somebody cuts the file short; like this the first
is an error and the second is repaired: a file that is short, foreign or has other dimensions is
made anew, empty, in place.

Raises: SystemFault where the file cannot be opened, read or written, or when every row matters.

Known fault: a process that is stopped (SIGSTOP) in the middle of an update stops the others too.

Limits: the lock is between processes (fcntl(2) record locks), so one process must use a table from
one thread; it may be forked after it was opened. Removing the file parts the processes that have it
open from those that open it later.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault

_MAGIC: Final = b"sesgtab1"
_HEADER: Final = struct.Struct("=8sII")
_KEY: Final = struct.Struct("=16sd")
"""Start of a row: what its name comes to, and the time from which it does not matter."""
_FREE: Final = bytes(16)

Values = tuple[float, ...]
Change = Callable[[Values | None], tuple[Values, float] | None]
"""Is given a row, None for a new one; gives it back with the time from which it does not matter,
or None to leave it alone."""


class SharedTable:
    """
    Opens (or makes, 0600) a table.

    Args:
        path: Its file, in a directory that exists.
        columns: Numbers in a row.
        rows: The most names at a time.

    Raises:
        SystemFault: It cannot be opened.
    """

    def __init__(self, path: Path, *, columns: int, rows: int) -> None:
        self._path = path
        self._row = struct.Struct(f"=16sd{columns}d")
        self._header = _HEADER.pack(_MAGIC, columns, rows)
        self._size = _HEADER.size + rows * self._row.size
        self._places: dict[str, tuple[bytes, int]] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Close the file; the table stays."""
        os.close(self._descriptor)

    def update(self, name: str, now: float, change: Change) -> None:
        """
        Change a row, alone among all processes.

        Args:
            name: The row; it is made when there is none.
            now: Rows that do not matter from this time on may be given away for it.
            change: See `Change`. It must be quick: others wait.

        Raises:
            SystemFault: The file cannot be read or written, or has no room.
        """
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                self._update(name, now, change)
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise self._fault(error) from error

    def _update(self, name: str, now: float, change: Change) -> None:
        key, place = self._places.get(name) or (_key(name), 0)
        data = os.pread(self._descriptor, self._row.size, place) if place else b""
        values = self._values(data, key)
        if values is None:
            place, values = self._find(key, now)
            if len(self._places) >= _MAX_KNOWN:
                self._places.clear()
            self._places[name] = key, place
        changed = change(values)
        if changed is not None:
            row = self._row.pack(key, changed[1], *changed[0])
            if os.pwrite(self._descriptor, row, place) != len(row):
                raise SystemFault("cannot write all of a row to {path}", path=self._path)

    def _values(self, data: bytes, key: bytes) -> Values | None:
        if len(data) != self._row.size:
            return None
        found, _, *values = self._row.unpack(data)
        return tuple(values) if found == key else None

    def _find(self, key: bytes, now: float) -> tuple[int, Values | None]:
        """Where the row is or may be made, and what it holds."""
        table = self._whole()
        place = _row_with(table, key, self._row.size)
        if place:
            return place, self._values(table[place : place + self._row.size], key)
        starts = range(_HEADER.size, self._size, self._row.size)
        expiry, place = min((_KEY.unpack_from(table, start)[1], start) for start in starts)
        if not expiry <= now:
            raise SystemFault("{path} has no room for one more row", path=self._path)
        return place, None

    def _whole(self) -> bytes:
        """The table, made anew if it is not ours."""
        table = os.pread(self._descriptor, self._size + 1, 0)
        if len(table) == self._size and table.startswith(self._header):
            return table
        table = self._header + bytes(self._size - len(self._header))
        os.ftruncate(self._descriptor, self._size)
        if os.pwrite(self._descriptor, table, 0) != len(table):
            raise SystemFault("cannot write all of {path}", path=self._path)
        return table

    def _fault(self, error: OSError) -> SystemFault:
        return SystemFault(
            "cannot use {path}: {reason}", path=self._path, reason=error.strerror or str(error)
        )


def read_row(path: Path, name: str, *, columns: int) -> Values | None:
    """
    What a row holds, without a lock and without making anything.

    Returns:
        None: there is no such row, or no such table.

    Raises:
        SystemFault: The file is there and cannot be read.
    """
    row = struct.Struct(f"=16sd{columns}d")
    try:
        table = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemFault(
            "cannot read {path}: {reason}", path=path, reason=error.strerror
        ) from error
    if table[:12] != _HEADER.pack(_MAGIC, columns, 0)[:12]:
        return None
    place = _row_with(table, _key(name), row.size)
    return tuple(row.unpack_from(table, place)[2:]) if place else None


_MAX_KNOWN: Final = 100_000


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _row_with(table: bytes, key: bytes, size: int) -> int:
    """Where the row with that key starts; 0: nowhere."""
    place = table.find(key, _HEADER.size)
    while place > 0 and (place - _HEADER.size) % size:
        place = table.find(key, place + 1)
    return place if 0 < place <= len(table) - size else 0

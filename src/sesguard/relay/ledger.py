"""
The ledger: what became of each message, by time, app and SES message id.

Promises
    A row is on the disk within `DELAY_S` of its message's end, and nobody waits for it: the queue,
    not the ledger, is what keeps mail. After a crash the last rows may be missing.
    Where it cannot be written, rows are kept and tried again, the newest `MOST_WAITING` of them.
    Rows older than the settings' days are removed, a few at a time.

Raises `SystemFault` where the database cannot be opened or read.
Files: ``ledger.db`` in the directory of the queue, which several processes write.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final

from sesguard.errors import Error, SystemFault
from sesguard.relay.group_commit import GroupCommit, ItemFault
from sesguard.system.database import open_database

DELAY_S: Final = 0.5
MOST_WAITING: Final = 100_000
"""Rows kept in memory while the database cannot be written."""
_AGAIN_S: Final = 5.0
_PURGED_AT_ONCE: Final = 1000
"""Old rows removed with each batch, so that no transaction is long."""
_DAY_S: Final = 86_400.0

_FILE_NAME: Final = "ledger.db"
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE ledger (
  number INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  outcome TEXT NOT NULL,
  app TEXT NOT NULL,
  uid INTEGER,
  sender TEXT NOT NULL,
  recipients INTEGER NOT NULL,
  size INTEGER NOT NULL,
  ses_message_id TEXT,
  spool_id TEXT,
  credential_id TEXT,
  credential_version INTEGER,
  possible_duplicate INTEGER NOT NULL
);
CREATE INDEX ledger_time ON ledger (at);
CREATE INDEX ledger_app ON ledger (app, at);
CREATE INDEX ledger_ses ON ledger (ses_message_id) WHERE ses_message_id IS NOT NULL
"""
_COLUMNS: Final = (
    "at, outcome, app, uid, sender, recipients, size, ses_message_id, spool_id, credential_id,"
    " credential_version, possible_duplicate"
)
_INSERT: Final = f"INSERT INTO ledger ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_SELECT: Final = f"SELECT {_COLUMNS} FROM ledger"  # noqa: S608 - columns of ours
_PURGE: Final = """
DELETE FROM ledger WHERE number IN (SELECT number FROM ledger WHERE at < ? ORDER BY at LIMIT ?)
"""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """How a message ended, for all or some of its recipients."""

    at: float
    """Wall clock in seconds."""
    outcome: str
    """``delivered``, ``bounced`` or ``dropped``."""
    app: str
    uid: int | None
    sender: str
    recipients: int
    size: int
    ses_message_id: str | None = None
    spool_id: str | None = None
    """None: it was passed on without the queue."""
    credential_id: str | None = None
    credential_version: int | None = None
    possible_duplicate: bool = False
    """Whether an earlier attempt may have delivered it too."""


_values: Final = attrgetter(*(field.name for field in fields(LedgerEntry)))
"""The values of a row. Not by `astuple`, which copies each of them deeply."""


class Ledger:
    """
    The ledger of one spool directory.

    `add` and `close` belong to the event loop; `find` and `recent` read, and need none.

    Args:
        directory: Of the queue.
        days: How long rows are kept.
        now: Wall clock in seconds.
    """

    def __init__(
        self, directory: Path, *, days: float = 90.0, now: Callable[[], float] = time.time
    ) -> None:
        self._path = directory / _FILE_NAME
        self._kept_s = days * _DAY_S
        self._now = now
        self._writer: GroupCommit | None = None
        self._waiting: deque[LedgerEntry] = deque(maxlen=MOST_WAITING)
        self._timer: asyncio.TimerHandle | None = None
        self._reader: sqlite3.Connection | None = None

    def add(self, entry: LedgerEntry) -> None:
        """Write `entry` soon."""
        self._waiting.append(entry)
        self._flush_in(DELAY_S)

    @property
    def waiting(self) -> int:
        """Rows that are not with the writer: many where it cannot write."""
        return len(self._waiting)

    def find(self, ses_message_id: str) -> LedgerEntry | None:
        """
        The message that SES gave this id.

        Raises:
            SystemFault: The ledger cannot be read.
        """
        found = self._query("WHERE ses_message_id = ? ORDER BY at DESC LIMIT 1", ses_message_id)
        return found[0] if found else None

    def recent(self, app: str | None, limit: int) -> list[LedgerEntry]:
        """
        The last messages, newest first.

        Args:
            app: Whose; None: of all apps.
            limit: How many at most.

        Raises:
            SystemFault: The ledger cannot be read.
        """
        if app is None:
            return self._query("ORDER BY at DESC LIMIT ?", limit)
        return self._query("WHERE app = ? ORDER BY at DESC LIMIT ?", app, limit)

    async def close(self) -> None:
        """Write what waits, and close the database."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        if self._writer is not None:
            await self._writer.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.close()

    def _flush(self) -> None:
        self._timer = None
        try:
            if self._writer is None:
                self._writer = GroupCommit(self._path, _SCHEMA, version=_VERSION)
        except SystemFault:
            self._flush_in(_AGAIN_S)
            return
        entries = list(self._waiting)
        self._waiting.clear()
        for entry in entries:
            self._writer.put(self._write, entry, partial(self._written, entry))

    def _written(self, entry: LedgerEntry, _value: None, error: Error | None) -> None:
        if error is not None and not isinstance(error, ItemFault):
            self._waiting.append(entry)
            self._flush_in(_AGAIN_S)

    def _flush_in(self, delay_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._flush)

    def _write(self, connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> list[None]:
        connection.executemany(_INSERT, [_values(entry) for entry in entries])
        connection.execute(_PURGE, (self._now() - self._kept_s, _PURGED_AT_ONCE))
        return [None] * len(entries)

    def _query(self, condition: str, *values: object) -> list[LedgerEntry]:
        try:
            if self._reader is None:
                self._reader = open_database(self._path, _SCHEMA, version=_VERSION)
            rows = self._reader.execute(f"{_SELECT} {condition}", values).fetchall()
        except sqlite3.Error as error:
            raise SystemFault(
                "cannot read the ledger {path}: {reason}", path=self._path, reason=error
            ) from error
        return [_entry(row) for row in rows]


def _entry(row: sqlite3.Row) -> LedgerEntry:
    return LedgerEntry(**{**dict(row), "possible_duplicate": bool(row["possible_duplicate"])})

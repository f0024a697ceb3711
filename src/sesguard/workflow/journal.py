r"""
The journal: what was planned, what was begun, what is done, and what undo needs.

A SQLite database (WAL, synchronous=FULL): a state that was written is there after a power
failure. Steps and checkpoints are sealed before they are written, since a configuration file that
is about to be cleaned still holds the credential. Titles are in the clear and hold no secret.

    run    RUNNING -> DONE -> UNDOING -> UNDONE
              \-> ROLLING_BACK -> ROLLED_BACK
              \-> SUPERSEDED
    entry  PLANNED -> ACTING -> DONE -> UNDOING -> UNDONE
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sesguard.core.interfaces import Sealer
from sesguard.core.message import Message
from sesguard.errors import SystemFault, VaultTampered, WrongKey
from sesguard.system.database import open_database
from sesguard.system.files import ensure_directory

_SCHEMA: Final = """
CREATE TABLE run (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  workflow TEXT NOT NULL,
  subject TEXT NOT NULL,
  state TEXT NOT NULL,
  started_at TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT ''
);
CREATE TABLE entry (
  run_id INTEGER NOT NULL REFERENCES run (id),
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  title TEXT NOT NULL,
  step BLOB NOT NULL,
  checkpoint BLOB,
  PRIMARY KEY (run_id, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_unfinished_run ON run (workflow, subject)
  WHERE state IN ('RUNNING', 'ROLLING_BACK', 'UNDOING')
"""
_VERSION: Final = 1
_NAME: Final = "journal.db"


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    UNDOING = "UNDOING"
    UNDONE = "UNDONE"
    SUPERSEDED = "SUPERSEDED"
    """Not brought to its end, because it was planned anew."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be done for the run by itself."""
        return self not in {RunState.RUNNING, RunState.ROLLING_BACK, RunState.UNDOING}


class EntryState(StrEnum):
    """Where one step of a run stands."""

    PLANNED = "PLANNED"
    ACTING = "ACTING"
    DONE = "DONE"
    UNDOING = "UNDOING"
    UNDONE = "UNDONE"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a plan."""

    run_id: int
    workflow: str
    subject: str
    state: RunState
    started_at: str
    reason: str
    """Why it was rolled back; empty otherwise."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One step of a run; `step` and `checkpoint` are opened."""

    number: int
    state: EntryState
    title: Message
    step: bytes
    checkpoint: bytes | None


@dataclass(frozen=True, slots=True)
class PlannedEntry:
    """What is written of a step before the run starts."""

    title: Message
    step: bytes


class Journal:
    """The journal in one database file; used by one process at a time for writing."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._connection = open_database(path, _SCHEMA, version=_VERSION)
        self._sealer = sealer

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def start_run(
        self, workflow: str, subject: str, entries: Sequence[PlannedEntry], started_at: str
    ) -> Run:
        """
        Write a whole plan down in one transaction.

        Raises:
            SystemFault: Another run of the same workflow and subject is not finished.
        """
        with self._transaction():
            try:
                cursor = self._connection.execute(
                    "INSERT INTO run (workflow, subject, state, started_at) VALUES (?, ?, ?, ?)",
                    (workflow, subject, RunState.RUNNING, started_at),
                )
            except sqlite3.IntegrityError:
                raise SystemFault(
                    "an earlier change of {subject} was not finished",
                    hint="run the command again to finish it, or undo it",
                    subject=subject,
                ) from None
            run_id = int(cursor.lastrowid or 0)
            self._connection.executemany(
                "INSERT INTO entry (run_id, number, state, title, step) VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        run_id,
                        number,
                        EntryState.PLANNED,
                        json.dumps([entry.title.template, dict(entry.title.parameters)]),
                        self._seal(entry.step, run_id, number, "step"),
                    )
                    for number, entry in enumerate(entries, 1)
                ],
            )
        return Run(run_id, workflow, subject, RunState.RUNNING, started_at, "")

    def runs(self, workflow: str, subject: str | None = None) -> list[Run]:
        """All runs of a workflow (and subject), newest first."""
        rows = self._read(
            "SELECT * FROM run WHERE workflow = ? AND (subject = ? OR ? IS NULL) ORDER BY id DESC",
            (workflow, subject, subject),
        )
        return [_run(row) for row in rows]

    def unfinished(self) -> list[Run]:
        """The runs of any workflow that something is still to be done for, newest first."""
        rows = self._read("SELECT * FROM run ORDER BY id DESC", ())
        return [run for run in map(_run, rows) if not run.state.finished]

    def reseal(self) -> int:
        """
        Seal every step and checkpoint anew, in one transaction.

        For a sealer that seals with another key than it did. An entry that does not open is left
        as it is: it is of a key that was lost before, or damaged, and could not be undone anyway.

        Returns:
            How many entries did not open.

        Raises:
            KeyProviderError: A key cannot be had. Nothing was changed.
            SystemFault: The database cannot be read or written. Nothing was changed.
        """
        failed = 0
        with self._transaction():
            for row in self._read("SELECT * FROM entry", ()):
                run_id = row["run_id"]
                try:
                    entry = self._entry(run_id, row)
                except (VaultTampered, WrongKey):
                    failed += 1
                else:
                    self._reseal(run_id, entry)
        return failed

    def entries(self, run_id: int) -> list[JournalEntry]:
        """
        The steps of a run in their order.

        Raises:
            VaultTampered: A sealed step or checkpoint was changed.
        """
        rows = self._read("SELECT * FROM entry WHERE run_id = ? ORDER BY number", (run_id,))
        return [self._entry(run_id, row) for row in rows]

    def set_run_state(self, run_id: int, state: RunState, reason: str | None = None) -> None:
        """Write down where a run stands (and why)."""
        with self._transaction():
            self._connection.execute(
                "UPDATE run SET state = ?, reason = coalesce(?, reason) WHERE id = ?",
                (state, reason, run_id),
            )

    def set_entry_state(self, run_id: int, number: int, state: EntryState) -> None:
        """Write down where a step stands."""
        with self._transaction():
            self._connection.execute(
                "UPDATE entry SET state = ? WHERE run_id = ? AND number = ?",
                (state, run_id, number),
            )

    def begin_entry(self, run_id: int, number: int, checkpoint: bytes | None) -> None:
        """Write down, in one transaction, that a step begins and what its undo needs."""
        sealed = None
        if checkpoint is not None:
            sealed = self._seal(checkpoint, run_id, number, "checkpoint")
        with self._transaction():
            self._connection.execute(
                "UPDATE entry SET state = ?, checkpoint = ? WHERE run_id = ? AND number = ?",
                (EntryState.ACTING, sealed, run_id, number),
            )

    def _read(self, query: str, parameters: tuple[object, ...]) -> list[sqlite3.Row]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise SystemFault(
                "cannot read the journal: {reason}",
                hint="restore journal.db from a backup, or move it away",
                reason=error,
            ) from error

    def _entry(self, run_id: int, row: sqlite3.Row) -> JournalEntry:
        number = row["number"]
        sealed = row["checkpoint"]
        template, parameters = json.loads(row["title"])
        return JournalEntry(
            number,
            EntryState(row["state"]),
            Message(template, parameters),
            self._sealer.unseal(row["step"], _context(run_id, number, "step")),
            None
            if sealed is None
            else self._sealer.unseal(sealed, _context(run_id, number, "checkpoint")),
        )

    def _reseal(self, run_id: int, entry: JournalEntry) -> None:
        step = self._seal(entry.step, run_id, entry.number, "step")
        checkpoint = entry.checkpoint
        if checkpoint is not None:
            checkpoint = self._seal(checkpoint, run_id, entry.number, "checkpoint")
        self._connection.execute(
            "UPDATE entry SET step = ?, checkpoint = ? WHERE run_id = ? AND number = ?",
            (step, checkpoint, run_id, entry.number),
        )

    def _seal(self, content: bytes, run_id: int, number: int, part: str) -> bytes:
        return self._sealer.seal(content, _context(run_id, number, part))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)


def open_journal(state_directory: Path, sealer: Sealer) -> Journal:
    """
    Open the one journal of this host; it and the directory are made when they are not there.

    Raises:
        SystemFault: It cannot be opened.
    """
    ensure_directory(state_directory, mode=0o755)
    return Journal(state_directory / _NAME, sealer)


def find_journal(state_directory: Path, sealer: Sealer) -> Journal | None:
    """
    Open the journal of this host if there is one.

    Raises:
        SystemFault: It cannot be opened.
    """
    path = state_directory / _NAME
    return Journal(path, sealer) if path.exists() else None


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on any exception; SQLite's errors become ours."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if kind is None:
            self._run("COMMIT")
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise _write_fault(error) from error

    def _run(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise _write_fault(error) from error


def _write_fault(error: sqlite3.Error) -> SystemFault:
    return SystemFault(
        "cannot write the journal: {reason}",
        hint="free disk space or correct the permissions, then run the command again",
        reason=error,
    )


def _run(row: sqlite3.Row) -> Run:
    return Run(
        row["id"],
        row["workflow"],
        row["subject"],
        RunState(row["state"]),
        row["started_at"],
        row["reason"],
    )


def _context(run_id: int, number: int, part: str) -> dict[str, str]:
    return {"purpose": f"journal-{part}", "run": str(run_id), "entry": str(number)}

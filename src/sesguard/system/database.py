"""
SQLite as sesguard uses it: durable, with foreign keys, one connection per thread.

WAL with synchronous=FULL flushes the log at each commit, so a committed transaction survives a
power failure (sqlite.org/pragma.html#pragma_synchronous).
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault
from sesguard.system.locks import exclusive_lock

_BUSY_TIMEOUT_S: Final = 10.0


def open_database(path: Path, schema: str, *, version: int) -> sqlite3.Connection:
    """
    Open (or make, 0600) a database and bring it to `version`.

    Args:
        path: The database file, in a directory that exists; beside it is kept a lock file,
            ``.lock`` added to its name.
        schema: SQL that makes version `version` from nothing.
        version: Kept in ``user_version``.

    Raises:
        SystemFault: Cannot be opened, is not a database, or was made by a newer release.
    """
    try:
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            connection.row_factory = sqlite3.Row
            # Two processes may open a new file at once: one makes it, the other waits for it.
            with exclusive_lock(path.with_name(f"{path.name}.lock"), timeout_s=_BUSY_TIMEOUT_S):
                connection.execute("PRAGMA journal_mode = WAL")
                _migrate(connection, path, schema, version)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            on_failure.pop_all()
    except (sqlite3.Error, OSError) as error:
        raise SystemFault(
            "cannot open the database {path}: {reason}", path=path, reason=error
        ) from error
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    present = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if present > version:
        raise SystemFault(
            "{path} was made by a newer release of sesguard",
            hint="install that release again, or restore an older copy of the file",
            path=path,
        )
    if present < version:
        connection.executescript(f"BEGIN; {schema}; PRAGMA user_version = {version}; COMMIT;")

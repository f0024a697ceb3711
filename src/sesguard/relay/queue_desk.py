"""
What a person does with the queue: look, release, drop, flush; straight on the database.

It works beside the daemon and without it: the database is shared, and the daemon looks at it every
few seconds. Root acts as the owner of the database meanwhile, so that no file of it ends up as
root's, which the daemon could not open.

Limits: a long change is made in transactions of `_AT_ONCE` messages, so that mail goes on coming
in. Raises `SystemFault` where the database cannot be opened or written.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.envelope import Envelope
from sesguard.errors import SystemFault
from sesguard.relay.spool_records import Origin, State, parse_public_id, public_id
from sesguard.relay.spool_table import FILE_NAME, SCHEMA, VERSION, decode_envelope, read_pieces
from sesguard.system.database import open_database
from sesguard.system.privileges import acting_as_owner

_AT_ONCE: Final = 1000
IN_THE_QUEUE: Final = (State.QUEUED, State.HELD)
"""What a person can remove: it is not on its way in or out."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One message of the queue."""

    public_id: str
    state: State
    origin: Origin
    envelope: Envelope
    size: int
    received_at: float
    released_at: float | None
    """When a person let it go, from when its age counts; None: nobody did."""
    next_attempt: float
    attempts: int
    hold_reason: str | None
    last_reply: str
    maybe_sent: bool


class QueueDesk:
    """
    The queue in one directory.

    Args:
        directory: The settings' `relay.spool_directory`; without a queue in it, it is empty.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def list_messages(
        self, *, app: str | None = None, only_held: bool = False, limit: int = 100
    ) -> list[QueueEntry]:
        """The oldest messages, of one app or of all."""
        with self._opened() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT * FROM messages WHERE (app = ?1 OR ?1 IS NULL)"
                " AND (+state = 'held' OR (?2 = 0 AND state <> 'receiving'))"
                " ORDER BY id LIMIT ?3",
                (app, only_held, limit),
            )
            return [_entry(row) for row in rows]

    def find(self, text: str) -> QueueEntry | None:
        """The message with that public id; None where there is none."""
        with self._opened() as connection:
            if connection is None:
                return None
            row = connection.execute(
                "SELECT * FROM messages WHERE id = ? AND state <> 'receiving'",
                (parse_public_id(text),),
            ).fetchone()
            return None if row is None else _entry(row)

    @contextlib.contextmanager
    def opened_body(self, text: str) -> Iterator[Iterator[bytes]]:
        """The message with that public id in pieces, dots no longer doubled."""
        with self._opened() as connection:
            message_id = parse_public_id(text)
            if connection is None or message_id is None:
                yield iter(())
            else:
                yield _without_doubled_dots(read_pieces(connection, message_id))

    def release(self, ids: Iterable[str]) -> list[str]:
        """Let held messages go, their age counted from now; gives those that were held."""
        return self._change_each(
            "UPDATE messages SET state = 'queued', next_attempt = ?1, age_from = ?1"
            " WHERE id = ?2 AND state = 'held'",
            ids,
        )

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Remove messages without telling anybody; gives those that were waiting or held."""
        return self._change_each(
            "DELETE FROM messages WHERE ?1 > 0 AND id = ?2 AND state IN ('queued', 'held')", ids
        )

    def count(self, states: Iterable[State], app: str | None) -> int:
        """How many messages are in one of these states, of one app or of all."""
        query = f"SELECT count(*) FROM messages WHERE {_among(states)} AND (app = ?1 OR ?1 IS NULL)"  # noqa: S608 - words of ours
        with self._opened() as connection:
            if connection is None:
                return 0
            number: int = connection.execute(query, (app,)).fetchone()[0]
            return number

    def release_all(self, app: str | None) -> int:
        """Likewise all that are held, of one app or of all; tells how many."""
        return self._change_all([State.HELD], app, _make_due)

    def drop_all(self, app: str) -> int:
        """Remove all messages of an app that are waiting or held; tells how many."""
        return self._change_all(IN_THE_QUEUE, app, _remove)

    def flush(self, app: str | None) -> int:
        """Make all waiting messages due now, of one app or of all; tells how many."""
        return self._change_all([State.QUEUED], app, _make_due)

    def _change_each(self, statement: str, ids: Iterable[str]) -> list[str]:
        changed: list[str] = []
        with self._opened() as connection:
            if connection is None:
                return changed
            for text in ids:
                done = connection.execute(statement, (time.time(), parse_public_id(text)))
                if done.rowcount:
                    changed.append(text)
        return changed

    def _change_all(
        self,
        states: Iterable[State],
        app: str | None,
        change: Callable[[sqlite3.Connection, Sequence[int]], int],
    ) -> int:
        query = (
            f"SELECT id FROM messages WHERE id > ?1 AND {_among(states)}"  # noqa: S608 - words of ours
            " AND (app = ?2 OR ?2 IS NULL) ORDER BY id LIMIT ?3"
        )
        changed, last = 0, 0
        with self._opened() as connection:
            while connection is not None:
                ids = [row["id"] for row in connection.execute(query, (last, app, _AT_ONCE))]
                if not ids:
                    break
                last = ids[-1]
                connection.execute("BEGIN IMMEDIATE")
                changed += change(connection, ids)
                connection.execute("COMMIT")
        return changed

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        if not self._exists():
            yield None
            return
        try:
            with (
                acting_as_owner(self._path),
                contextlib.closing(
                    open_database(self._path, SCHEMA, version=VERSION)
                ) as connection,
            ):
                yield connection
        except sqlite3.Error as error:
            raise SystemFault(
                "cannot use the queue {path}: {reason}", path=self._path, reason=error
            ) from error

    def _exists(self) -> bool:
        try:
            self._path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SystemFault(
                "cannot use the queue {path}: {reason}",
                hint="run this as root",
                path=self._path,
                reason=error.strerror,
            ) from error
        return True


def _among(states: Iterable[State]) -> str:
    """A condition on the state; without its index, so that the order is that of the ids."""
    return f"+state IN ({', '.join(repr(state.value) for state in states)})"


def _make_due(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    now = time.time()
    return connection.executemany(
        "UPDATE messages SET age_from = CASE state WHEN 'held' THEN ?1 ELSE age_from END,"
        " state = 'queued', next_attempt = ?1 WHERE id = ?2 AND state IN ('queued', 'held')",
        [(now, each) for each in ids],
    ).rowcount


def _remove(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    return connection.executemany(
        "DELETE FROM messages WHERE id = ? AND state IN ('queued', 'held')",
        [(each,) for each in ids],
    ).rowcount


def _entry(row: sqlite3.Row) -> QueueEntry:
    return QueueEntry(
        public_id(row["id"]),
        State(row["state"]),
        Origin(row["app"], row["uid"], row["credential_id"] or None, bool(row["is_notice"])),
        decode_envelope(row["envelope"]),
        row["size"],
        row["received_at"],
        row["age_from"] if row["age_from"] > row["received_at"] else None,
        row["next_attempt"],
        row["attempts"],
        row["hold_reason"],
        row["last_reply"],
        bool(row["maybe_sent"]),
    )


def _without_doubled_dots(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # A line end that a piece ends with is kept back: the next piece may begin with the dot.
    kept, surplus = b"\r\n", 2
    for piece in pieces:
        text = kept + piece
        end = len(text) - (2 if text.endswith(b"\r\n") else text.endswith(b"\r"))
        kept = text[end:]
        yield text[:end].replace(b"\r\n.", b"\r\n")[surplus:]
        surplus = max(surplus - end, 0)
    yield kept[surplus:]

"""
The tables of the queue, and everything that is done to them: SQL, without threads or an event loop.

The functions that take a list are operations of `sesguard.relay.group_commit`: they run within a
transaction of the writer. No query's cost grows with the number of messages: what is due is found
by the index (state, credential, app, time), what waits too long by (credential, start of its age),
and the totals are kept by triggers, by state and by app. A claim costs a look-up for each app that
has mail in the queue.

An id is the time at which the message was stored, in microseconds, shifted by eleven bits. A
message's pieces have the ids that follow its own, so they need no index. Ids are given under the
write lock of the database, so no two messages of the queue share one.

    receiving -> queued <-> sending -> (removed)
                   ^-- held

Known faults: the file keeps the size of the fullest queue there ever was; its pages are used again.
A page that SQLite itself finds malformed, as after damage to the disk, stops delivery for all.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sesguard.core.envelope import Envelope
from sesguard.errors import SystemFault
from sesguard.relay.spool_records import (
    ID_SHIFT,
    Claim,
    ClaimRequest,
    NewMessage,
    Origin,
    Piece,
    QueuedMessage,
    Settlement,
    State,
    Total,
    public_id,
)
from sesguard.relay.spool_room import Room, Shortage

FILE_NAME: Final = "spool.db"
VERSION: Final = 1
PIECE_BYTES: Final = 256 * 1024
_SHARE: Final = 2
"""One app may have the queue's room divided by this, so that it cannot fill it up for all."""
_ID_STEP: Final = 1 << ID_SHIFT
MAX_PIECES: Final = _ID_STEP
"""Pieces that one message may have."""

SCHEMA: Final = """
CREATE TABLE messages (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL,
  credential_id TEXT NOT NULL,
  next_attempt REAL NOT NULL,
  app TEXT NOT NULL,
  uid INTEGER,
  envelope TEXT NOT NULL,
  size INTEGER NOT NULL,
  received_at REAL NOT NULL,
  age_from REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  maybe_sent INTEGER NOT NULL DEFAULT 0,
  is_notice INTEGER NOT NULL,
  hold_reason TEXT,
  last_reply TEXT NOT NULL DEFAULT ''
);
CREATE INDEX due ON messages (state, credential_id, app, next_attempt);
CREATE INDEX waiting ON messages (credential_id, age_from) WHERE state = 'queued';
CREATE TABLE bodies (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE totals (
  state TEXT PRIMARY KEY, messages INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO totals VALUES ('receiving', 0, 0), ('queued', 0, 0), ('sending', 0, 0), ('held', 0, 0);
CREATE TABLE shares (app TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
  UPDATE totals SET messages = messages + 1, bytes = bytes + new.size WHERE state = new.state;
  INSERT INTO shares VALUES (new.app, new.size)
    ON CONFLICT (app) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER message_grown AFTER UPDATE OF size ON messages BEGIN
  UPDATE shares SET bytes = bytes + new.size - old.size WHERE app = new.app;
END;
CREATE TRIGGER message_changed AFTER UPDATE OF state, size ON messages BEGIN
  UPDATE totals SET messages = messages - 1, bytes = bytes - old.size WHERE state = old.state;
  UPDATE totals SET messages = messages + 1, bytes = bytes + new.size WHERE state = new.state;
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
  UPDATE totals SET messages = messages - 1, bytes = bytes - old.size WHERE state = old.state;
  UPDATE shares SET bytes = bytes - old.size WHERE app = old.app;
  DELETE FROM bodies WHERE id BETWEEN old.id AND old.id + 2047;
END
"""

_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(Envelope).decode

_INSERT: Final = """
INSERT INTO messages
  (id, state, credential_id, next_attempt, app, uid, envelope, size, received_at, age_from,
   hold_reason, is_notice)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_PIECE: Final = "INSERT INTO bodies (id, data) VALUES (?, ?)"
_FIRST_OF_EACH: Final = """
WITH RECURSIVE each (id) AS (
  SELECT (SELECT id FROM messages WHERE state = 'queued'
          ORDER BY credential_id, app, next_attempt LIMIT 1)
  UNION ALL
  SELECT coalesce(
    (SELECT id FROM messages
     WHERE state = 'queued' AND credential_id = m.credential_id AND app > m.app
     ORDER BY app, next_attempt LIMIT 1),
    (SELECT id FROM messages WHERE state = 'queued' AND credential_id > m.credential_id
     ORDER BY credential_id, app, next_attempt LIMIT 1))
  FROM each JOIN messages AS m ON m.id = each.id
)
SELECT credential_id, app, next_attempt FROM each JOIN messages USING (id)
"""
_COLUMNS: Final = """
SELECT m.id, app, uid, credential_id, is_notice, envelope, size, received_at, age_from, attempts,
       maybe_sent, last_reply, data
FROM messages AS m LEFT JOIN bodies AS b ON b.id = m.id
"""
_DUE: Final = f"""{_COLUMNS}
WHERE state = 'queued' AND credential_id = ? AND app = ? AND next_attempt <= ?
ORDER BY next_attempt LIMIT ?
"""
_AGED: Final = f"""{_COLUMNS}
WHERE state = 'queued' AND credential_id = ? AND age_from < ? ORDER BY age_from LIMIT ?
"""
_SENDING: Final = f"{_COLUMNS} WHERE state = 'sending' ORDER BY m.id"
_CLAIM: Final = "UPDATE messages SET state = 'sending' WHERE id = ?"
_REMOVE: Final = "DELETE FROM messages WHERE id = ? AND state = 'sending'"
_HOLD: Final = """
UPDATE messages SET state = 'held', hold_reason = ? WHERE id = ? AND state = 'sending'
"""
_RETRY: Final = """
UPDATE messages SET state = 'queued', next_attempt = ?, attempts = ?, envelope = ?,
                    last_reply = ?, maybe_sent = ?
WHERE id = ? AND state = 'sending'
"""


def decode_envelope(text: str) -> Envelope:
    """Read the column ``envelope``; one that is damaged has no recipients."""
    try:
        return _DECODE(text)
    except msgspec.MsgspecError:
        return Envelope("", ())


class SpoolTable:
    """
    The operations on the queue.

    Args:
        directory: Of the database; its file system must keep `min_free_bytes` free.
        max_bytes: Of all messages; one app may have half of it.
        min_free_bytes: Over this new mail is not taken, so that what is there can be delivered.
        now: Wall clock in seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._now = now

    # Receiving.

    def insert(
        self, connection: sqlite3.Connection, messages: Sequence[NewMessage]
    ) -> list[int | Shortage]:
        """Store messages; gives the id of each, or why there is no room for it."""
        room = self._room(connection)
        taken: list[tuple[int, NewMessage]] = []
        answers: list[int | Shortage] = []
        next_id = self._next_id(connection)
        for message in messages:
            shortage = room.take(message.origin.app, len(message.data))
            if shortage is not None:
                answers.append(shortage)
                continue
            taken.append((next_id, message))
            answers.append(next_id)
            next_id += _ID_STEP
        _insert(connection, taken)
        return answers

    def append(
        self, connection: sqlite3.Connection, pieces: Sequence[Piece]
    ) -> list[Shortage | None]:
        """Store further pieces; tells of each why there is no room for it."""
        room = self._room(connection)
        answers = []
        for piece in pieces:
            shortage = room.take(piece.app, len(piece.data))
            if shortage is None:
                _append(connection, piece)
            answers.append(shortage)
        return answers

    def remove(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[None]:
        """Remove messages that were not received to their end."""
        connection.executemany(
            "DELETE FROM messages WHERE id = ? AND state = 'receiving'", [(each,) for each in ids]
        )
        return [None] * len(ids)

    # Delivering.

    def interrupted(
        self, connection: sqlite3.Connection, arguments: Sequence[None]
    ) -> list[list[QueuedMessage]]:
        """After a crash: forget what was not received to its end; gives what was being sent."""
        connection.execute("DELETE FROM messages WHERE state = 'receiving'")
        return [[_queued(row) for row in connection.execute(_SENDING)]] * len(arguments)

    def recover(self, connection: sqlite3.Connection, times: Sequence[float]) -> list[None]:
        """After a crash: queue what was being sent."""
        connection.execute(
            "UPDATE messages SET state = 'queued', maybe_sent = 1, next_attempt = ?"
            " WHERE state = 'sending'",
            (times[0],),
        )
        return [None] * len(times)

    def claim(
        self, connection: sqlite3.Connection, requests: Sequence[ClaimRequest]
    ) -> list[Claim]:
        """Mark due messages as being sent."""
        return [_claim(connection, request) for request in requests]

    def settle(
        self, connection: sqlite3.Connection, settlements: Sequence[Settlement]
    ) -> list[None]:
        """Write down how attempts ended, with the notices they lead to."""
        plain = [each for each in settlements if not each.notices]
        held = [(e.hold_reason, e.message.id) for e in plain if e.hold_reason is not None]
        connection.executemany(_HOLD, held)
        # What is held is no longer being sent, so it is not removed.
        connection.executemany(_REMOVE, [(e.message.id,) for e in plain if e.retry_at is None])
        connection.executemany(_RETRY, [_retry_row(e) for e in plain if e.retry_at is not None])
        for each in settlements:
            if each.notices and _settle(connection, each):
                first = self._next_id(connection)
                ids = range(first, first + len(each.notices) * _ID_STEP, _ID_STEP)
                _insert(connection, list(zip(ids, each.notices, strict=True)))
        return [None] * len(settlements)

    def read_piece(
        self, connection: sqlite3.Connection, places: Sequence[tuple[int, int]]
    ) -> list[bytes | None]:
        """The pieces of messages by id and number; None for what is not there."""
        return [_read_piece(connection, message_id, number) for message_id, number in places]

    def totals(
        self, connection: sqlite3.Connection, arguments: Sequence[None]
    ) -> list[dict[State, Total]]:
        """Messages and bytes by state."""
        return [read_totals(connection)] * len(arguments)

    def _room(self, connection: sqlite3.Connection) -> Room:
        left = self._max_bytes - connection.execute("SELECT sum(bytes) FROM totals").fetchone()[0]
        if self._min_free_bytes:
            disk = os.statvfs(self._directory)
            if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
                left = -1
        return Room(connection, left, self._max_bytes // _SHARE)

    def _next_id(self, connection: sqlite3.Connection) -> int:
        last: int | None = connection.execute("SELECT max(id) FROM messages").fetchone()[0]
        now = int(self._now() * 1_000_000) << ID_SHIFT
        return now if last is None else max(now, last + _ID_STEP)


def read_totals(connection: sqlite3.Connection) -> dict[State, Total]:
    """Messages and bytes by state."""
    rows = connection.execute("SELECT state, messages, bytes FROM totals")
    return {State(row["state"]): Total(row["messages"], row["bytes"]) for row in rows}


def read_pieces(connection: sqlite3.Connection, message_id: int) -> Iterator[bytes]:
    """The whole message, in wire form."""
    number = 0
    while (piece := _read_piece(connection, message_id, number)) is not None:
        yield piece
        number += 1


def _insert(connection: sqlite3.Connection, messages: Sequence[tuple[int, NewMessage]]) -> None:
    connection.executemany(
        _INSERT,
        [
            (
                message_id,
                new.state,
                new.origin.credential_id or "",
                new.received_at,
                new.origin.app,
                new.origin.uid,
                _ENCODE(new.envelope).decode(),
                len(new.data),
                new.received_at,
                new.received_at,
                new.hold_reason,
                new.origin.is_notice,
            )
            for message_id, new in messages
        ],
    )
    connection.executemany(
        _INSERT_PIECE,
        [
            (message_id + number, new.data[begin : begin + PIECE_BYTES])
            for message_id, new in messages
            for number, begin in enumerate(range(0, len(new.data) or 1, PIECE_BYTES))
        ],
    )


def _append(connection: sqlite3.Connection, piece: Piece) -> None:
    changed = connection.execute(
        "UPDATE messages SET size = size + ?, state = ? WHERE id = ? AND state = 'receiving'",
        (len(piece.data), piece.state, piece.message_id),
    )
    if changed.rowcount != 1:
        raise SystemFault("message {id} is no longer in the queue", id=public_id(piece.message_id))
    if piece.data:
        connection.execute(_INSERT_PIECE, (piece.message_id + piece.number, piece.data))


def _read_piece(connection: sqlite3.Connection, message_id: int, number: int) -> bytes | None:
    if number >= MAX_PIECES:
        return None
    row = connection.execute(
        "SELECT data FROM bodies WHERE id = ?", (message_id + number,)
    ).fetchone()
    return None if row is None else row["data"]


def _claim(connection: sqlite3.Connection, request: ClaimRequest) -> Claim:
    allowed = dict(request.allowances)
    queued: list[tuple[str, str, float]] = connection.execute(_FIRST_OF_EACH).fetchall()
    able = [row for row in queued if allowed.get(row[0], 1) > 0 and row[1] not in request.resting]
    due = [row for row in able if row[2] <= request.now]
    due.sort(key=lambda row: (request.turns.get((row[0], row[1]), 0), row[2]))
    chosen: list[QueuedMessage] = []
    unreadable: list[QueuedMessage] = []
    for place, (credential_id, app, _when) in enumerate(due):
        # What one does not use is left to those that follow.
        share = -(-(request.limit - len(chosen)) // (len(due) - place))
        most = min(share, allowed.get(credential_id, share))
        if most <= 0:
            continue
        found = _select(connection, _DUE, (credential_id, app, request.now, most), unreadable)
        chosen += found
        if credential_id in allowed:
            allowed[credential_id] -= len(found)
    # Before the others are looked for: a message is delivered or given up, never both.
    connection.executemany(_CLAIM, [(message.id,) for message in (*chosen, *unreadable)])
    expired: list[QueuedMessage] = []
    for credential_id, before in request.expired.items():
        most = max(request.limit - len(chosen) - len(expired), 0)
        expired += _select(connection, _AGED, (credential_id, before, most), unreadable)
    connection.executemany(_CLAIM, [(message.id,) for message in (*expired, *unreadable)])
    return Claim(chosen, expired, unreadable, min((row[2] for row in able), default=None))


def _select(
    connection: sqlite3.Connection,
    query: str,
    arguments: tuple[object, ...],
    unreadable: list[QueuedMessage],
) -> list[QueuedMessage]:
    """The messages that a query finds, those that are damaged added to `unreadable` instead."""
    readable: list[QueuedMessage] = []
    for row in connection.execute(query, arguments):
        message = _queued(row)
        is_whole = row["data"] is not None and message.envelope.recipients
        (readable if is_whole else unreadable).append(message)
    return readable


def _queued(row: sqlite3.Row) -> QueuedMessage:
    message_id, app, uid, credential_id, is_notice, envelope, size, *rest = row
    received_at, age_from, attempts, maybe_sent, last_reply, data = rest
    return QueuedMessage(
        message_id,
        Origin(app, uid, credential_id or None, bool(is_notice)),
        decode_envelope(envelope),
        size,
        received_at,
        age_from,
        attempts,
        bool(maybe_sent),
        data or b"",
        last_reply,
    )


def _settle(connection: sqlite3.Connection, settlement: Settlement) -> bool:
    """Settle one; False where that was done before, so that its sender is not told twice."""
    if settlement.retry_at is None:
        done = connection.execute(_REMOVE, (settlement.message.id,))
    else:
        done = connection.execute(_RETRY, _retry_row(settlement))
    return done.rowcount == 1


def _retry_row(settlement: Settlement) -> tuple[object, ...]:
    envelope = settlement.remaining or settlement.message.envelope
    return (
        settlement.retry_at,
        settlement.attempts,
        _ENCODE(envelope).decode(),
        settlement.reply,
        settlement.maybe_sent,
        settlement.message.id,
    )

"""
One writer for a database: whatever waits is written in one transaction.

Flushing a log to the disk costs the same for one message as for a hundred, so the writer thread
takes all that was put while it was busy, and commits it at once.

Promises
    `done` is called with a value only after COMMIT is on the disk.
    Batches are done in order. Within one the order is by operation, so whoever needs an order
    waits for `done` of the first.
    An item that fails spoils no other: the batch is done again, each item in a savepoint of its
    own. A database that fails (disk full, I/O error, locked for too long) fails the whole batch,
    is opened anew, and later batches work again by themselves.
    The loop is woken once for a batch, never once for an item.

Limits
    A batch is at most `_MOST_ITEMS` items. Another process may hold the lock for the busy time of
    `sesguard.system.database`, 10 s; then the batch fails.

Known faults: where flushing itself fails, the transaction may still be found in the log after a
crash, although its callers were told that it failed. Mail may then be sent twice, never lost.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from sesguard.errors import Error, SystemFault
from sesguard.system.database import open_database

A = TypeVar("A")
R = TypeVar("R")

Operation = Callable[[sqlite3.Connection, Sequence[A]], Sequence[R]]
"""
What is done to the database with several arguments at once; gives one value for each.

It runs on the writer's thread, within a transaction, and may run twice: it must leave nothing
behind but what is in the database.
"""
Done = Callable[[R | None, Error | None], None]
"""Takes the value, or the error; called on the event loop. It must not raise."""


class ItemFault(SystemFault):
    """It is the item that cannot be written: it would fail again."""


_MOST_ITEMS: Final = 500
_ITEM_FAULTS: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
)
"""Primary result codes that say something about the item and nothing about the database."""


class _Item(NamedTuple):
    operation: Operation[Any, Any]
    argument: Any
    done: Done[Any]


_Outcome = tuple[Any, Error | None]


class GroupCommit:
    """
    The writer of one database; made and used on the running event loop.

    Args:
        path: The database file; see `open_database` for this and what follows.
        schema: SQL that makes it.
        version: Of the schema.

    Raises:
        SystemFault: It cannot be opened.
    """

    def __init__(self, path: Path, schema: str, *, version: int) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._open = partial(open_database, path, schema, version=version)
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._stopped = self.loop.create_future()
        self._open().close()
        # A daemon thread: a program that fails elsewhere must not wait for it for ever.
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}", daemon=True)
        self._thread.start()

    def put(self, operation: Operation[A, R], argument: A, done: Done[R]) -> None:
        """
        Have `operation` done with `argument` in the next transaction.

        It is handed all that waits for it at once.
        """
        self._queue.put(_Item(operation, argument, done))

    async def call(self, operation: Operation[A, R], argument: A) -> R:
        """
        As `put`, and wait for the value.

        Raises:
            Error: What kept it from being done.
        """
        future: asyncio.Future[R] = self.loop.create_future()

        def done(value: R | None, error: Error | None) -> None:
            """Hand the outcome to whoever waits."""
            if not future.done():
                if error is None:
                    future.set_result(value)  # type: ignore[arg-type] # R may itself be optional
                else:
                    future.set_exception(error)

        self.put(operation, argument, done)
        return await future

    async def close(self) -> None:
        """Finish what was put, and close the database; nothing may be put from here on."""
        self._queue.put(None)
        await self._stopped
        self._thread.join()

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            batch, goes_on = self._next_batch()
            if batch:
                self._tell(batch, self._do(batch))
        if self._connection is not None:
            self._connection.close()
        self._on_loop(partial(self._stopped.set_result, None))

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What waits, at least one item; and whether more may come."""
        batch: list[_Item] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _MOST_ITEMS:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, True
        return batch, False

    def _tell(self, batch: list[_Item], outcomes: Sequence[_Outcome]) -> None:
        def tell() -> None:
            for item, (value, error) in zip(batch, outcomes, strict=True):
                try:
                    item.done(value, error)
                except Exception as fault:  # noqa: BLE001 - the others must hear of theirs
                    context = {"message": "a caller failed", "exception": fault}
                    self.loop.call_exception_handler(context)

        self._on_loop(tell)

    def _on_loop(self, act: Callable[[], object]) -> None:
        # A loop that was closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(act)

    def _do(self, batch: list[_Item]) -> Sequence[_Outcome]:
        try:
            if self._connection is None:
                self._connection = self._open()
            try:
                return self._transaction(self._connection, batch, self._together)
            except _ItemError:
                return self._transaction(self._connection, batch, self._one_by_one)
        except SystemFault as error:
            return [(None, error)] * len(batch)
        except (sqlite3.Error, OSError) as error:
            self._drop_connection()
            fault = SystemFault("cannot write {path}: {reason}", path=self._path, reason=error)
            fault.__cause__ = error
            return [(None, fault)] * len(batch)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @staticmethod
    def _transaction(
        connection: sqlite3.Connection,
        batch: list[_Item],
        act: Callable[[sqlite3.Connection, list[_Item]], list[_Outcome]],
    ) -> list[_Outcome]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = act(connection, batch)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes

    @staticmethod
    def _together(connection: sqlite3.Connection, batch: list[_Item]) -> list[_Outcome]:
        places: dict[Operation[Any, Any], list[int]] = {}
        for place, item in enumerate(batch):
            places.setdefault(item.operation, []).append(place)
        outcomes: list[_Outcome] = [(None, None)] * len(batch)
        for operation, chosen in places.items():
            try:
                values = operation(connection, [batch[place].argument for place in chosen])
            except Exception as error:
                if _is_of_the_database(error):
                    raise
                raise _ItemError from error
            for place, value in zip(chosen, values, strict=True):
                outcomes[place] = (value, None)
        return outcomes

    def _one_by_one(self, connection: sqlite3.Connection, batch: list[_Item]) -> list[_Outcome]:
        return [self._alone(connection, item) for item in batch]

    @staticmethod
    def _alone(connection: sqlite3.Connection, item: _Item) -> _Outcome:
        connection.execute("SAVEPOINT item")
        try:
            [value] = item.operation(connection, [item.argument])
        except Exception as error:
            if _is_of_the_database(error):
                raise
            connection.execute("ROLLBACK TO item")
            connection.execute("RELEASE item")
            return None, error if isinstance(error, Error) else _fault_of(error)
        connection.execute("RELEASE item")
        return value, None


class _ItemError(Exception):
    """An item of the batch fails by its own fault."""


def _is_of_the_database(error: Exception) -> bool:
    if isinstance(error, sqlite3.DatabaseError):
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF not in _ITEM_FAULTS
    return isinstance(error, OSError)


def _fault_of(error: Exception) -> ItemFault:
    fault = ItemFault("cannot write to the database: {reason}", reason=error)
    fault.__cause__ = error
    return fault

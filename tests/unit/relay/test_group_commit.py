"""One writer for a database: batches, faults of items and of the database."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sesguard.errors import Error, SystemFault
from sesguard.relay.group_commit import GroupCommit

SCHEMA = "CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT NOT NULL DEFAULT '')"


def insert(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[int]:
    connection.executemany("INSERT INTO t (n) VALUES (?)", [(each,) for each in numbers])
    return list(numbers)


def fill_up(connection: sqlite3.Connection, sizes: Sequence[int]) -> list[None]:
    """Meets a full disk, as SQLite sees it."""
    connection.execute("PRAGMA max_page_count = 1")
    for size in sizes:
        connection.execute("INSERT INTO t (text) VALUES (?)", ("x" * size,))
    return [None] * len(sizes)


def numbers_in(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    finally:
        connection.close()


def open_writer(path: Path) -> GroupCommit:
    return GroupCommit(path, SCHEMA, version=1)


class Gate:
    """An operation that keeps the writer busy until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go = threading.Event()

    def __call__(self, _connection: sqlite3.Connection, some: Sequence[None]) -> list[None]:
        self.entered.set()
        assert self.may_go.wait(20)
        return [None] * len(some)

    async def hold(self, writer: GroupCommit) -> None:
        writer.put(self, None, lambda _value, _error: None)
        await asyncio.to_thread(self.entered.wait, 20)


def test_all_that_waits_is_one_transaction_and_one_call_back(tmp_path: Path) -> None:
    """What was put while the writer was busy is handed to the operation at once."""
    batches: list[int] = []
    turns: list[int] = []

    def counted(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[int]:
        batches.append(len(numbers))
        return insert(connection, numbers)

    async def act() -> None:
        writer, gate, turn = open_writer(tmp_path / "t.db"), Gate(), 0
        await gate.hold(writer)
        left = asyncio.Event()
        for number in range(100):

            def done(value: int | None, error: Error | None) -> None:
                assert error is None
                turns.append(turn)
                if value == 99:
                    left.set()

            writer.put(counted, number, done)
        gate.may_go.set()
        while not left.is_set():
            turn += 1
            await asyncio.sleep(0.001)
        await writer.close()

    asyncio.run(act())
    assert [100] == batches
    assert 1 == len(set(turns))


def test_done_is_called_after_the_commit(tmp_path: Path) -> None:
    """Another connection sees the row when its caller is told of it."""

    async def act() -> list[int]:
        writer = open_writer(tmp_path / "t.db")
        await writer.call(insert, 7)
        seen = numbers_in(tmp_path / "t.db")
        await writer.close()
        return seen

    assert [7] == asyncio.run(act())


def test_a_bad_item_spoils_no_other(tmp_path: Path) -> None:
    """Of a batch with a duplicate key all others are stored, and only its caller hears of it."""

    async def act() -> list[object]:
        writer, gate = open_writer(tmp_path / "t.db"), Gate()
        await writer.call(insert, 3)
        await gate.hold(writer)
        calls = [asyncio.ensure_future(writer.call(insert, number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        gate.may_go.set()
        outcomes: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        await writer.close()
        return outcomes

    outcomes = asyncio.run(act())
    assert isinstance(outcomes[2], SystemFault)
    assert [1, 2, 4, 5] == outcomes[:2] + outcomes[3:]
    assert [1, 2, 3, 4, 5] == numbers_in(tmp_path / "t.db")


def test_an_operation_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    """What an operation wrote before it failed is undone; its own error is what the caller gets."""

    def half(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[int]:
        insert(connection, numbers)
        raise SystemFault("no {what}", what="more")

    async def act() -> None:
        writer = open_writer(tmp_path / "t.db")
        with pytest.raises(SystemFault, match="no more"):
            await writer.call(half, 1)
        await writer.call(insert, 2)
        await writer.close()

    asyncio.run(act())
    assert [2] == numbers_in(tmp_path / "t.db")


def test_a_full_disk_fails_the_batch_and_the_next_one_works(tmp_path: Path) -> None:
    """Each item of the batch gets the error, none is stored, and later ones work by themselves."""

    async def act() -> list[object]:
        writer, gate = open_writer(tmp_path / "t.db"), Gate()
        await gate.hold(writer)
        calls = [
            asyncio.ensure_future(writer.call(insert, 1)),
            asyncio.ensure_future(writer.call(fill_up, 100_000)),
            asyncio.ensure_future(writer.call(insert, 2)),
        ]
        await asyncio.sleep(0)
        gate.may_go.set()
        outcomes: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        await writer.call(insert, 3)
        await writer.close()
        return outcomes

    assert [SystemFault] * 3 == [type(each) for each in asyncio.run(act())]
    assert [3] == numbers_in(tmp_path / "t.db")


def test_a_full_disk_is_found_also_where_items_are_done_one_by_one(tmp_path: Path) -> None:
    """A bad item beside a full disk: the whole batch fails."""

    async def act() -> list[object]:
        writer, gate = open_writer(tmp_path / "t.db"), Gate()
        await writer.call(insert, 1)
        await gate.hold(writer)
        calls = [
            asyncio.ensure_future(writer.call(insert, 1)),
            asyncio.ensure_future(writer.call(fill_up, 100_000)),
        ]
        await asyncio.sleep(0)
        gate.may_go.set()
        outcomes: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        await writer.close()
        return outcomes

    assert all("full" in str(each) for each in asyncio.run(act()))


def test_a_database_that_cannot_be_opened_any_more(tmp_path: Path) -> None:
    """A lost directory fails what is put; once it is back, the writer works again."""
    directory = tmp_path / "d"
    directory.mkdir()

    async def act() -> None:
        writer = open_writer(directory / "t.db")
        directory.rename(tmp_path / "away")
        with pytest.raises(SystemFault):
            await writer.call(insert, 1)
        (tmp_path / "away").rename(directory)
        await writer.call(insert, 2)
        await writer.close()

    asyncio.run(act())
    assert [2] == numbers_in(directory / "t.db")


def test_two_writers_share_a_database(tmp_path: Path) -> None:
    """Neither loses what it put when both write all the time."""

    async def act() -> None:
        writers = [open_writer(tmp_path / "t.db") for _ in range(2)]
        await asyncio.gather(*(writers[number % 2].call(insert, number) for number in range(400)))
        await asyncio.gather(*(writer.close() for writer in writers))

    asyncio.run(act())
    assert list(range(400)) == numbers_in(tmp_path / "t.db")


def test_close_finishes_what_was_put(tmp_path: Path) -> None:
    """Nothing that was put before is left out, not even beyond one batch."""

    async def act() -> int:
        told = 0

        def done(_value: int | None, error: Error | None) -> None:
            nonlocal told
            told += error is None

        writer = open_writer(tmp_path / "t.db")
        for number in range(1700):
            writer.put(insert, number, done)
        await writer.close()
        return told

    assert 1700 == asyncio.run(act())
    assert 1700 == len(numbers_in(tmp_path / "t.db"))


def test_a_loop_that_is_gone_does_not_harm_the_writer(tmp_path: Path) -> None:
    """The thread ends quietly when the loop was closed under it."""
    gate = Gate()

    async def act() -> asyncio.Task[None]:
        writer = open_writer(tmp_path / "t.db")
        await gate.hold(writer)
        writer.put(insert, 1, lambda _value, _error: None)
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        return closing

    assert asyncio.run(act()).cancelled()
    gate.may_go.set()
    for thread in threading.enumerate():
        if thread.name == "writer t.db":
            thread.join(20)
            assert not thread.is_alive()
    assert [1] == numbers_in(tmp_path / "t.db")


def test_a_waiting_caller_that_is_cancelled_is_not_told(tmp_path: Path) -> None:
    """Cancelling `call` neither undoes the write nor raises in the loop."""

    async def act() -> None:
        writer, gate = open_writer(tmp_path / "t.db"), Gate()
        await gate.hold(writer)
        call = asyncio.ensure_future(writer.call(insert, 1))
        await asyncio.sleep(0)
        call.cancel()
        gate.may_go.set()
        await writer.close()

    asyncio.run(act())
    assert [1] == numbers_in(tmp_path / "t.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is told when the writer is made, not when the first item is put."""
    (tmp_path / "t.db").write_text("no database " * 100)

    async def act() -> None:
        open_writer(tmp_path / "t.db")

    with pytest.raises(SystemFault, match="not a database"):
        asyncio.run(act())


def test_a_caller_that_fails_keeps_no_other_from_hearing(tmp_path: Path) -> None:
    """The loop's exception handler gets its error, and the next of the batch is told."""
    faults: list[BaseException] = []

    def fail(_value: int | None, _error: Error | None) -> None:
        raise KeyError("caller")

    async def act() -> int:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: faults.append(context["exception"])
        )
        writer, gate = open_writer(tmp_path / "t.db"), Gate()
        await gate.hold(writer)
        writer.put(insert, 1, fail)
        call = asyncio.ensure_future(writer.call(insert, 2))
        await asyncio.sleep(0)
        gate.may_go.set()
        value = await call
        await writer.close()
        return value

    assert 2 == asyncio.run(act())
    assert [KeyError] == [type(fault) for fault in faults]

"""Taking mail into the queue: durable before 250, in pieces, full, unwritable, abandoned."""

import asyncio
import sqlite3
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigs.queue import BODY, ENVELOPE, ORIGIN, Sender, id_of, store, with_spool
from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.relay.queue_desk import QueueDesk
from sesguard.relay.spool import BACKLOG_BYTES, Origin, Spool, SpoolCarrier
from sesguard.relay.spool_records import State, parse_public_id, public_id
from sesguard.relay.spool_table import MAX_PIECES, PIECE_BYTES


def rows_in(directory: Path, query: str = "SELECT * FROM messages") -> list[sqlite3.Row]:
    connection = sqlite3.connect(directory / "spool.db")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def body_in(directory: Path) -> bytes:
    rows = rows_in(directory, "SELECT data FROM bodies ORDER BY id")
    return b"".join(row["data"] for row in rows)


class Gate:
    """Keeps the writer busy until it is opened."""

    def __init__(self) -> None:
        self.may_go = threading.Event()

    def __call__(self, _connection: sqlite3.Connection, some: Sequence[None]) -> list[None]:
        assert self.may_go.wait(20)
        return [None] * len(some)

    def hold(self, spool: Spool) -> None:
        spool.writer.put(self, None, lambda _value, _error: None)


def test_a_message_is_on_the_disk_when_250_is_said(tmp_path: Path) -> None:
    """Another connection sees message and body at the moment of the reply."""

    async def act(carrier: SpoolCarrier) -> None:
        envelope = Envelope(
            "o'brien@example.com",
            (
                Recipient("a@example.net", frozenset({Notify.SUCCESS}), "rfc822;a@example.net"),
                Recipient("jürgen@example.net"),
            ),
            eight_bit=True,
            utf8=True,
            envelope_id="QQ314159",
        )
        reply = await store(carrier, envelope=envelope, origin=Origin("shop", None, None))
        [row] = rows_in(tmp_path)
        assert (row["state"], row["app"], row["uid"]) == ("queued", "shop", None)
        assert BODY == body_in(tmp_path)
        entry = QueueDesk(tmp_path).find(id_of(reply))
        assert entry is not None
        assert envelope == entry.envelope
        assert Origin("shop", None, None) == entry.origin

    with_spool(tmp_path, act)


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """The directory is made 0700, and each file of the database is 0600."""

    async def act(carrier: SpoolCarrier) -> dict[str, int]:
        await store(carrier)
        return {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "q").iterdir()}

    modes = with_spool(tmp_path / "q", act)
    assert {"spool.db", "spool.db-wal", "spool.db-shm", "spool.db.lock"} == set(modes)
    assert {0o600} == set(modes.values())
    assert 0o700 == (tmp_path / "q").stat().st_mode & 0o777


def test_a_held_message_waits_for_a_person(tmp_path: Path) -> None:
    """It is stored with its reason, and nobody is woken to deliver it."""
    woken: list[str] = []

    async def act(carrier: SpoolCarrier) -> None:
        carrier = SpoolCarrier(carrier.spool, lambda: woken.append("held"))
        await store(carrier, held="the sender may not be used")

    with_spool(tmp_path, act)
    [row] = rows_in(tmp_path)
    assert ("held", "the sender may not be used") == (row["state"], row["hold_reason"])
    assert [] == woken


@pytest.mark.parametrize(
    "size",
    [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES + 5],
)
@pytest.mark.parametrize("waits", [True, False])
def test_a_message_of_any_size_comes_in_whole(tmp_path: Path, size: int, waits: bool) -> None:
    """Also when its end comes while a piece is being stored, and when it is written all at once."""
    data = bytes(number % 251 for number in range(size))

    async def act(carrier: SpoolCarrier) -> None:
        if waits:
            assert (await store(carrier, data)).code == 250
        else:
            sender = Sender()
            transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
            transfer.write(data)
            transfer.finish()
            assert (await sender.result).reply.code == 250

    with_spool(tmp_path, act)
    [row] = rows_in(tmp_path)
    assert (State.QUEUED, size) == (row["state"], row["size"])
    assert data == body_in(tmp_path)
    assert all(
        len(row["data"]) <= PIECE_BYTES for row in rows_in(tmp_path, "SELECT data FROM bodies")
    )


def test_memory_stays_flat_for_a_message_of_40_mb(tmp_path: Path) -> None:
    """Its sender is paused while a piece is written; a few pieces are in memory at most."""
    chunk = b"x" * 65536

    async def act(carrier: SpoolCarrier) -> tuple[int, int]:
        sender = Sender()
        transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
        tracemalloc.start()
        try:
            for _ in range(640):
                await sender.may_write.wait()
                transfer.write(chunk)
            transfer.finish()
            await sender.result
            return tracemalloc.get_traced_memory()[1], sender.pauses
        finally:
            tracemalloc.stop()

    peak, pauses = with_spool(tmp_path, act)
    assert peak < 4_000_000
    assert pauses > 50


def test_senders_are_paused_while_the_disk_is_slow(tmp_path: Path) -> None:
    """More than the bound waits: who writes is paused until the writer has caught up."""

    async def act(carrier: SpoolCarrier) -> None:
        gate = Gate()
        gate.hold(carrier.spool)
        waiting = []
        for _ in range(BACKLOG_BYTES // 200_000 + 1):
            sender = Sender()
            transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
            transfer.write(b"x" * 200_000)
            transfer.finish()
            waiting.append(sender.result)
        late = Sender()
        transfer = carrier.begin(ENVELOPE, late, origin=ORIGIN)
        transfer.write(b"y")
        assert 1 == late.pauses
        gate.may_go.set()
        await late.may_write.wait()
        transfer.write(b"z")
        transfer.finish()
        replies = [result.reply.code for result in await asyncio.gather(*waiting, late.result)]
        assert {250} == set(replies)

    with_spool(tmp_path, act)


@pytest.mark.parametrize("size", [10, PIECE_BYTES * 2 + 7])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_aborted_message_leaves_nothing(tmp_path: Path, size: int, at_once: bool) -> None:
    """Neither row nor piece, also when it is aborted while a piece is being stored."""

    async def act(carrier: SpoolCarrier) -> None:
        sender = Sender()
        transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
        for begin in range(0, size, 100_000):
            transfer.write(b"x" * min(100_000, size - begin))
            if not at_once:
                await sender.may_write.wait()
        transfer.abort()
        transfer.write(b"more")
        await carrier.spool.totals()
        await carrier.spool.totals()
        assert not sender.result.done()

    with_spool(tmp_path, act)
    assert [] == rows_in(tmp_path)
    assert b"" == body_in(tmp_path)


def test_a_full_queue_defers_and_takes_mail_again(tmp_path: Path) -> None:
    """Over `max_bytes` 452, also in the middle of a message; with room 250 again."""

    async def act(carrier: SpoolCarrier) -> None:
        first = await store(carrier, b"x" * 900_000)
        assert first.code == 250
        other = await store(carrier, b"x" * 1_000_000, origin=Origin("blog", 2, None))
        for size in (200_000, 800_000):
            reply = await store(carrier, b"y" * size)
            assert (452, "4.3.1 the queue is full") == (reply.code, reply.text)
        await carrier.spool.totals()
        QueueDesk(tmp_path).drop([id_of(first), id_of(other)])
        assert 250 == (await store(carrier, b"z" * 800_000)).code

    with_spool(tmp_path, act, max_bytes=2_000_000)
    assert [800_000] == [row["size"] for row in rows_in(tmp_path)]
    assert b"z" * 800_000 == body_in(tmp_path)


@pytest.mark.parametrize("held", [None, "rate"])
def test_one_app_has_at_most_half_of_the_queue(tmp_path: Path, held: str | None) -> None:
    """Over it that app alone hears 452, also in the middle of a message; with room 250 again."""
    other = Origin("blog", 1002, "main")

    async def act(carrier: SpoolCarrier) -> None:
        first = await store(carrier, b"x" * 900_000, held=held)
        for size in (200_000, 800_000):
            reply = await store(carrier, b"y" * size, held=held)
            text = "4.3.1 the app has all of the queue that one app may have"
            assert (452, text) == (reply.code, reply.text)
        assert 250 == (await store(carrier, b"z" * 900_000, origin=other)).code
        QueueDesk(tmp_path).drop([id_of(first)])
        assert 250 == (await store(carrier, b"z" * 900_000, held=held)).code

    with_spool(tmp_path, act, max_bytes=2_000_000)
    shares = rows_in(tmp_path, "SELECT app, bytes FROM shares ORDER BY app")
    assert [("blog", 900_000), ("shop", 900_000)] == [tuple(row) for row in shares]


def test_one_message_too_many_spoils_no_other_of_its_batch(tmp_path: Path) -> None:
    """Those that fit are taken, and a smaller one after the one that does not."""

    async def act(carrier: SpoolCarrier) -> list[int]:
        gate = Gate()
        gate.hold(carrier.spool)
        sizes = (400, 700, 500, 100)
        calls = [asyncio.ensure_future(store(carrier, b"x" * size)) for size in sizes]
        await asyncio.sleep(0)
        gate.may_go.set()
        return [reply.code for reply in await asyncio.gather(*calls)]

    codes = with_spool(tmp_path, act, max_bytes=2000)
    assert [250, 452, 250, 250] == codes
    assert [400, 500, 100] == [row["size"] for row in rows_in(tmp_path)]


def test_a_disk_that_is_nearly_full_defers(tmp_path: Path) -> None:
    """Some room is left for delivering what is there."""

    async def act() -> int:
        spool = Spool(tmp_path, max_bytes=10**9, min_free_bytes=2**60)
        reply = await store(SpoolCarrier(spool, lambda: None))
        await spool.close()
        return reply.code

    assert 452 == asyncio.run(act())


@pytest.mark.parametrize("size", [100, PIECE_BYTES * 2])
def test_a_queue_that_cannot_be_written_defers_and_works_again(tmp_path: Path, size: int) -> None:
    """452 while the files are away; 250 once they are back, and nothing of before is lost."""
    directory, away = tmp_path / "q", tmp_path / "away"

    async def act(carrier: SpoolCarrier) -> None:
        def lose(_connection: sqlite3.Connection, some: Sequence[None]) -> list[None]:
            directory.rename(away)
            raise OSError(5, "Input/output error")

        assert 250 == (await store(carrier)).code
        carrier.spool.writer.put(lose, None, lambda _value, _error: None)
        assert 452 == (await store(carrier, b"x" * size)).code
        assert 452 == (await store(carrier, b"x" * size)).code
        away.rename(directory)
        assert 250 == (await store(carrier, b"x" * size)).code

    with_spool(directory, act)
    assert [len(BODY), size] == [row["size"] for row in rows_in(directory)]


def test_a_large_message_whose_later_piece_fails(tmp_path: Path) -> None:
    """The sender hears 452 before the end, and what was stored of it is removed."""
    directory, away = tmp_path / "q", tmp_path / "away"

    async def act(carrier: SpoolCarrier) -> None:
        sender = Sender()
        transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
        transfer.write(b"x" * PIECE_BYTES)
        while not (await carrier.spool.totals())[State.RECEIVING].messages:
            pass

        def lose(_connection: sqlite3.Connection, some: Sequence[None]) -> list[None]:
            directory.rename(away)
            raise OSError(5, "Input/output error")

        def find(_value: None, _error: object) -> None:
            away.rename(directory)

        carrier.spool.writer.put(lose, None, find)
        transfer.write(b"y" * PIECE_BYTES)
        assert 452 == (await sender.result).reply.code
        transfer.write(b"z")
        transfer.finish()
        async with asyncio.timeout(20):
            while (await carrier.spool.totals())[State.RECEIVING].messages:
                pass

    with_spool(directory, act)
    assert b"" == body_in(directory)


def test_a_message_that_another_start_forgot_is_not_accepted(tmp_path: Path) -> None:
    """The process that delivers starts anew in the middle of a message of another one: 452."""

    async def act(carrier: SpoolCarrier) -> None:
        sender = Sender()
        transfer = carrier.begin(ENVELOPE, sender, origin=ORIGIN)
        transfer.write(b"x" * PIECE_BYTES)
        spool = carrier.spool
        await spool.totals()
        await spool.writer.call(spool.table.interrupted, None)
        transfer.finish()
        assert 452 == (await sender.result).reply.code

    with_spool(tmp_path, act)
    assert [] == rows_in(tmp_path)


def test_a_message_of_more_pieces_than_there_are_ids_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pieces would take the ids of the next message."""
    monkeypatch.setattr("sesguard.relay.spool.MAX_PIECES", 2)

    async def act(carrier: SpoolCarrier) -> int:
        return (await store(carrier, b"x" * PIECE_BYTES * 3)).code

    assert 552 == with_spool(tmp_path, act)


def test_two_processes_give_no_id_twice(tmp_path: Path) -> None:
    """Two queues on one database, with a clock that stands still."""

    async def act() -> set[str]:
        spools = [
            Spool(tmp_path, max_bytes=10**9, min_free_bytes=0, now=lambda: 1_795_000_000.0)
            for _ in range(2)
        ]
        carriers = [SpoolCarrier(spool, lambda: None) for spool in spools]
        replies = await asyncio.gather(*(store(carriers[n % 2]) for n in range(200)))
        for spool in spools:
            await spool.close()
        return {id_of(reply) for reply in replies}

    assert 200 == len(asyncio.run(act()))


@given(st.integers(0, 2**52 - 1).map(lambda time: time * MAX_PIECES))
def test_public_ids_are_read_back(message_id: int) -> None:
    """Each id has one text, which is read in capitals and small letters."""
    text = public_id(message_id)
    assert 11 == len(text)
    assert message_id == parse_public_id(text) == parse_public_id(text.lower())


@pytest.mark.parametrize("text", ["", "0", "0" * 12, "IIIIIIIIIII", "ZZZZZZZZZZZ", "../../etc/p"])
def test_what_is_no_public_id(text: str) -> None:
    """Other texts are no id, and no fault."""
    assert parse_public_id(text) is None


@given(st.lists(st.integers(0, 2**52 - 1), max_size=20))
def test_public_ids_sort_as_time_does(times: list[int]) -> None:
    """A list of ids in order is a list of messages in order."""
    ids = [time * MAX_PIECES for time in times]
    assert [public_id(each) for each in sorted(ids)] == sorted(public_id(each) for each in ids)

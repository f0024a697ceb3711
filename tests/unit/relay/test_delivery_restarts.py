"""Delivery after crashes and beside other processes, who wakes it, and what it may not starve."""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rigs.queue import (
    GREYLISTED,
    HOUR,
    Clock,
    Post,
    accepted,
    answers,
    open_post,
    paused_at_once,
    replied,
    store,
    to,
    with_post,
)
from sesguard.relay.delivery import DeliveryEvent, DeliveryLimits, Ending
from sesguard.relay.ledger import Ledger
from sesguard.relay.queue_desk import QueueDesk
from sesguard.relay.spool import Origin, ring
from sesguard.relay.spool_table import FILE_NAME, PIECE_BYTES


def test_a_lost_answer_is_a_possible_duplicate(tmp_path: Path) -> None:
    """It is sent again, and both events and the ledger say so."""

    async def act(post: Post) -> None:
        await store(post.intake)
        await post.settled(1)
        await post.pass_time(5)
        await post.settled(2)
        assert [(Ending.DEFERRED, True), (Ending.DELIVERED, True)] == [
            (event.outcome, event.possible_duplicate) for event in post.events
        ]

    with_post(tmp_path, act, answers(replied(451, "connection lost", uncertain=True), accepted()))
    [entry] = Ledger(tmp_path).recent(None, 10)
    assert entry.possible_duplicate


def test_what_was_being_sent_at_a_crash_is_a_possible_duplicate(tmp_path: Path) -> None:
    """A start reports it before it sends it again; what waited is no duplicate."""

    async def crash() -> None:
        post = open_post(tmp_path, answers(None), limits=DeliveryLimits(max_in_flight=1))
        await store(post.intake, envelope=to("first@example.net"))
        await post.until(lambda: post.carrier.carried)
        await store(post.intake, envelope=to("second@example.net"))
        await post.close()

    async def act(post: Post) -> None:
        recovered, *events = await post.settled(3)
        assert (Ending.RECOVERED, True, 0) == (
            recovered.outcome,
            recovered.possible_duplicate,
            recovered.attempts,
        )
        assert [recovered.public_id] == [e.public_id for e in events if e.possible_duplicate]
        assert {("first@example.net", True), ("second@example.net", False)} == set(
            zip(post.ids(), (event.possible_duplicate for event in events), strict=True)
        )

    asyncio.run(crash())
    with_post(tmp_path, act, limits=DeliveryLimits(max_in_flight=1))
    assert 2 == len(Ledger(tmp_path).recent(None, 10))


def test_a_crash_after_the_report_of_a_possible_duplicate_reports_it_again(tmp_path: Path) -> None:
    """It is reported while it still counts as being sent: at least once, whenever we die."""

    async def crash() -> None:
        post = open_post(tmp_path, answers(None))
        await store(post.intake)
        await post.until(lambda: post.carrier.carried)
        await post.close()

    async def die_when_told() -> None:
        post = open_post(tmp_path, starts=False)
        told = asyncio.Event()

        def tell(event: DeliveryEvent) -> None:
            assert Ending.RECOVERED is event.outcome
            told.set()
            raise ConnectionAbortedError

        post.deliverer._sink = tell
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        post.deliverer.start()
        await told.wait()
        assert ["sending"] == [row["state"] for row in await post.rows()]
        await post.close()

    async def act(post: Post) -> None:
        assert [Ending.RECOVERED, Ending.DELIVERED] == [e.outcome for e in await post.settled(2)]

    asyncio.run(crash())
    asyncio.run(die_when_told())
    with_post(tmp_path, act)


def test_an_orderly_stop_puts_back_what_was_not_finished(tmp_path: Path) -> None:
    """A message that had not gone out whole is aborted, and is no possible duplicate later."""

    async def stop() -> None:
        post = open_post(tmp_path)
        paused_at_once(post)
        await store(post.intake, b"x" * PIECE_BYTES * 2)
        await post.until(lambda: post.carrier.carried)
        await post.close()
        assert post.carrier.carried[0].is_aborted

    async def act(post: Post) -> None:
        [event] = await post.settled(1)
        assert (Ending.DELIVERED, False) == (event.outcome, event.possible_duplicate)

    asyncio.run(stop())
    with_post(tmp_path, act)


@pytest.mark.parametrize("timeout_s", [0.0, 5.0])
def test_a_claim_that_is_on_its_way_at_a_stop_is_put_back(tmp_path: Path, timeout_s: float) -> None:
    """Nothing of it is sent, and the next start takes none of it for a possible duplicate."""

    async def stop() -> None:
        post = open_post(tmp_path)
        await post.quiet()
        may_go = threading.Event()

        def keep_busy(_connection: Any, some: Sequence[None]) -> list[None]:
            assert may_go.wait(20)
            return [None] * len(some)

        post.intake.wake = lambda: None  # type: ignore[misc]
        await store(post.intake)
        post.spool.writer.put(keep_busy, None, lambda _value, _error: None)
        post.deliverer.wake()
        stop = asyncio.create_task(post.deliverer.stop(timeout_s=timeout_s))
        await asyncio.sleep(0)
        may_go.set()
        await stop
        assert [] == post.carrier.carried
        await post.close()

    async def act(post: Post) -> None:
        [event] = await post.settled(1)
        assert (Ending.DELIVERED, False) == (event.outcome, event.possible_duplicate)

    asyncio.run(stop())
    with_post(tmp_path, act)


def test_one_process_delivers_at_a_time(tmp_path: Path) -> None:
    """A second one takes over when the first has stopped, and nothing is sent twice."""
    limits = DeliveryLimits(poll_s=0.02)

    async def act() -> None:
        first = open_post(tmp_path, answers(None), limits=limits)
        await store(first.intake)
        await first.until(lambda: first.carrier.carried)
        second = open_post(tmp_path, limits=limits)
        await asyncio.sleep(0.1)
        await second.quiet()
        assert [] == second.carrier.carried
        first.carrier.carried[0].listener.transfer_done(accepted())
        await first.settled(1)
        await first.deliverer.stop(timeout_s=1)
        await store(first.intake)
        await second.settled(1)
        for post in (first, second):
            await post.close()
        assert (1, 1) == (len(first.carrier.carried), len(second.carrier.carried))

    asyncio.run(act())


def test_another_process_rings_the_bell(tmp_path: Path) -> None:
    """What another one has queued goes out without waiting for the poll."""

    async def act() -> None:
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        post = open_post(tmp_path, starts=False, limits=DeliveryLimits(poll_s=600))
        post.deliverer.start(bell)
        other = open_post(tmp_path, starts=False)
        other.intake.wake = lambda: ring(bell)  # type: ignore[misc]
        await post.quiet()
        await store(other.intake)
        await post.settled(1)
        ring(bell)
        ring(bell)
        await post.close()
        await other.close()
        os.close(bell)

    asyncio.run(act())


def test_the_poll_finds_what_nobody_told_of(tmp_path: Path) -> None:
    """As after `sesguard queue release`, which only writes the database."""

    async def act() -> None:
        post = open_post(tmp_path, limits=DeliveryLimits(poll_s=0.05))
        await post.quiet()
        other = open_post(tmp_path, starts=False)
        other.intake.wake = lambda: None  # type: ignore[misc]
        await store(other.intake)
        await post.settled(1)
        await post.close()
        await other.close()

    asyncio.run(act())


def test_no_more_is_in_flight_than_may_be(tmp_path: Path) -> None:
    """The rest waits in the queue, not in memory."""

    async def act(post: Post) -> None:
        for number in range(10):
            await store(post.intake, envelope=to(f"{number}@example.net"))
        await post.until(lambda: len(post.carrier.carried) == 3)
        await post.quiet()
        assert 3 == len(post.carrier.carried)
        states = [row["state"] for row in await post.rows()]
        assert (3, 7) == (states.count("sending"), states.count("queued"))
        post.carrier.script = answers(accepted())
        for carried in list(post.carrier.carried):
            carried.listener.transfer_done(accepted())
        await post.settled(10)
        assert [f"{number}@example.net" for number in range(10)] == post.ids()

    with_post(tmp_path, act, answers(None), limits=DeliveryLimits(max_in_flight=3))


def test_no_credential_starves_another(tmp_path: Path) -> None:
    """One with a long queue leaves half of the places to the other."""

    async def act() -> None:
        post = open_post(
            tmp_path, answers(None), limits=DeliveryLimits(max_in_flight=4), starts=False
        )
        for number in range(10):
            await store(post.intake, envelope=to(f"{number}@a.example"), origin=_of("a"))
        for number in range(2):
            await store(post.intake, envelope=to(f"{number}@b.example"), origin=_of("b"))
        post.deliverer.start()
        await post.until(lambda: len(post.carrier.carried) == 4)
        assert ["0@a.example", "1@a.example", "0@b.example", "1@b.example"] == post.ids()
        await post.close()

    asyncio.run(act())


def test_a_database_that_cannot_be_written_stops_delivery_and_loses_nothing(
    tmp_path: Path,
) -> None:
    """What SES took is written down once that works again; it is not sent a second time."""
    directory, away = tmp_path / "q", tmp_path / "away"

    async def act(post: Post) -> None:
        await store(post.intake)
        await post.until(lambda: post.carrier.carried)

        def lose(*_arguments: object) -> list[None]:
            directory.rename(away)
            raise OSError(5, "Input/output error")

        post.spool.writer.put(lose, None, lambda _value, _error: None)
        post.carrier.carried[0].listener.transfer_done(accepted())
        await post.until(away.exists)
        assert [] == post.events
        away.rename(directory)
        [event] = await post.settled(1)
        assert (Ending.DELIVERED, False) == (event.outcome, event.possible_duplicate)
        assert 1 == len(post.carrier.carried)
        assert [] == await post.rows()

    with_post(directory, act, answers(None))


DAMAGES = {
    "no first piece": "DELETE FROM bodies WHERE id % 2048 = 0",
    "no later piece": "DELETE FROM bodies WHERE id % 2048 = 1",
    "envelope": "UPDATE messages SET envelope = substr(envelope, 1, 30)",
}


def spoil(directory: Path, statement: str) -> None:
    """Damage the messages of a queue that nobody uses."""
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_message_that_cannot_be_read_is_held(tmp_path: Path, damage: str) -> None:
    """It is reported once, not sent in part, and keeps no other from being sent."""

    async def fill(post: Post) -> None:
        await store(post.intake, b"x" * PIECE_BYTES * 3)

    async def act(post: Post) -> None:
        await store(post.intake, envelope=to("good@example.net"))
        await post.settled(2)
        for _ in range(3):
            await post.pass_time(49 * HOUR)
        endings = {event.outcome: event for event in post.events}
        assert {Ending.HELD, Ending.DELIVERED} == set(endings)
        assert 2 == len(post.events)
        assert "a part of it cannot be read" == endings[Ending.HELD].reason
        assert 1 == sum(carried.is_finished for carried in post.carrier.carried)
        [row] = await post.rows()
        assert ("held", "a part of it cannot be read") == (row["state"], row["hold_reason"])

    with_post(tmp_path, fill, starts=False)
    spoil(tmp_path, DAMAGES[damage])
    with_post(tmp_path, act)
    [entry] = QueueDesk(tmp_path).list_messages()
    assert "a part of it cannot be read" == entry.hold_reason


def test_mail_is_not_given_up_right_after_a_start(tmp_path: Path) -> None:
    """After days without a daemon everything is tried; it bounces when it fails later too."""
    clock = Clock()

    async def receive(post: Post) -> None:
        await store(post.intake)

    async def act(post: Post) -> None:
        await post.settled(1)
        assert Ending.DEFERRED is post.events[0].outcome
        await post.pass_time(1200)
        await post.settled(2)
        assert Ending.BOUNCED is post.events[1].outcome

    with_post(tmp_path, receive, clock=clock, starts=False)
    clock.at += 72 * HOUR
    with_post(tmp_path, act, answers(GREYLISTED), clock=clock)


@pytest.mark.parametrize("other", [Origin("web", 1002, "main"), Origin("shop", 1001, "second")])
def test_who_waits_for_longest_is_next(tmp_path: Path, other: Origin) -> None:
    """Also where one place at a time becomes free, and another app or credential has much mail."""

    async def act() -> None:
        post = open_post(
            tmp_path, answers(accepted()), limits=DeliveryLimits(max_in_flight=1), starts=False
        )
        for number in range(10):
            await store(post.intake, envelope=to(f"{number}@a.example"), origin=_of("main"))
        for number in range(2):
            await store(post.intake, envelope=to(f"{number}@b.example"), origin=other)
        post.deliverer.start()
        await post.settled(12)
        expected = ["0@a.example", "0@b.example", "1@a.example", "1@b.example", "2@a.example"]
        assert expected == post.ids()[:5]
        await post.close()

    asyncio.run(act())


def test_a_suspended_app_with_much_mail_delays_no_other(tmp_path: Path) -> None:
    """Its mail is not moved about meanwhile: at most one claim of it in half a minute."""
    asked: list[str] = []

    def may_send(app: str) -> bool:
        asked.append(app)
        return app != "shop"

    async def act() -> None:
        limits = DeliveryLimits(max_in_flight=2)
        post = open_post(tmp_path, limits=limits, starts=False, may_send=may_send)
        for _ in range(20):
            await store(post.intake)
        await store(post.intake, envelope=to("b@example.net"), origin=Origin("blog", 1, "main"))
        post.deliverer.start()
        await post.settled(1)
        for _ in range(5):
            await post.pass_time(5)
        assert 1 <= asked.count("shop") <= 2
        await post.pass_time(10)
        assert 3 <= asked.count("shop") <= 4
        await post.close()

    asyncio.run(act())


def _of(credential_id: str) -> Origin:
    return Origin("shop", 1001, credential_id)


def test_mail_of_a_suspended_app_stays_until_it_may_send_again(tmp_path: Path) -> None:
    """It counts no attempt, bounces never, and goes out within 30 s; other apps are not delayed."""
    suspended = {"shop"}

    async def act(post: Post) -> None:
        await store(post.intake, envelope=to("a@example.net"))
        await store(post.intake, envelope=to("b@example.net"), origin=Origin("blog", 1002, "main"))
        await post.settled(1)
        await post.pass_time(49 * HOUR)
        assert [("b@example.net",)] == [each.envelope.addresses for each in post.carrier.carried]
        suspended.clear()
        await post.pass_time(30)
        await post.settled(2)
        assert ("a@example.net",) == post.carrier.carried[-1].envelope.addresses
        assert 1 == post.events[-1].attempts

    with_post(tmp_path, act, may_send=lambda app: app not in suspended)

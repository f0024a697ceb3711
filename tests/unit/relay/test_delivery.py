"""Delivery from the queue: outcomes, retries, bounces."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rigs.queue import (
    BODY,
    GREYLISTED,
    HOUR,
    ORIGIN,
    Carried,
    Post,
    accepted,
    answers,
    id_of,
    open_post,
    paused_at_once,
    replied,
    store,
    to,
    with_post,
)
from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.relay.delivery import Ending
from sesguard.relay.ledger import Ledger
from sesguard.relay.spool_table import PIECE_BYTES
from sesguard.upstream.interface import Result

REJECTED = replied(554, "Message rejected: it is not wanted")


def test_a_message_is_delivered_at_once_and_leaves_the_queue(tmp_path: Path) -> None:
    """As it came in, with credential and app; event and ledger name it by both ids."""

    async def act(post: Post) -> str:
        reply = await store(post.intake)
        [event] = await post.settled(1)
        [carried] = post.carrier.carried
        assert (BODY, "main", "shop") == (
            bytes(carried.data),
            carried.credential_id,
            carried.app,
        )
        assert (Ending.DELIVERED, 1, 1) == (event.outcome, event.recipients, event.attempts)
        assert (id_of(reply), "0100018f00000000-aaaa-000000") == (
            event.public_id,
            event.ses_message_id,
        )
        assert not event.possible_duplicate
        assert [] == await post.rows()
        assert [] == await post.rows("SELECT * FROM bodies")
        return event.public_id

    spool_id = with_post(tmp_path, act)
    entry = Ledger(tmp_path).find("0100018f00000000-aaaa-000000")
    assert entry is not None
    assert (spool_id, "shop", 1001, "delivered") == (
        entry.spool_id,
        entry.app,
        entry.uid,
        entry.outcome,
    )


@pytest.mark.parametrize("size", [0, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 17])
def test_a_message_of_any_size_goes_out_whole(tmp_path: Path, size: int) -> None:
    """Piece by piece."""
    data = bytes(number % 241 for number in range(size))

    async def act(post: Post) -> bytes:
        await store(post.intake, data)
        await post.settled(1)
        return bytes(post.carrier.carried[0].data)

    assert data == with_post(tmp_path, act)


def test_a_slow_upstream_is_not_overrun(tmp_path: Path) -> None:
    """After `pause_transfer` at most the piece comes that was being read."""

    async def act(post: Post) -> None:
        paused_at_once(post)
        await store(post.intake, b"x" * PIECE_BYTES * 3)
        await post.until(lambda: post.carrier.carried)
        await post.quiet()
        [carried] = post.carrier.carried
        assert PIECE_BYTES == len(carried.data)
        carried.listener.resume_transfer()
        carried.listener.pause_transfer()
        await post.quiet()
        assert PIECE_BYTES * 2 == len(carried.data)
        carried.listener.resume_transfer()
        [event] = await post.settled(1)
        assert (Ending.DELIVERED, PIECE_BYTES * 3) == (event.outcome, len(carried.data))

    with_post(tmp_path, act)


def test_a_result_before_the_end_of_the_message(tmp_path: Path) -> None:
    """The rest is not read, and the message is tried again."""

    async def act(post: Post) -> None:
        paused_at_once(post)
        await store(post.intake, b"x" * PIECE_BYTES * 3)
        await post.until(lambda: post.carrier.carried)
        post.carrier.carried[0].listener.transfer_done(GREYLISTED)
        [event] = await post.settled(1)
        assert (Ending.DEFERRED, PIECE_BYTES) == (
            event.outcome,
            len(post.carrier.carried[0].data),
        )
        del post.carrier.begin
        await post.pass_time(5)
        assert Ending.DELIVERED is (await post.settled(2))[1].outcome

    with_post(tmp_path, act)


def test_retries_follow_the_advice_of_ses(tmp_path: Path) -> None:
    """After 5 s, 10 s, 30 s, then 20 min; the mail is not sent a moment before."""

    async def act(post: Post) -> None:
        await store(post.intake)
        await post.settled(1)
        for tries, delay_s in enumerate((5, 10, 30, 1200, 1200), 1):
            await post.pass_time(delay_s - 1)
            assert tries == len(post.carrier.carried)
            await post.pass_time(1)
            await post.settled(tries + 1)
            assert tries + 1 == len(post.carrier.carried)
        assert [1, 2, 3, 4, 5, 6] == [event.attempts for event in post.events]
        [row] = await post.rows()
        assert "451 4.7.1 try again later" == row["last_reply"]

    with_post(tmp_path, act, answers(GREYLISTED))


def test_what_is_given_up_bounces_once(tmp_path: Path) -> None:
    """After `bounce_after_s` its sender is told, from its own address, and it is gone."""

    def script(carried: Carried) -> Result:
        return accepted() if carried.is_notice else GREYLISTED

    async def act(post: Post) -> None:
        await store(post.intake, b"Subject: order\r\nX: 1\r\n.hidden: 2\r\n\r\nbody\r\n")
        await post.settled(1)
        await post.pass_time(48 * HOUR)
        await post.settled(3)
        endings = [event.outcome for event in post.events]
        assert [Ending.DEFERRED, Ending.BOUNCED, Ending.DELIVERED] == endings
        bounce = post.carrier.carried[-1]
        told = (Recipient("shop@example.com", frozenset({Notify.NEVER})),)
        assert Envelope("shop@example.com", told) == bounce.envelope
        assert ORIGIN.credential_id == bounce.credential_id
        assert b"Subject: expired True" in bounce.data
        assert b"customer@example.net: 451 4.7.1 try again later" in bounce.data
        assert b"\r\nhidden: 2\r\n" in bounce.data
        assert b"body" not in bounce.data
        assert [] == await post.rows()

    with_post(tmp_path, act, script)


def test_what_ses_refuses_bounces_at_once(tmp_path: Path) -> None:
    """A 5xx about the message is not tried again; lines of the bounce keep their dots."""

    def script(carried: Carried) -> Result:
        return accepted() if carried.is_notice else REJECTED

    def bounce(*_arguments: Any, reason_expired: bool, **_options: Any) -> bytes:
        assert not reason_expired
        return b".first\r\n..second\r\n"

    async def act(post: Post) -> None:
        await store(post.intake)
        await post.settled(2)
        assert [Ending.BOUNCED, Ending.DELIVERED] == [event.outcome for event in post.events]
        assert b"..first\r\n...second\r\n" == bytes(post.carrier.carried[1].data)

    with_post(tmp_path, act, script, bounce=bounce)


@pytest.mark.parametrize("sender", ["", "shop@example.com"])
def test_a_bounce_is_never_made_for_a_bounce_or_where_none_is_wanted(
    tmp_path: Path, sender: str
) -> None:
    """The message is dropped, with an event and a row in the ledger."""

    async def act(post: Post) -> None:
        await store(post.intake, envelope=to("a@example.net", sender=sender))
        [event] = await post.settled(1)
        assert (Ending.DROPPED, sender) == (event.outcome, event.sender)
        assert [] == await post.rows()

    with_post(tmp_path, act, answers(REJECTED), bounce=lambda *_a, **_o: None)
    [entry] = Ledger(tmp_path).recent("shop", 10)
    assert "dropped" == entry.outcome


@pytest.mark.parametrize("ending", ["refused", "too old"])
def test_a_bounce_that_fails_is_dropped(tmp_path: Path, ending: str) -> None:
    """Although it has a sender; a restart in between does not change that."""
    failing = REJECTED if ending == "refused" else GREYLISTED

    def script(carried: Carried) -> Result:
        return failing if carried.is_notice else REJECTED

    async def refuse(post: Post) -> None:
        await store(post.intake)
        await post.settled(2)

    async def act(post: Post) -> None:
        await post.pass_time(49 * HOUR)
        [event] = await post.settled(1)
        await post.quiet()
        assert Ending.DROPPED is event.outcome
        assert [] == await post.rows()

    with_post(tmp_path, refuse, script)
    if ending == "too old":
        with_post(tmp_path, act, script)
    entries = Ledger(tmp_path).recent("shop", 10)
    assert {"bounced", "dropped"} == {entry.outcome for entry in entries}
    assert 2 == len(entries)


def test_a_sender_who_asked_hears_of_success(tmp_path: Path) -> None:
    """NOTIFY=SUCCESS: a receipt for the recipients that it was asked for."""

    def receipt(_envelope: Envelope, header: bytes, replies: Any, **_times: float) -> bytes:
        return header + b"\r\n" + ",".join(replies).encode() + b"\r\n"

    async def act() -> None:
        post = open_post(tmp_path, receipt=receipt)
        wanted = Recipient("a@example.net", frozenset({Notify.SUCCESS}))
        envelope = Envelope("shop@example.com", (wanted, Recipient("b@example.net")))
        await store(post.intake, envelope=envelope)
        await post.settled(2)
        assert ["a@example.net,b@example.net", "shop@example.com"] == post.ids()
        told = post.carrier.carried[1]
        assert ("shop@example.com", b"Subject: order\r\n\r\na@example.net\r\n") == (
            told.envelope.sender,
            bytes(told.data),
        )
        await post.close()

    asyncio.run(act())


def test_recipients_fare_each_by_its_own_reply(tmp_path: Path) -> None:
    """One is delivered, one bounces, one is tried again, alone."""
    mixed = Result(
        accepted().reply,
        {
            "bad@example.net": replied(553, "address unknown").reply,
            "slow@example.net": replied(450, "mailbox busy").reply,
        },
        host="h",
    )

    def script(carried: Carried) -> Result:
        return mixed if len(carried.envelope.recipients) == 3 else accepted()

    async def act(post: Post) -> None:
        addresses = ("good@example.net", "bad@example.net", "slow@example.net")
        await store(post.intake, envelope=to(*addresses))
        await post.settled(4)
        await post.pass_time(5)
        await post.settled(5)
        assert [
            (Ending.DELIVERED, 1, None),
            (Ending.BOUNCED, 1, None),
            (Ending.DEFERRED, 1, None),
            (Ending.DELIVERED, 1, None),
            (Ending.DELIVERED, 1, None),
        ] == [(event.outcome, event.recipients, None) for event in post.events]
        assert [",".join(addresses), "shop@example.com", "slow@example.net"] == post.ids()

    with_post(tmp_path, act, script)

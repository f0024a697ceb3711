"""The pool against a peer that refuses, breaks off, stalls or lies."""

import asyncio
import ssl
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from rigs.async_peer import Act, Listener, running_peer
from rigs.pool import (
    HASTY,
    LARGE,
    LOCK_STEP,
    MESSAGE,
    QUICK,
    RECIPIENT,
    at,
    envelope,
    pool_to,
    run_on,
    send,
)
from rigs.smtp_peer import Conversation, Peer, server_context
from sesguard.core.endpoints import Endpoint
from sesguard.upstream.replies import Outcome

BOTH_WAYS = pytest.mark.parametrize("features", [("PIPELINING",), LOCK_STEP])
IMPATIENT = replace(QUICK, session_s=0.3, reply_s=0.3, data_s=0.3, final_s=0.3)
OTHER = "other@example.net"


@pytest.mark.parametrize(
    ("stage", "reply", "outcome"),
    [
        ("CONNECT", "421 Too many concurrent SMTP connections", Outcome.THROTTLED),
        ("CONNECT", "554 go away", Outcome.TEMPORARY),
        ("CONNECT", "HTTP/1.1 400 Bad Request", Outcome.TEMPORARY),
        ("EHLO", "451 Temporary service failure", Outcome.TEMPORARY),
        ("EHLO", "250 nothing offered", Outcome.TEMPORARY),
        ("STAR", "454 no TLS now", Outcome.TEMPORARY),
        ("AUTH", "454 Temporary authentication failure", Outcome.TEMPORARY),
        ("AUTH", "334 ", Outcome.TEMPORARY),
        ("AUTH", "535 Authentication Credentials Invalid", Outcome.AUTH_REFUSED),
        ("MAIL", "454 Throttling failure: Maximum sending rate exceeded", Outcome.THROTTLED),
        ("MAIL", "451 Temporary service failure", Outcome.TEMPORARY),
        ("MAIL", "421 Too many concurrent SMTP connections", Outcome.THROTTLED),
        ("MAIL", "501 Invalid MAIL FROM address provided", Outcome.BAD_ADDRESS),
        ("RCPT", "553 <x> Invalid email address", Outcome.BAD_ADDRESS),
        ("RCPT", "421 closing", Outcome.TEMPORARY),
        ("DATA", "451 Temporary service failure", Outcome.TEMPORARY),
        ("DATA", "250 what", Outcome.ACCEPTED),
        ("TEXT", "454 Throttling failure: Daily message quota exceeded", Outcome.THROTTLED),
        ("TEXT", "554 Access denied: User `x' is not authorized", Outcome.DENIED),
        ("TEXT", "554 Message rejected: Email address is not verified.", Outcome.UNVERIFIED),
        ("TEXT", "554 Message rejected: Sending paused for this account.", Outcome.PAUSED),
        ("TEXT", "552 Message is too long.", Outcome.TOO_LARGE),
        ("TEXT", "421 closing", Outcome.TEMPORARY),
        ("TEXT", "garbage", Outcome.TEMPORARY),
    ],
)
@BOTH_WAYS
def test_every_refusal_is_a_result(
    server_tls: ssl.SSLContext,
    ca_file: Path,
    features: tuple[str, ...],
    stage: str,
    reply: str,
    outcome: Outcome,
) -> None:
    """Nothing arrives, the outcome is told, and the next message is sent."""
    if (stage, reply) == ("DATA", "250 what"):
        outcome = Outcome.TEMPORARY

    async def main() -> None:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file, timeouts=HASTY) as pool,
        ):
            peer.say_next(stage, reply)
            result = await send(pool)
            assert outcome is result.reply.outcome, result
            assert (stage, reply) == ("TEXT", "garbage") or not result.uncertain
            assert [] == peer.mails
            await _sent_again(pool)
            assert 1 == len(peer.mails)

    run_on("uvloop")(main())


async def _sent_again(pool: Any) -> None:
    async with asyncio.timeout(10):
        while (await send(pool)).reply.code != 250:  # noqa: ASYNC110 - the pool has no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("act", [Act.DROP, Act.STALL])
@pytest.mark.parametrize(
    "stage", ["CONNECT", "EHLO", "STAR", "AUTH", "MAIL", "RCPT", "DATA", "DURING", "TEXT"]
)
def test_a_peer_that_breaks_off_or_stalls(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path, stage: str, act: Act
) -> None:
    """The mail is kept; it is uncertain only where the whole message was out."""

    async def main() -> None:
        timeouts = replace(IMPATIENT, connect_rest_s=0.05)
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, timeouts=timeouts) as pool,
        ):
            # What dies at its first command is replaced once.
            peer.say_next(stage, *[act] * (2 if stage == "MAIL" else 1))
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            if stage == "DURING":
                transfer.write(LARGE)
            else:
                transfer.write(MESSAGE)
                transfer.finish()
            if (stage, act) == ("DURING", Act.STALL):
                pieces = [b"x" * 998 + b"\r\n"] * 8000
                await listener.write_all(transfer, pieces)
            result = await listener.result()
            assert (451, Outcome.TEMPORARY) == (result.reply.code, result.reply.outcome)
            assert (stage == "TEXT") is result.uncertain
            assert [] == peer.mails
            await _sent_again(pool)

    run(main())


@BOTH_WAYS
def test_one_refused_recipient_ends_the_whole(
    server_tls: ssl.SSLContext, ca_file: Path, features: tuple[str, ...]
) -> None:
    """All or none: nothing is sent, the refusal names its recipient, the session goes on."""

    async def main() -> None:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=1) as pool,
        ):
            peer.say_next("RCPT", "250 Ok", "553 no such user")
            result = await send(pool, RECIPIENT, OTHER)
            assert (553, [OTHER]) == (result.reply.code, list(result.refused))
            assert 250 == (await send(pool)).reply.code
        assert (1, 1) == (peer.connections, len(peer.mails))
        assert "RSET" in peer.heard

    run_on("uvloop")(main())


@BOTH_WAYS
def test_partial_goes_to_the_others(
    server_tls: ssl.SSLContext, ca_file: Path, features: tuple[str, ...]
) -> None:
    """Who was refused is told beside the reply to the message."""

    async def main() -> None:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            peer.say_next("RCPT", "553 no such user")
            some = await send(pool, OTHER, RECIPIENT, partial=True)
            peer.say_next("RCPT", "553 no", "451 later")
            none = await send(pool, OTHER, RECIPIENT, partial=True)
        assert (250, [OTHER]) == (some.reply.code, list(some.refused))
        assert (553, [OTHER, RECIPIENT]) == (none.reply.code, list(none.refused))
        assert [(RECIPIENT,)] == [mail.recipients for mail in peer.mails]

    run_on("uvloop")(main())


@pytest.mark.parametrize("refused", ["MAIL", "RCPT"])
def test_354_to_a_message_that_must_not_go(
    server_tls: ssl.SSLContext, ca_file: Path, refused: str
) -> None:
    """A peer that opens DATA all the same gets no text: the session ends."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next(refused, "550 no")
            peer.say_next("DATA", "354 go ahead")
            assert 550 == (await send(pool)).reply.code
            assert 250 == (await send(pool)).reply.code
        assert (2, 1) == (peer.connections, len(peer.mails))

    run_on("uvloop")(main())


@pytest.mark.parametrize("how", ["drop", "421", "timeout"])
def test_a_dead_session_is_replaced_unnoticed(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path, how: str
) -> None:
    """A used session that died before 354 costs the message nothing."""
    replies: dict[str, str | Act] = {
        "drop": Act.DROP,
        "421": "421 idle for too long",
        "timeout": Act.STALL,
    }

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, timeouts=replace(QUICK, reply_s=0.3)) as pool,
        ):
            assert 250 == (await send(pool)).reply.code
            peer.say_next("MAIL", replies[how])
            assert 250 == (await send(pool)).reply.code
        assert (2, 2) == (peer.connections, len(peer.mails))

    run(main())


def test_it_is_replaced_once_only(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """When the fresh session breaks too, the mail is kept."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            await send(pool)
            peer.say_next("MAIL", Act.DROP, Act.DROP)
            result = await send(pool)
            assert (451, False) == (result.reply.code, result.uncertain)
        assert 1 == len(peer.mails)

    run_on("uvloop")(main())


def test_idle_sessions_that_were_closed_are_not_used(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A peer that restarts costs nothing."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            await asyncio.gather(*(send(pool) for _ in range(5)))
            peer.drop_all()
            results = await asyncio.gather(*(send(pool) for _ in range(5)))
            assert {250} == {result.reply.code for result in results}

    run(main())


def test_an_early_refusal_of_the_text(run: Any, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """What the peer says in the middle of the text is the result, before it is finished."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next("DURING", "552 Message is too long.")
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            transfer.write(LARGE)
            assert Outcome.TOO_LARGE is (await listener.result()).reply.outcome
            transfer.write(MESSAGE)
            transfer.finish()
            assert 250 == (await send(pool)).reply.code
        assert 1 == len(peer.mails)

    run(main())


@pytest.mark.parametrize("reply", ["250 Ok\r\n250 Ok more", "250 Ok\r\n354 go\r\n250 Ok 12345678"])
def test_replies_that_are_not_due_count_for_nothing(
    server_tls: ssl.SSLContext, ca_file: Path, reply: str
) -> None:
    """They are not taken for the replies to the next message: the session ends."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next("TEXT", reply)
            first = asyncio.create_task(send(pool))
            second = asyncio.create_task(send(pool))
            assert {250} == {(await first).reply.code, (await second).reply.code}
            assert 250 == (await send(pool)).reply.code
        assert 3 == len(peer.mails)

    run_on("uvloop")(main())


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "STAR", "AUTH", "MAIL", "TEXT"])
def test_a_reply_without_an_end(server_tls: ssl.SSLContext, ca_file: Path, stage: str) -> None:
    """64 KiB are enough; the peer is cut off."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next(stage, "250-" + "x" * 70_000)
            assert 451 == (await send(pool)).reply.code

    run_on("uvloop")(main())


def test_replies_injected_before_tls(
    peer: Callable[..., Peer], server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """More than the one reply to STARTTLS ends the session (CVE-2011-0411)."""

    def script(talk: Conversation) -> None:
        talk.say("220 ready")
        talk.hear()
        talk.say("250-peer", "250 STARTTLS")
        talk.hear()
        talk.say("220 go ahead", "250-peer", "250 AUTH PLAIN")
        talk.wait_for_end()

    async def main() -> None:
        scripted = peer(script)
        async with pool_to(Endpoint("127.0.0.1", scripted.port), ca_file=ca_file) as pool:
            result = await send(pool)
        assert "does not answer as an SMTP server does" in result.reply.text

    run_on("uvloop")(main())


def _expired(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.now(UTC) - timedelta(days=1)
    authority.issue_cert("127.0.0.1", not_after=past).configure_cert(context)
    return context


@pytest.mark.parametrize("kind", ["wrong name", "unknown CA", "expired", "no STARTTLS"])
def test_without_verified_tls_nothing_is_said(
    run: Any, authority: trustme.CA, ca_file: Path, kind: str
) -> None:
    """Neither AUTH nor a message goes out; the mail is kept."""
    contexts = {
        "wrong name": lambda: server_context(authority, "mail.example.org"),
        "unknown CA": lambda: server_context(trustme.CA(), "127.0.0.1"),
        "expired": lambda: _expired(authority),
        "no STARTTLS": lambda: server_context(authority, "127.0.0.1"),
    }

    async def main() -> None:
        async with (
            running_peer(contexts[kind]()) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            if kind == "no STARTTLS":
                peer.say_next("EHLO", "250-peer\r\n250 AUTH PLAIN")
            result = await send(pool)
        assert (451, Outcome.TEMPORARY) == (result.reply.code, result.reply.outcome)
        assert result.reply.text.startswith("4.7.0 ")
        assert {"EHLO", "STAR"} >= {line[:4] for line in peer.heard}

    run(main())


def test_tls_older_than_1_2_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """A peer that speaks TLS 1.1 at best gets no AUTH."""
    context = server_context(authority, "127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    async def main() -> None:
        async with running_peer(context) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            assert 451 == (await send(pool)).reply.code
        assert "AUTH" not in peer.heard

    run_on("uvloop")(main())


def test_a_ca_file_that_is_not_there(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    """It is a fault of the settings: the mail is kept and the text names the file."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=tmp_path / "none.pem") as pool,
        ):
            assert "none.pem" in (await send(pool)).reply.text

    run_on("uvloop")(main())

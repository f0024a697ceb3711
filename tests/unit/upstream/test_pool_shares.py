"""Clients that send slowly, and apps that send much: what is left for the others."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigs.async_peer import AsyncPeer, Listener, running_peer, until
from rigs.pool import LARGE, MESSAGE, QUICK, at, envelope, pool_to, run_on, send
from sesguard.upstream.interface import Transfer
from sesguard.upstream.pace import FLOOR_BYTES_S, Pace
from sesguard.upstream.pool import UpstreamPool


def begun(pool: UpstreamPool, text: bytes, app: str = "slow") -> tuple[Transfer, Listener]:
    """A message that is not complete yet."""
    listener = Listener()
    transfer = pool.begin(envelope(), listener, app=app)
    transfer.write(text)
    return transfer, listener


def texts_under_way(peer: AsyncPeer) -> int:
    """How many sessions wait for text."""
    return peer.heard.count("DATA") - len(peer.mails)


def test_a_small_beginning_holds_no_session(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Clients that stop after a header keep nobody waiting, and may still finish."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=1) as pool,
        ):
            slow = [begun(pool, MESSAGE) for _ in range(20)]
            assert 250 == (await send(pool)).reply.code
            assert ["DATA"] == [line for line in peer.heard if line == "DATA"]
            for transfer, _ in slow:
                transfer.finish()
            assert {250} == {(await listener.result()).reply.code for _, listener in slow}

    run(main())


def test_one_app_cannot_hold_every_session(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Large messages that are not complete have half of the sessions, however many they are."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=4) as pool,
        ):
            slow = [begun(pool, LARGE) for _ in range(10)]
            await until(lambda: texts_under_way(peer) == 2)
            results = await asyncio.gather(
                *(send(pool, message=LARGE, app="shop") for _ in range(4)),
                *(send(pool, app="slow") for _ in range(4)),
            )
            assert {250} == {result.reply.code for result in results}
            other, heard = begun(pool, LARGE, "blog")
            await until(lambda: texts_under_way(peer) == 3)
            for transfer, _ in [*slow, (other, heard)]:
                transfer.finish()
            codes = {(await listener.result()).reply.code for _, listener in slow}
            assert {250} == {*codes, (await heard.result()).reply.code}
        assert peer.most_open <= 4

    run(main())


def test_a_message_that_waited_for_its_share_goes_when_it_is_complete(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A complete message takes an idle session, whatever else its app holds."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=2) as pool,
        ):
            begun(pool, LARGE)
            await until(lambda: texts_under_way(peer) == 1)
            transfer, listener = begun(pool, LARGE)
            assert 250 == (await send(pool)).reply.code
            await until(lambda: pool.waiting == 1)
            transfer.finish()
            assert 250 == (await listener.result()).reply.code
        assert 2 == peer.connections

    run_on("uvloop")(main())


def test_each_app_has_its_turn(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """An app with many messages in the line is not served before one with a single message."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=1) as pool,
        ):
            many = [
                asyncio.create_task(send(pool, app="many", sender=f"{number}@example.com"))
                for number in range(20)
            ]
            await until(lambda: pool.waiting == 20)
            one = asyncio.create_task(send(pool, app="one", sender="one@example.com"))
            assert {250} == {(await task).reply.code for task in [*many, one]}
        senders = [mail.sender for mail in peer.mails]
        assert senders.index("one@example.com") <= 2
        assert [f"{n}@example.com" for n in range(20)] == [s for s in senders if s[0] != "o"]

    run_on("uvloop")(main())


def test_a_slow_client_is_cut_while_others_wait(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """It hears 451 4.4.2, nothing of its message is taken, and its session is dropped."""

    async def main() -> None:
        timeouts = replace(QUICK, lag_s=0.2)
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=1, timeouts=timeouts) as pool,
        ):
            transfer, listener = begun(pool, LARGE)
            await until(lambda: texts_under_way(peer) == 1)
            assert 250 == (await send(pool, app="shop")).reply.code
            result = await listener.result()
            transfer.finish()
            assert (451, False) == (result.reply.code, result.uncertain)
            assert result.reply.text.startswith("4.4.2 ")
        assert (2, [MESSAGE]) == (peer.connections, [mail.content for mail in peer.mails])

    run(main())


def test_a_silent_client_is_cut_in_any_case(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A session is not held for a client that has stopped, although nobody waits for it."""

    async def main() -> None:
        timeouts = replace(QUICK, silence_s=0.2)
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, timeouts=timeouts) as pool,
        ):
            _, listener = begun(pool, LARGE)
            reply = (await listener.result()).reply
            assert (451, "4.4.2") == (reply.code, reply.text[:5])
            await until(lambda: peer.open_now == 0)
        assert [] == peer.mails

    run_on("uvloop")(main())


def test_a_slow_upstream_is_not_the_clients_fault(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A client that is paused, because the upstream does not read, is not cut."""

    async def main() -> None:
        timeouts = replace(QUICK, lag_s=0.1, silence_s=0.1)
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_connections=1, timeouts=timeouts) as pool,
        ):
            peer.gate.clear()
            transfer, listener = begun(pool, LARGE)
            pieces = [b"x" * 998 + b"\r\n"] * 12_000
            writing = asyncio.create_task(listener.write_all(transfer, pieces))
            await until(lambda: texts_under_way(peer) == 1 and listener.is_paused)
            waits = asyncio.create_task(send(pool, app="shop"))
            await asyncio.sleep(0.5)
            assert [] == listener.results
            peer.gate.set()
            await writing
            transfer.finish()
            assert (250, 250) == ((await listener.result()).reply.code, (await waits).reply.code)

    run_on("uvloop")(main())


@pytest.mark.parametrize(
    ("octets_a_second", "silent", "behind"),
    [(0, True, True), (1, False, True), (FLOOR_BYTES_S // 2, False, True), (2**16, False, False)],
)
def test_the_pace_of_a_client(octets_a_second: int, silent: bool, behind: bool) -> None:
    """Below the floor a client is behind, and silent only when nothing comes at all."""
    pace = Pace(0.0, 0)
    for second in range(1, 61):
        pace.look(second, second * octets_a_second, held=False)

    assert (silent, behind) == (pace.is_silent, pace.is_behind)


def test_time_of_others_does_not_count() -> None:
    """While the upstream holds the client up, it is neither silent nor behind."""
    pace = Pace(0.0, 0)
    for second in range(1, 600):
        pace.look(second, 0, held=True)

    assert (False, False) == (pace.is_silent, pace.is_behind)


def test_a_fast_beginning_is_no_credit() -> None:
    """Who sent much at once and then stops is behind as soon as anybody else."""
    pace = Pace(0.0, 0)
    pace.look(1.0, 10**9, held=False)
    for second in range(2, 12):
        pace.look(second, 10**9, held=False)

    assert pace.is_behind

"""The text of a message on its way through the pool: pausing, aborting, exactly one message."""

import asyncio
import ssl
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rigs.async_peer import Act, Listener, running_peer, until
from rigs.pool import LARGE, LOCK_STEP, MESSAGE, at, envelope, pool_to, run_on, send
from sesguard.upstream.connection import WRITE_BUFFER_BYTES
from sesguard.upstream.transfer import BUFFER_BYTES


def test_a_slow_peer_pauses_the_writer(run: Any, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A 40 MB message goes through with a bounded amount of it in memory."""
    piece = b"x" * 62 + b"\r\n"
    pieces = [piece * 1024] * 640
    most = 0

    async def main() -> None:
        nonlocal most
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.gate.clear()
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            writing = asyncio.create_task(listener.write_all(transfer, pieces))
            await until(lambda: listener.is_paused and "DATA" in peer.heard)
            lane = pool._lanes["main"]
            watched = asyncio.create_task(_watch(lane, writing))
            peer.gate.set()
            await writing
            most = await watched
            transfer.finish()
            assert 250 == (await listener.result()).reply.code
        assert 40 * 1024 * 1024 == len(peer.mails[0].content)
        assert listener.pauses

    async def _watch(lane: Any, writing: "asyncio.Task[None]") -> int:
        seen = 0
        while not writing.done():
            for connection in lane._busy:
                seen = max(seen, connection.session.transport.get_write_buffer_size())
            await asyncio.sleep(0)
        return seen

    run(main())
    assert most <= WRITE_BUFFER_BYTES + 4 * len(piece) * 1024


def test_the_writer_is_paused_before_the_upstream_wants_the_text(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Until 354 no more than 64 KiB and one piece are taken."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next("MAIL", Act.STALL)
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            transfer.write(b"\r\n" * (BUFFER_BYTES // 2 - 1))
            assert 0 == listener.pauses
            transfer.write(b"\r\n")
            assert 1 == listener.pauses
            transfer.abort()

    run_on("uvloop")(main())


@pytest.mark.parametrize("features", [("PIPELINING",), LOCK_STEP])
@pytest.mark.parametrize("heard", ["", "MAIL", "DATA"])
def test_abort_leaves_nothing(
    run: Any,
    server_tls: ssl.SSLContext,
    ca_file: Path,
    features: tuple[str, ...],
    heard: str,
) -> None:
    """Wherever it is when it is given up, nothing arrives and nothing is told; the next goes."""

    async def main() -> None:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            await send(pool)
            peer.heard.clear()
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            transfer.write(LARGE if heard else MESSAGE)
            await until(lambda: not heard or any(line[:4] == heard for line in peer.heard))
            transfer.abort()
            transfer.abort()
            transfer.write(MESSAGE)
            transfer.finish()
            assert 250 == (await send(pool)).reply.code
            await asyncio.sleep(0.01)
        assert [] == listener.results
        assert 2 == len(peer.mails)

    run(main())


def test_abort_between_two_commands_keeps_the_session(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """As long as DATA was not said, RSET is enough."""

    async def main() -> None:
        async with (
            running_peer(server_tls, features=LOCK_STEP) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            await send(pool)
            transfer = pool.begin(envelope(), Listener())
            transfer.write(LARGE)
            transfer.abort()
            await until(lambda: "RSET" in peer.heard)
            await send(pool)
        assert (1, 2) == (peer.connections, len(peer.mails))

    run_on("uvloop")(main())


def test_a_message_without_a_last_line_end_is_not_sent(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """The line that ends a message would not be one: the session is dropped, the mail kept."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            for text in (b"a", b"a\r", b"a\n"):
                result = await send(pool, message=text)
                assert (451, False) == (result.reply.code, result.uncertain)
            assert 250 == (await send(pool, message=b"")).reply.code
        assert [b""] == [mail.content for mail in peer.mails]

    run(main())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.text("ab.\x01 ", max_size=4).map(str.encode), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_exactly_one_message_arrives(
    server_tls: ssl.SSLContext, ca_file: Path, lines: list[bytes], cuts: list[int]
) -> None:
    """Any text in wire form, in any pieces, is one message upstream, byte for byte."""
    text = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            await listener.write_all(transfer, pieces)
            transfer.finish()
            assert 250 == (await listener.result()).reply.code
            assert 250 == (await send(pool)).reply.code
        assert [text, MESSAGE] == [mail.content for mail in peer.mails]

    run_on("uvloop")(main())

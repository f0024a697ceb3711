"""The end of a connection: counted until it is over, and cut off when the client takes nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rigs.pool import run_on
from rigs.relay_server import Client, serving
from sesguard.relay.service import SessionLimits

Run = Callable[[Coroutine[Any, Any, None]], None]
FLOOD = b"EHLO a\r\n" * 99
"""Its replies are more than the sockets hold, and it ends no session."""
QUICK = SessionLimits(max_connections=4, command_timeout_s=0.5, parting_s=1.0)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of event loop."""
    return run_on(request.param)


async def clog(client: Client, *more: bytes) -> bytes:
    """Make more replies than the sockets hold, then say `more`; gives what was read of them."""
    await client.send(FLOOD + b"".join(more))
    heard = await client.hear_until(b"250 AUTH")
    assert b"250 AUTH" in heard
    return heard


@pytest.mark.parametrize("end", [b"", b"QUIT\r\n"])
def test_client_that_never_reads_is_counted_until_it_is_cut_off(
    run: Run, tmp_path: Path, end: bytes
) -> None:
    """It may be let go for its silence or a QUIT: what is left has its time."""

    async def main() -> None:
        async with serving(tmp_path, limits=QUICK) as served, served.client() as client:
            await clog(client, end)
            started = time.monotonic()
            await served.until_sessions(0)
            assert time.monotonic() - started > 0.9

    run(main())


def test_place_of_a_client_that_never_reads_is_taken(run: Run, tmp_path: Path) -> None:
    """As long as its descriptor is held, nobody else of its uid has its place."""
    limits = SessionLimits(max_connections=1, parting_s=1.0)

    async def main() -> None:
        async with serving(tmp_path, limits=limits) as served, served.client() as client:
            await clog(client, b"QUIT\r\n")
            async with served.client() as second:
                assert (await second.hear_end()).startswith(b"421 4.7.0 ")
            await served.until_sessions(0)
            async with served.client() as third:
                assert (await third.hear_until(b"\r\n")).startswith(b"220 ")

    run(main())


def test_client_that_reads_late_hears_all(run: Run, tmp_path: Path) -> None:
    """Within the time to part nothing is lost."""

    async def main() -> None:
        async with serving(tmp_path, limits=QUICK) as served, served.client() as client:
            heard = await clog(client, b"QUIT\r\n") + await client.hear_end()
            assert heard.endswith(b"221 2.0.0 Bye\r\n")
            assert 99 == heard.count(b"250 AUTH PLAIN LOGIN\r\n")

    run(main())


def test_stop_does_not_wait_for_who_never_reads(run: Run, tmp_path: Path) -> None:
    """Nobody is left when the time is over, and one who only waits is gone at once."""

    async def main() -> None:
        async with (
            serving(tmp_path) as served,
            served.client() as idle,
            served.client() as client,
        ):
            await idle.hear_until(b"\r\n")
            await clog(client)
            started = time.monotonic()
            await served.server.stop(timeout_s=2.0)
            assert time.monotonic() - started < 10
            await served.until_sessions(0)
            assert (await idle.hear_end()).startswith(b"421 4.3.2 ")
            assert b"421" not in await client.hear_end()

    run(main())


def test_stop_without_clients_takes_no_time(run: Run, tmp_path: Path) -> None:
    """Also with one who hears 421 and closes."""

    async def main() -> None:
        async with serving(tmp_path) as served, served.client() as client:
            await client.hear_until(b"\r\n")
            stopping = asyncio.create_task(served.server.stop(timeout_s=300))
            assert (await client.hear_end()).startswith(b"421 4.3.2 ")
            async with asyncio.timeout(20):
                await stopping

    run(main())

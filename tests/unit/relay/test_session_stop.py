"""Messages that are under way when the relay stops: answered, or reported once."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rigs.pool import run_on
from rigs.queue import Carried, accepted
from rigs.relay_server import Client, Served, serving
from rigs.relay_wire import TEXT, envelope
from sesguard.relay.events import Fate

Run = Callable[[Coroutine[Any, Any, None]], None]
MESSAGE = envelope() + b"DATA\r\n" + TEXT + b".\r\n"


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of event loop."""
    return run_on(request.param)


async def begun(served: Served, client: Client, said: bytes) -> Carried:
    """The message that a client sent whole, whose answer is not there yet."""
    served.upstream.script = lambda _carried: None
    await client.send(b"LHLO a\r\n" + said)
    assert b"354 " in await client.hear_until(b"354 ")
    async with asyncio.timeout(20):
        while not any(each.is_finished for each in served.upstream.carried):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    [carried] = served.upstream.carried
    return carried


def test_stop_waits_for_the_answer_to_a_whole_message(run: Run, tmp_path: Path) -> None:
    """The client hears the answer, and 421 only after it; nothing is uncertain."""

    async def main() -> None:
        async with serving(tmp_path, is_lmtp=True) as served, served.client() as client:
            carried = await begun(served, client, MESSAGE)
            stopping = asyncio.create_task(served.server.stop(timeout_s=300))
            done, _ = await asyncio.wait({stopping}, timeout=0.2)
            assert not done
            carried.listener.transfer_done(accepted())
            replies = (await client.hear_end()).splitlines()
            assert [b"250", b"421"] == [reply[:3] for reply in replies[-2:]]
            await asyncio.wait_for(stopping, 20)
            [event] = served.events
            assert (Fate.SENT, False) == (event.fate, event.uncertain)

    run(main())


def test_message_without_an_answer_at_the_end_is_not_cut(run: Run, tmp_path: Path) -> None:
    """The client hears 421; the message was complete, takes its way, and is reported once."""

    async def main() -> None:
        async with serving(tmp_path, is_lmtp=True) as served, served.client() as client:
            carried = await begun(served, client, MESSAGE)
            await asyncio.wait_for(served.server.stop(timeout_s=0), 20)
            assert (await client.hear_end()).splitlines()[-1].startswith(b"421 4.3.2 ")
            assert [] == served.events
            assert not carried.is_aborted
            carried.listener.transfer_done(accepted())
            [event] = served.events
            assert (Fate.SENT, True) == (event.fate, event.uncertain)

    run(main())


def test_message_that_is_not_whole_at_the_end_is_aborted(run: Run, tmp_path: Path) -> None:
    """Nothing of it is delivered, and the client, which heard 421, has it still."""

    async def main() -> None:
        async with serving(tmp_path, is_lmtp=True) as served, served.client() as client:
            await client.send(b"LHLO a\r\n" + MESSAGE[:-3])
            await client.hear_until(b"354 ")
            await asyncio.wait_for(served.server.stop(timeout_s=0), 20)
            assert (await client.hear_end()).splitlines()[-1].startswith(b"421 4.3.2 ")
            [carried] = served.upstream.carried
            assert (True, False) == (carried.is_aborted, carried.is_finished)
            [event] = served.events
            assert Fate.ABANDONED is event.fate

    run(main())


def test_stop_begins_no_message_that_was_sent_ahead(run: Run, tmp_path: Path) -> None:
    """A client that pipelines one message after the other is let go after the first."""

    async def main() -> None:
        async with serving(tmp_path, is_lmtp=True) as served, served.client() as client:
            carried = await begun(served, client, MESSAGE * 3)
            stopping = asyncio.create_task(served.server.stop(timeout_s=300))
            await asyncio.sleep(0)
            carried.listener.transfer_done(accepted())
            replies = (await client.hear_end()).splitlines()
            assert [b"250", b"421"] == [reply[:3] for reply in replies[-2:]]
            await asyncio.wait_for(stopping, 20)
            assert [carried] == served.upstream.carried

    run(main())

"""How much of the messages for the API is in memory at one time."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from rigs.async_peer import Listener, until
from rigs.pool import MESSAGE, envelope, run_on
from sesguard.upstream.api import ApiCarrier
from sesguard.upstream.interface import Transfer

REGION = "us-east-1"
PIECE = b"x" * 16_382 + b"\r\n"
PIECES = [PIECE] * 64
"""A message of 1 MiB."""
BUDGET = 2 * len(PIECES) * len(PIECE)


class SlowApi:
    """A `RawSender` whose answers wait for a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []

    def send(
        self, region: str, envelope_sender: str, recipients: Sequence[str], message: bytes
    ) -> str:
        """See `RawSender`."""
        self.sizes.append(len(message))
        assert self.gate.wait(20)
        return "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"


def begun(carrier: ApiCarrier) -> tuple[Transfer, Listener]:
    """A message without text."""
    listener = Listener()
    return carrier.begin(envelope(), listener), listener


async def sent(carrier: ApiCarrier, pieces: list[bytes]) -> int:
    """Send a message as fast as the carrier lets us; the code of the reply."""
    transfer, listener = begun(carrier)
    await listener.write_all(transfer, pieces)
    transfer.finish()
    return (await listener.result()).reply.code


def test_many_large_messages_share_the_memory(run: Any) -> None:
    """However many come at a time, all arrive, and the budget is kept but for one message."""
    api = SlowApi()

    async def main() -> None:
        carrier = ApiCarrier(api, [REGION], memory_bytes=BUDGET)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, carrier.budget.used)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        codes = await asyncio.gather(*(sent(carrier, PIECES) for _ in range(20)))
        watching.cancel()
        await carrier.close(timeout_s=5)
        assert [250] * 20 == codes
        assert most <= BUDGET + len(PIECE) * (len(PIECES) + 20)
        assert 0 == carrier.budget.used

    run(main())


def test_calls_without_an_answer_count(run: Any) -> None:
    """While complete messages wait for SES, nothing more of large ones is taken; small ones go."""
    api = SlowApi()
    api.gate.clear()

    async def main() -> None:
        carrier = ApiCarrier(api, [REGION], memory_bytes=BUDGET)
        first = [asyncio.create_task(sent(carrier, PIECES)) for _ in range(2)]
        await until(lambda: len(api.sizes) == 2)
        transfer, listener = begun(carrier)
        writing = asyncio.create_task(listener.write_all(transfer, PIECES))
        await until(lambda: listener.is_paused)
        small = asyncio.create_task(sent(carrier, [MESSAGE]))
        await until(lambda: len(api.sizes) == 3)
        assert not writing.done()
        api.gate.set()
        await writing
        transfer.finish()
        last = (await listener.result()).reply.code
        assert {250} == {last, await small, *[await each for each in first]}
        await carrier.close(timeout_s=5)

    run(main())


def test_one_message_may_be_larger_than_the_memory() -> None:
    """It is alone, so that nothing would ever give room back."""

    async def main() -> None:
        carrier = ApiCarrier(SlowApi(), [REGION], memory_bytes=BUDGET)
        assert 250 == await sent(carrier, PIECES * 4)
        await carrier.close(timeout_s=5)

    run_on("uvloop")(main())


def test_given_up_messages_give_their_memory_back() -> None:
    """Those who waited for it go on, in the order in which they came."""

    async def main() -> None:
        carrier = ApiCarrier(SlowApi(), [REGION], memory_bytes=32 * len(PIECE))
        big, _ = begun(carrier)
        for piece in PIECES[:32]:
            big.write(piece)
        others = [begun(carrier) for _ in range(3)]
        for transfer, _ in others:
            transfer.write(PIECE * 5)
        assert [True] * 3 == [listener.is_paused for _, listener in others]
        big.abort()
        assert [False, False, True] == [listener.is_paused for _, listener in others]
        others[0][0].write(PIECE)
        assert [False] * 3 == [listener.is_paused for _, listener in others]
        await carrier.close(timeout_s=5)
        assert 0 == carrier.budget.used

    run_on("uvloop")(main())


def test_a_slow_client_does_not_keep_the_memory(run: Any) -> None:
    """The one that all others wait for must go on, or it is cut with 451 4.4.2."""
    api = SlowApi()

    async def main() -> None:
        carrier = ApiCarrier(api, [REGION], memory_bytes=BUDGET, lag_s=0.2)
        slow, heard = begun(carrier)
        for piece in PIECES * 2:
            slow.write(piece)
        assert 250 == await sent(carrier, PIECES)
        reply = (await heard.result()).reply
        slow.finish()
        assert (451, "4.4.2") == (reply.code, reply.text[:5])
        await carrier.close(timeout_s=5)

    run(main())
    assert [len(PIECES) * len(PIECE)] == api.sizes


def test_a_slow_client_that_nobody_waits_for_may_be_slow() -> None:
    """Alone it has all the time that its session gives it."""

    async def main() -> None:
        carrier = ApiCarrier(SlowApi(), [REGION], memory_bytes=BUDGET, lag_s=0.02)
        transfer, listener = begun(carrier)
        for piece in PIECES * 4:
            transfer.write(piece)
        await asyncio.sleep(0.1)
        transfer.finish()
        assert 250 == (await listener.result()).reply.code
        await carrier.close(timeout_s=5)

    run_on("uvloop")(main())


def test_slow_clients_are_cut_all_at_once(run: Any) -> None:
    """Those who wait do not wait for one after the other; small mail meanwhile changes nothing."""
    api = SlowApi()

    async def main() -> None:
        carrier = ApiCarrier(api, [REGION], memory_bytes=BUDGET, lag_s=0.4)
        slow = [begun(carrier) for _ in range(25)]
        for transfer, _ in slow:
            for piece in PIECES[:5]:
                transfer.write(piece)
        waiting = asyncio.create_task(sent(carrier, PIECES))
        for _ in range(100):
            assert 250 == await sent(carrier, [MESSAGE])
            await asyncio.sleep(0.02)
            if waiting.done():
                break
        assert {"4.4.2"} == {result.reply.text[:5] for _, heard in slow for result in heard.results}
        assert [1] * len(slow) == [len(heard.results) for _, heard in slow]
        assert 250 == await waiting
        await carrier.close(timeout_s=5)

    run(main())

"""
The contract of a carrier, as tests.

Subclass `CarrierContract` in a test module and give the fixture:

    class TestMyCarrier(CarrierContract):
        @pytest.fixture
        def upstream(self) -> Upstream: ...
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import pytest
import uvloop

from sesguard.core.envelope import Envelope, Recipient
from sesguard.upstream.interface import Carrier, Result, Transfer
from sesguard.upstream.replies import Outcome

PATIENCE_S: Final = 30.0
ENVELOPE: Final = Envelope("app@example.com", (Recipient("user@example.net"),))
HEADER: Final = b"From: app@example.com\r\nTo: user@example.net\r\nSubject: test\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message as the upstream has it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    """Without the dots of SMTP."""


class Upstream(Protocol):
    """Where a carrier under test sends to."""

    def carrier(self) -> AbstractAsyncContextManager[Carrier]:
        """A carrier on the running event loop; the context closes it."""
        ...

    def delivered(self) -> Sequence[Delivered]:
        """Everything that was taken, oldest first."""
        ...

    def refuse(self) -> None:
        """From here on the upstream refuses messages for good: their address is not verified."""
        ...


class Watcher:
    """A `TransferListener` that can be waited for."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._done = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()

    def transfer_done(self, result: Result) -> None:
        """See `TransferListener`."""
        self.results.append(result)
        self._done.set()
        self._may_write.set()

    def pause_transfer(self) -> None:
        """See `TransferListener`."""
        self._may_write.clear()

    def resume_transfer(self) -> None:
        """See `TransferListener`."""
        self._may_write.set()

    async def write(self, transfer: Transfer, pieces: Sequence[bytes]) -> None:
        """Write as the transfer lets us."""
        for piece in pieces:
            await self._may_write.wait()
            transfer.write(piece)

    async def result(self) -> Result:
        """The one result."""
        async with asyncio.timeout(PATIENCE_S):
            await self._done.wait()
        (result,) = self.results
        return result


class CarrierContract:
    """What a carrier promises, one test a promise."""

    @pytest.fixture
    def upstream(self) -> Upstream:
        """Override it."""
        raise NotImplementedError

    @pytest.fixture(params=["uvloop", "asyncio"])
    def runner(self, request: pytest.FixtureRequest) -> asyncio.Runner:
        """Runs a coroutine on each kind of event loop."""
        uv = request.param == "uvloop"
        return asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else asyncio.new_event_loop)

    def test_delivers_what_was_written(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """The message arrives once, byte for byte, and the result carries the upstream's id."""
        body = b"..one dot\r\nHello.\r\n\r\n"

        async def _main() -> Result:
            async with upstream.carrier() as carrier:
                return await send(carrier, HEADER + body)

        with runner:
            result = runner.run(_main())
        assert Outcome.ACCEPTED is result.reply.outcome
        assert result.reply.message_id
        assert not result.uncertain
        (delivered,) = upstream.delivered()
        assert (
            delivered.sender,
            delivered.recipients,
        ) == ("app@example.com", ("user@example.net",))
        assert delivered.content == HEADER + b".one dot\r\nHello.\r\n\r\n"

    def test_many_at_a_time(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """Each of forty messages arrives once."""
        bodies = [b"%d\r\n" % number for number in range(40)]

        async def _main() -> list[Result]:
            async with upstream.carrier() as carrier:
                return await asyncio.gather(*(send(carrier, HEADER + body) for body in bodies))

        with runner:
            results = runner.run(_main())
        assert {Outcome.ACCEPTED} == {result.reply.outcome for result in results}
        assert sorted(HEADER + body for body in bodies) == sorted(
            delivered.content for delivered in upstream.delivered()
        )

    def test_in_small_pieces(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """Where the pieces are cut makes no difference, also between CR, LF and a dot."""
        wire = HEADER + b"..a\r\n..\r\n...\r\nend\r\n"

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                pieces = [wire[at : at + 1] for at in range(len(wire))]
                assert (await send(carrier, *pieces)).reply.code == 250

        with runner:
            runner.run(_main())
        assert [delivered.content for delivered in upstream.delivered()] == [
            HEADER + b".a\r\n.\r\n..\r\nend\r\n"
        ]

    def test_large(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """Some megabytes arrive whole."""
        pieces = [b"x" * 998 + b"\r\n"] * 3000

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                assert (await send(carrier, HEADER, *pieces)).reply.code == 250

        with runner:
            runner.run(_main())
        assert [HEADER + b"".join(pieces)] == [each.content for each in upstream.delivered()]

    def test_abort_delivers_nothing(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """What was given up neither arrives nor is told of; the next message goes."""

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                watcher = Watcher()
                transfer = carrier.begin(ENVELOPE, watcher)
                transfer.write(HEADER + b"not to be sent\r\n")
                transfer.abort()
                transfer.write(b"more\r\n")
                transfer.finish()
                assert (await send(carrier, HEADER)).reply.code == 250
                assert watcher.results == []

        with runner:
            runner.run(_main())
        assert [delivered.content for delivered in upstream.delivered()] == [HEADER]

    def test_unfinished_is_not_delivered(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """A message that was not finished when the carrier closes is kept by its sender."""

        async def _main() -> None:
            watcher = Watcher()
            async with upstream.carrier() as carrier:
                carrier.begin(ENVELOPE, watcher).write(HEADER + b"half\r\n")
            result = await watcher.result()
            assert (result.reply.code // 100, result.uncertain) == (4, False)

        with runner:
            runner.run(_main())
        assert list(upstream.delivered()) == []

    def test_a_refusal_is_the_upstreams(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """What the upstream refuses for good comes back with its code and its meaning."""
        upstream.refuse()

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                reply = (await send(carrier, HEADER)).reply
                assert (reply.code, reply.outcome) == (554, Outcome.UNVERIFIED)

        with runner:
            runner.run(_main())
        assert list(upstream.delivered()) == []

    @pytest.mark.parametrize("address", ["a\r\nRCPT TO:<b@example.org>", "a\nb@x.org", "\0@x.org"])
    def test_refuses_an_address_that_breaks_out(
        self, runner: asyncio.Runner, upstream: Upstream, address: str
    ) -> None:
        """CR, LF and NUL in an address are refused, and not from within `begin`."""

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                watcher = Watcher()
                carrier.begin(Envelope("app@example.com", (Recipient(address),)), watcher)
                assert watcher.results == []
                reply = (await watcher.result()).reply
                assert (reply.code, reply.outcome) == (553, Outcome.BAD_ADDRESS)

        with runner:
            runner.run(_main())
        assert list(upstream.delivered()) == []

    def test_closed_takes_nothing(self, runner: asyncio.Runner, upstream: Upstream) -> None:
        """After `close` every message is kept by its sender."""

        async def _main() -> None:
            async with upstream.carrier() as carrier:
                await carrier.close(timeout_s=1)
                assert Outcome.TEMPORARY is (await send(carrier, HEADER)).reply.outcome

        with runner:
            runner.run(_main())
        assert list(upstream.delivered()) == []


async def send(carrier: Carrier, *pieces: bytes, envelope: Envelope = ENVELOPE) -> Result:
    """Send one message."""
    watcher = Watcher()
    transfer = carrier.begin(envelope, watcher)
    await watcher.write(transfer, pieces)
    transfer.finish()
    return await watcher.result()


@asynccontextmanager
async def closing(carrier: Carrier) -> AsyncIterator[Carrier]:
    """Close a carrier at the end of a block."""
    try:
        yield carrier
    finally:
        await carrier.close(timeout_s=PATIENCE_S)

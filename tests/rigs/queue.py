"""The queue under test: who gives it mail, a carrier that answers by a script, a clock by hand."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.relay.delivery import Deliverer, DeliveryEvent, DeliveryLimits
from sesguard.relay.ledger import Ledger
from sesguard.relay.spool import Origin, Spool, SpoolCarrier
from sesguard.upstream.interface import Result, Transfer, TransferListener
from sesguard.upstream.replies import Reply, classify

ENVELOPE = Envelope("shop@example.com", (Recipient("customer@example.net"),))
ORIGIN = Origin("shop", 1001, "main")
BODY = b"Subject: order\r\n\r\nThank you.\r\n"
HOST = "email-smtp.us-east-1.amazonaws.com"
HOUR = 3600.0

T = TypeVar("T")


def accepted(number: int = 0) -> Result:
    """SES took the message."""
    return Result(classify(250, f"Ok 0100018f{number:08d}-aaaa-000000"), host=HOST)


def replied(code: int, text: str, **options: Any) -> Result:
    """SES answered something else."""
    return Result(classify(code, text), **{"host": HOST, **options})


GREYLISTED = replied(451, "4.7.1 try again later")
"""A refusal for now, of the message alone."""


def to(*addresses: str, sender: str = "shop@example.com") -> Envelope:
    """An envelope for these recipients."""
    return Envelope(sender, tuple(Recipient(address) for address in addresses))


class Sender:
    """Somebody who hands a message over; a `TransferListener`."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.pauses = 0
        self.may_write = asyncio.Event()
        self.may_write.set()

    def transfer_done(self, result: Result) -> None:
        self.may_write.set()
        self.result.set_result(result)

    def pause_transfer(self) -> None:
        assert self.may_write.is_set()
        self.pauses += 1
        self.may_write.clear()

    def resume_transfer(self) -> None:
        assert not self.may_write.is_set()
        self.may_write.set()


async def store(
    carrier: SpoolCarrier,
    data: bytes = BODY,
    envelope: Envelope = ENVELOPE,
    *,
    origin: Origin = ORIGIN,
    held: str | None = None,
    piece: int = 65536,
) -> Reply:
    """Hand a message over, as fast as the queue allows."""
    sender = Sender()
    transfer = carrier.begin(envelope, sender, origin=origin, held=held)
    for begin in range(0, len(data), piece):
        await sender.may_write.wait()
        transfer.write(data[begin : begin + piece])
    transfer.finish()
    return (await asyncio.wait_for(sender.result, 30)).reply


def id_of(reply: Reply) -> str:
    """The public id in the reply to an accepted message."""
    assert reply.code == 250, reply
    return reply.text.removeprefix("2.0.0 queued as ")


@dataclass
class Carried:
    """A message as a carrier got it."""

    envelope: Envelope
    credential_id: str | None
    listener: TransferListener
    data: bytearray = field(default_factory=bytearray)
    is_finished: bool = False
    is_aborted: bool = False
    app: str = ""

    @property
    def is_notice(self) -> bool:
        """Whether it was written by the queue, for a sender."""
        return self.envelope.recipients[0].notify == {Notify.NEVER}


Script = Callable[[Carried], Result | None]


class ScriptedCarrier:
    """A carrier that answers each finished message by its script; None: not yet."""

    def __init__(self, script: Script = lambda _carried: accepted()) -> None:
        self.script = script
        self.carried: list[Carried] = []

    def begin(
        self,
        envelope: Envelope,
        listener: TransferListener,
        *,
        credential_id: str | None = None,
        partial: bool = False,
        app: str = "",
    ) -> Transfer:
        assert partial
        carried = Carried(envelope, credential_id, listener, app=app)
        self.carried.append(carried)
        return _ScriptedTransfer(self, carried)

    async def close(self, *, timeout_s: float) -> None:
        """Nothing is to be closed."""


class _ScriptedTransfer:
    def __init__(self, carrier: ScriptedCarrier, carried: Carried) -> None:
        self._carrier = carrier
        self._carried = carried

    def write(self, data: bytes) -> None:
        assert not self._carried.is_finished
        self._carried.data += data

    def finish(self) -> None:
        self._carried.is_finished = True
        result = self._carrier.script(self._carried)
        if result is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._carried.listener.transfer_done, result)

    def abort(self) -> None:
        assert not self._carried.is_finished
        self._carried.is_aborted = True


def simple_bounce(
    envelope: Envelope,
    header: bytes,
    failures: Mapping[str, Reply],
    *,
    arrived_at: float,
    now: float,
    reason_expired: bool,
) -> bytes | None:
    """A bounce that says all that it was told."""
    lines = [f"To: {envelope.sender}", f"Subject: expired {reason_expired}", ""]
    lines += [f"{address}: {reply}" for address, reply in failures.items()]
    return "\r\n".join(lines).encode() + b"\r\n" + header


class Clock:
    """Time that passes only by hand, from a moment of the real one."""

    def __init__(self, at: float = 1_795_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@dataclass
class Post:
    """Queue, delivery and ledger, put together as in the daemon."""

    spool: Spool
    intake: SpoolCarrier
    deliverer: Deliverer
    carrier: ScriptedCarrier
    ledger: Ledger
    events: list[DeliveryEvent]
    clock: Clock

    async def until(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait for what the loop and the writer are about to do."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - it is the world that changes
                await asyncio.sleep(0.002)

    async def settled(self, events: int) -> Sequence[DeliveryEvent]:
        """Wait for so many events in all, and give them."""
        await self.until(lambda: len(self.events) >= events)
        return self.events

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and the deliverer notice."""
        self.clock.at += seconds
        self.deliverer.wake()
        await self.quiet()

    async def quiet(self) -> None:
        """Let everything be written that was put so far, and what follows from it at once."""
        for _round in range(4):
            await self.spool.totals()

    def ids(self) -> list[str]:
        """Envelope recipients of what the carrier got, in order."""
        return [",".join(each.envelope.addresses) for each in self.carrier.carried]

    async def rows(self, query: str = "SELECT * FROM messages ORDER BY id") -> list[sqlite3.Row]:
        """What is in the database."""

        def read(connection: sqlite3.Connection, _arguments: Sequence[None]) -> list[Any]:
            return [connection.execute(query).fetchall()]

        rows: list[sqlite3.Row] = await self.spool.writer.call(read, None)
        return rows

    async def close(self) -> None:
        """Stop everything, as the daemon does."""
        await self.deliverer.stop(timeout_s=0.05)
        await self.ledger.close()
        await self.spool.close()


def open_post(
    directory: Path,
    script: Script = lambda _carried: accepted(),
    *,
    clock: Clock | None = None,
    limits: DeliveryLimits | None = None,
    bounce: Callable[..., bytes | None] = simple_bounce,
    receipt: Callable[..., bytes | None] = lambda *_arguments, **_options: None,
    starts: bool = True,
    may_send: Callable[[str], bool] = lambda _app: True,
) -> Post:
    """Open the queue in `directory`, and deliver from it by `script`."""
    clock = clock or Clock()
    spool = Spool(directory, max_bytes=10**9, min_free_bytes=0, now=clock)
    carrier = ScriptedCarrier(script)
    ledger = Ledger(directory, now=clock)
    events: list[DeliveryEvent] = []
    deliverer = Deliverer(
        spool,
        carrier,
        ledger=ledger,
        bounce=bounce,
        receipt=receipt,
        sink=events.append,
        limits=limits or DeliveryLimits(),
        clock=clock,
        chance=lambda: 0.5,
        may_send=may_send,
    )
    if starts:
        deliverer.start()
    return Post(
        spool, SpoolCarrier(spool, deliverer.wake), deliverer, carrier, ledger, events, clock
    )


def with_post(
    directory: Path, act: Callable[[Post], Coroutine[Any, Any, T]], *arguments: Any, **options: Any
) -> T:
    """Run `act` on an event loop of its own, with a post of its own."""

    async def run() -> T:
        post = open_post(directory, *arguments, **options)
        try:
            return await act(post)
        finally:
            await post.close()

    return asyncio.run(run())


def with_spool(
    directory: Path, act: Callable[[SpoolCarrier], Awaitable[T]], *, max_bytes: int = 10**9
) -> T:
    """Run `act` on an event loop of its own, with a queue from which nothing is delivered."""

    async def run() -> T:
        spool = Spool(directory, max_bytes=max_bytes, min_free_bytes=0)
        try:
            return await act(SpoolCarrier(spool, lambda: None))
        finally:
            await spool.close()

    return asyncio.run(run())


def answers(*results: Result | None) -> Callable[[Carried], Result | None]:
    """One answer after the other, the last one for ever."""
    left = list(results)

    def script(_carried: Carried) -> Result | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return script


def paused_at_once(post: Post) -> None:
    """The carrier takes the first piece of each message, and then wants no more for now."""
    begin = post.carrier.begin

    def begin_paused(*arguments: Any, **options: Any) -> Any:
        arguments[1].pause_transfer()
        return begin(*arguments, **options)

    post.carrier.begin = begin_paused  # type: ignore[method-assign]

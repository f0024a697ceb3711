"""
A process that takes mail into a queue and delivers it, to be killed at any instant.

    python -m rigs.spooling run DIRECTORY FIRST     numbers from FIRST, until it is killed
    python -m rigs.spooling drain DIRECTORY         delivers what is there, and ends
    python -m rigs.spooling full DIRECTORY          fills a small disk, makes room, delivers all

It writes a line ``250 NUMBER`` for each message that it accepted. Its upstream appends the number
of each whole message to ``sent`` before it answers, and events go to ``events``, both beside
DIRECTORY: each line is one write, so a kill tears none.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from rigs.queue import Carried, ScriptedCarrier, accepted, simple_bounce, store
from sesguard.relay.delivery import Deliverer, DeliveryEvent, DeliveryLimits
from sesguard.relay.ledger import Ledger
from sesguard.relay.spool import Spool, SpoolCarrier
from sesguard.upstream.interface import Result

SENDERS = 20
FILLER = 3_000_000


def message(number: int) -> bytes:
    """The text of a message: every fortieth has several pieces."""
    size = 700_000 if number % 40 == 0 else 3000 + number % 2000
    return b"Number: %d %d\r\n\r\n" % (number, size) + b"x" * size + b"\r\n"


def number_of(text: bytes) -> int:
    """The number of a whole message."""
    number = int(text.split()[1])
    assert message(number) == text, f"message {number} is not whole"
    return number


class Appender:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def line(self, *words: object) -> None:
        """Write one line at once."""
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())


class Station:
    """Queue and delivery of one process."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory, max_bytes=10**9, min_free_bytes=0)
        self.sent = Appender(directory.parent / "sent")
        self.ended = Appender(directory.parent / "events")
        self.ledger = Ledger(directory)
        self.deliverer = Deliverer(
            self.spool,
            ScriptedCarrier(self._take),
            ledger=self.ledger,
            bounce=simple_bounce,
            sink=self._tell,
            limits=DeliveryLimits(max_in_flight=20),
        )
        self.intake = SpoolCarrier(self.spool, self.deliverer.wake)

    def _take(self, carried: Carried) -> Result:
        self.sent.line(number_of(bytes(carried.data)))
        carried.data.clear()
        return accepted()

    def _tell(self, event: DeliveryEvent) -> None:
        self.ended.line(event.public_id, event.outcome.value, event.possible_duplicate)

    async def accept(self, number: int) -> int:
        """Store a message and say so; gives the code of the reply."""
        reply = await store(self.intake, message(number))
        if reply.code == 250:
            os.write(1, f"250 {number} {reply.text.split()[-1]}\n".encode())
        return reply.code

    async def until_empty(self) -> None:
        """Wait until everything was delivered."""
        while any(total.messages for total in (await self.spool.totals()).values()):
            pass

    async def close(self) -> None:
        """Stop in order."""
        await self.deliverer.stop(timeout_s=5)
        await self.ledger.close()
        await self.spool.close()


async def run(directory: Path, first: int) -> None:
    """Take messages and deliver them, for ever."""
    station = Station(directory)
    station.deliverer.start()

    async def send(number: int) -> None:
        while True:
            assert await station.accept(number) == 250
            number += SENDERS

    await asyncio.gather(*(send(first + offset) for offset in range(SENDERS)))


async def drain(directory: Path) -> None:
    """Deliver what is there."""
    station = Station(directory)
    station.deliverer.start()
    await station.until_empty()
    await station.close()


async def full(directory: Path) -> None:
    """Fill the disk to the last byte, make room, go on, deliver everything."""
    filler = directory.parent / "filler"
    filler.write_bytes(b"x" * FILLER)
    station = Station(directory)
    number = 0
    for has_room in (False, True):
        refused = 0
        while refused < 5 and not (has_room and number % 100 == 99):
            number += 1
            code = await station.accept(number)
            assert code in {250, 452}, code
            refused += code == 452
            if code == 452:
                os.write(1, b"452\n")
        filler.unlink(missing_ok=True)
        os.write(1, b"room\n")
    station.deliverer.start()
    await station.until_empty()
    await station.close()
    for line in (directory.parent / "sent").read_text().splitlines():
        os.write(1, f"sent {line}\n".encode())


def main() -> None:
    """Do as the command line says."""
    mode, directory = sys.argv[1], Path(sys.argv[2])
    modes: dict[str, Callable[[], object]] = {
        "run": lambda: run(directory, int(sys.argv[3])),
        "drain": lambda: drain(directory),
        "full": lambda: full(directory),
    }
    uvloop.run(modes[mode]())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

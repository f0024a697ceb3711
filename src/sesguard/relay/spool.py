"""
The queue of the relay: mail that is ours from the moment its sender hears 250.

Promises
    250 is said only after the message is committed and flushed to the disk.
    Full (disk, or `max_bytes`) or unwritable: 452, and nothing that was there is lost. It works
    again by itself once there is room. One app may have half of `max_bytes`: over it that app
    hears 452, and the others do not.
    Memory does not grow with a message: one of 256 KiB or more is written in pieces while it comes
    in, and its sender is paused while the disk is slower. What was not received to its end is
    removed.

Limits
    `BACKLOG_BYTES` may wait for the writer before all senders are paused. A message has at most
    512 MiB.

Files: ``spool.db`` and its ``-wal``, ``-shm`` and ``.lock``, 0600, in a directory 0700. Several
processes may use it at once; one of them delivers (`sesguard.relay.delivery`).

Bodies are stored in wire form (`sesguard.upstream.interface`); they are mail, not secrets.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sesguard.core.envelope import Envelope
from sesguard.errors import Error
from sesguard.relay.group_commit import GroupCommit
from sesguard.relay.spool_records import NewMessage, Origin, Piece, State, Total, public_id
from sesguard.relay.spool_room import Shortage
from sesguard.relay.spool_table import (
    FILE_NAME,
    MAX_PIECES,
    PIECE_BYTES,
    SCHEMA,
    VERSION,
    SpoolTable,
)
from sesguard.system.files import ensure_directory
from sesguard.upstream.interface import Result, Transfer, TransferListener
from sesguard.upstream.replies import Outcome, Reply

__all__ = ["BACKLOG_BYTES", "Origin", "Spool", "SpoolCarrier"]

BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""Bytes that may wait for the writer before senders are paused; they go on at half of it."""
MIN_FREE_BYTES: Final = 32 * 1024 * 1024
"""Left free on the disk: delivering what is there needs a little room too."""
_REMOVE_AGAIN_S: Final = 5.0

_NO_ROOM: Final = {
    shortage: Result(Reply(452, f"4.3.1 {shortage.value}", Outcome.TEMPORARY))
    for shortage in Shortage
}
_UNWRITABLE: Final = Result(Reply(452, "4.3.1 the queue cannot be written", Outcome.TEMPORARY))
_TOO_LONG: Final = Result(Reply(552, "5.3.4 the message is too long", Outcome.TOO_LARGE))


class Spool:
    """
    The queue's database; made and used on the running event loop.

    Args:
        directory: Made (0700) when it is missing.
        max_bytes: Of all messages; over it new ones are not taken.
        min_free_bytes: Of the disk; below it new messages are not taken.
        now: Wall clock in seconds.

    Raises:
        SystemFault: It cannot be opened.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int = MIN_FREE_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        ensure_directory(directory, mode=0o700)
        self.directory: Final = directory
        self.now: Final = now
        self.table: Final = SpoolTable(
            directory, max_bytes=max_bytes, min_free_bytes=min_free_bytes, now=now
        )
        self.writer: Final = GroupCommit(directory / FILE_NAME, SCHEMA, version=VERSION)

    async def totals(self) -> dict[State, Total]:
        """
        Messages and bytes by state.

        Raises:
            SystemFault: The database cannot be used.
        """
        return await self.writer.call(self.table.totals, None)

    async def close(self) -> None:
        """Finish what was begun, and close the database."""
        await self.writer.close()


class SpoolCarrier:
    """
    Takes messages into the queue.

    Args:
        spool: The queue.
        wake: Called after a message was queued, so that it is delivered at once.
    """

    def __init__(self, spool: Spool, wake: Callable[[], None]) -> None:
        self.spool: Final = spool
        self.wake: Final = wake
        self._backlog = 0
        self._is_congested = False
        self._waiting: set[_SpoolTransfer] = set()

    def begin(
        self,
        envelope: Envelope,
        listener: TransferListener,
        *,
        origin: Origin,
        held: str | None = None,
    ) -> Transfer:
        """
        Begin to store a message. It raises nothing: what goes wrong is a `Result`.

        Args:
            envelope: From whom, to whom.
            listener: Told of the result, and when to pause.
            origin: Whose it is, and the credential it goes with.
            held: Why it waits for a person; None: it is delivered.
        """
        return _SpoolTransfer(self, envelope, listener, origin, held)

    # For its transfers.

    @property
    def is_congested(self) -> bool:
        """Whether the disk is slower than those who send."""
        return self._is_congested

    def add_waiting(self, transfer: "_SpoolTransfer") -> None:
        """Have `transfer` resumed when the congestion is over."""
        self._waiting.add(transfer)

    def count(self, size: int) -> None:
        """Note that bytes were handed to the writer, or (negative) are with it no more."""
        self._backlog += size
        if self._backlog > BACKLOG_BYTES:
            self._is_congested = True
        elif self._is_congested and self._backlog < BACKLOG_BYTES // 2:
            self._is_congested = False
            waiting, self._waiting = self._waiting, set()
            for transfer in waiting:
                transfer.resume()

    def discard(self, message_id: int) -> None:
        """Remove a message that was not received to its end, sooner or later."""

        def done(_value: None, error: Error | None) -> None:
            if error is not None:
                loop.call_later(_REMOVE_AGAIN_S, self.discard, message_id)

        loop = self.spool.writer.loop
        self.spool.writer.put(self.spool.table.remove, message_id, done)


class _SpoolTransfer:
    """
    One message on its way into the queue.

    It has at most one piece with the writer; meanwhile it collects the next one, and pauses its
    sender when that is full.
    """

    __slots__ = (
        "_carrier",
        "_collected",
        "_envelope",
        "_finished",
        "_held",
        "_is_last",
        "_listener",
        "_message_id",
        "_number",
        "_origin",
        "_over",
        "_paused",
        "_size",
        "_storing",
    )

    def __init__(
        self,
        carrier: SpoolCarrier,
        envelope: Envelope,
        listener: TransferListener,
        origin: Origin,
        held: str | None,
    ) -> None:
        self._carrier = carrier
        self._envelope = envelope
        self._listener = listener
        self._origin = origin
        self._held = held
        self._message_id: int | None = None
        self._number = 0
        self._collected: list[bytes] = []
        self._size = 0
        self._storing = 0
        """Bytes with the writer."""
        self._is_last = False
        """Whether they are the end of the message."""
        self._paused = False
        self._finished = False
        self._over = False

    # As a `Transfer`.

    def write(self, data: bytes) -> None:
        """See `Transfer`."""
        if self._over:
            return
        self._collected.append(data)
        self._size += len(data)
        self._go_on()
        if not self._paused and self._must_wait():
            self._paused = True
            self._listener.pause_transfer()

    def finish(self) -> None:
        """See `Transfer`."""
        self._finished = True
        self._go_on()

    def abort(self) -> None:
        """See `Transfer`."""
        self._over = True
        self._collected.clear()
        if not self._storing:
            self._discard()

    # For the carrier.

    def resume(self) -> None:
        """Let the sender go on if nothing keeps it."""
        if self._paused and not self._over and not self._must_wait():
            self._paused = False
            self._listener.resume_transfer()

    def _must_wait(self) -> bool:
        if self._finished or self._over:
            return False
        if self._carrier.is_congested:
            self._carrier.add_waiting(self)
            return True
        return self._storing > 0 and self._size >= PIECE_BYTES

    def _go_on(self) -> None:
        """Hand the next piece to the writer, if it is time."""
        if self._over or self._storing or not (self._finished or self._size >= PIECE_BYTES):
            return
        data = b"".join(self._collected)
        data, rest = data[:PIECE_BYTES], data[PIECE_BYTES:]
        self._collected = [rest] if rest else []
        self._size = len(rest)
        if self._number == MAX_PIECES:
            self._fail(_TOO_LONG)
        else:
            self._store(data, self._next_state())

    def _next_state(self) -> State:
        """What the message is once this piece is stored."""
        if not self._finished or self._size:
            return State.RECEIVING
        return State.QUEUED if self._held is None else State.HELD

    def _store(self, data: bytes, state: State) -> None:
        spool = self._carrier.spool
        self._storing = len(data) or 1
        self._is_last = state is not State.RECEIVING
        self._carrier.count(self._storing)
        if self._message_id is None:
            message = NewMessage(self._origin, self._envelope, spool.now(), state, self._held, data)
            spool.writer.put(spool.table.insert, message, self._inserted)
        else:
            piece = Piece(self._message_id, self._origin.app, self._number, data, state)
            spool.writer.put(spool.table.append, piece, self._stored)
        self._number += 1

    def _inserted(self, answer: int | Shortage | None, error: Error | None) -> None:
        if isinstance(answer, Shortage):
            self._stored(answer, error)
        else:
            self._message_id = answer
            self._stored(None, error)

    def _stored(self, shortage: Shortage | None, error: Error | None) -> None:
        stored, self._storing = self._storing, 0
        self._carrier.count(-stored)
        if self._over:
            self._discard()
        elif error is not None:
            self._fail(_UNWRITABLE)
        elif shortage is not None:
            self._fail(_NO_ROOM[shortage])
        elif self._is_last and self._message_id is not None:
            self._accept(self._message_id)
        else:
            self._go_on()
            self.resume()

    def _accept(self, message_id: int) -> None:
        self._over = True
        text = f"2.0.0 queued as {public_id(message_id)}"
        self._listener.transfer_done(Result(Reply(250, text, Outcome.ACCEPTED)))
        if self._held is None:
            self._carrier.wake()

    def _fail(self, result: Result) -> None:
        self._over = True
        self._collected.clear()
        self._discard()
        self._listener.transfer_done(result)

    def _discard(self) -> None:
        message_id, self._message_id = self._message_id, None
        if message_id is not None:
            self._carrier.discard(message_id)


def ring(bell: int) -> None:
    """Wake the process that delivers, by the eventfd that its `Deliverer` listens on."""
    os.eventfd_write(bell, 1)

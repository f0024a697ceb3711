"""
One message on its way into a pool: what is written before the upstream wants it is kept here.

Promises: a session is looked for only when the message is complete, or `BUFFER_BYTES` of it are
there, so that a client that stops before that keeps nobody waiting; the listener is told of one
result or, after `abort`, of none; at most `BUFFER_BYTES` and one piece are kept before the listener
is paused, in pieces of any length; a message whose text does not end with CRLF is not finished
upstream, because the line that ends it would not be one.
"""

from typing import Final, Protocol

from sesguard.core.envelope import Envelope
from sesguard.upstream.connection import Connection
from sesguard.upstream.failures import deferral
from sesguard.upstream.interface import Result, TransferListener

BUFFER_BYTES: Final = 64 * 1024

_NOT_WIRE_FORM: Final = deferral("4.3.0", "the message does not end with a line end")


class Waiter(Protocol):
    """Whoever looks for a connection for the transfer."""

    def ready(self, transfer: "PoolTransfer") -> None:
        """The transfer is worth a connection: it is complete, or large."""
        ...

    def give_up(self, transfer: "PoolTransfer") -> None:
        """The transfer needs no connection any more."""
        ...


class PoolTransfer:
    """
    A `Transfer`, and the `Transaction` of a connection.

    Args:
        envelope: From whom, to whom.
        listener: Told of the result, and when to pause.
        waiter: Told when it is ready; None: it is refused already.
        credential_id: See `Carrier.begin`.
        partial: Likewise.
        app: Likewise.
    """

    __slots__ = (
        "_body_is_open",
        "_buffer",
        "_connection",
        "_finished",
        "_listener",
        "_paused",
        "_tail",
        "_waiter",
        "app",
        "credential_id",
        "deadline",
        "envelope",
        "partial",
        "retried",
        "settled",
        "size",
    )

    def __init__(
        self,
        envelope: Envelope,
        listener: TransferListener,
        waiter: Waiter | None,
        *,
        credential_id: str | None,
        partial: bool,
        app: str,
    ) -> None:
        self.envelope: Final = envelope
        self.credential_id: Final = credential_id
        self.partial: Final = partial
        self.app: Final = app
        self.deadline = 0.0
        """Until when it waits for a connection."""
        self.retried = False
        """Whether it was already moved from a dead connection to another one."""
        self.settled = False
        """Whether it is over: the result was told, or it was aborted."""
        self.size = 0
        self._listener = listener
        self._buffer = bytearray()
        self._tail = b"\r\n"
        self._finished = False
        self._paused = False
        self._waiter = waiter
        self._connection: Connection | None = None
        self._body_is_open = False

    # What the writer calls (`Transfer`).

    def write(self, data: bytes) -> None:
        """See `Transfer`."""
        if self.settled:
            return
        self.size += len(data)
        self._tail = data[-2:] if len(data) > 1 else (self._tail + data)[-2:]
        if self._body_is_open and self._connection is not None:
            self._connection.write(data)
            return
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self.pause()
            if self._waiter is not None:
                self._waiter.ready(self)

    def finish(self) -> None:
        """See `Transfer`."""
        if self.settled or self._finished:
            return
        if self._tail != b"\r\n":
            self.cut(Result(_NOT_WIRE_FORM))
            return
        self._finished = True
        if self._body_is_open and self._connection is not None:
            self._connection.end_data()
        elif self._waiter is not None:
            self._waiter.ready(self)

    def abort(self) -> None:
        """See `Transfer`."""
        if not self._finished:
            self._leave()

    # What the pool and its connection call.

    @property
    def finished(self) -> bool:
        """Whether the message is complete."""
        return self._finished

    def wait_at(self, waiter: Waiter) -> None:
        """It has no connection; `waiter` looks for one."""
        self._waiter, self._connection = waiter, None

    def begin_at(self, connection: Connection) -> None:
        """It has a connection."""
        self._waiter, self._connection = None, connection
        connection.start(self)

    def open_body(self) -> bytes:
        """See `Transaction`."""
        self._body_is_open = True
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def pause(self) -> None:
        """See `Transaction`."""
        if not (self._paused or self.settled):
            self._paused = True
            self._listener.pause_transfer()

    def resume(self) -> None:
        """See `Transaction`."""
        if self._paused and not self.settled:
            self._paused = False
            self._listener.resume_transfer()

    def settle(self, result: Result) -> None:
        """See `Transaction`."""
        if self.settled:
            return
        self.settled = True
        self._buffer.clear()
        self._connection = self._waiter = None
        self._listener.transfer_done(result)

    def cut(self, result: Result) -> None:
        """End it before it is finished, with a result."""
        if not self.settled:
            self._leave()
            self._listener.transfer_done(result)

    def _leave(self) -> None:
        if self.settled:
            return
        self.settled = True
        self._buffer.clear()
        connection, self._connection = self._connection, None
        waiter, self._waiter = self._waiter, None
        if connection is not None:
            connection.abandon()
        elif waiter is not None:
            waiter.give_up(self)

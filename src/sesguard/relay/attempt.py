"""
One message on its way from the queue to a carrier, piece by piece.

Promises: at most two pieces of the message are in memory, however slow the carrier is; the message
is finished only after its last piece, so that one that cannot be read is never sent in part.
"""

from collections.abc import Callable

from sesguard.errors import Error
from sesguard.relay.spool import Spool
from sesguard.relay.spool_records import QueuedMessage
from sesguard.upstream.interface import Carrier, Result, Transfer


class Attempt:
    """
    An attempt to deliver; a `TransferListener`.

    Args:
        message: As it was claimed.
        spool: Where the rest of it is.
        ended: Takes the result.
        interrupted: Called where the message could not be read to its end; told whether that is
            because a part of it is not there.
    """

    def __init__(
        self,
        message: QueuedMessage,
        spool: Spool,
        ended: Callable[[QueuedMessage, Result], None],
        interrupted: Callable[[QueuedMessage, bool], None],
    ) -> None:
        self.message = message
        self._spool = spool
        self._ended = ended
        self._interrupted = interrupted
        self._transfer: Transfer | None = None
        self._pieces = 0
        self._bytes = 0
        self._is_paused = False
        self._is_reading = False
        self._is_finished = False
        self._is_over = False

    def begin(self, carrier: Carrier) -> None:
        """Open the transfer and write what is there."""
        self._transfer = carrier.begin(
            self.message.envelope,
            self,
            credential_id=self.message.origin.credential_id,
            partial=True,
            app=self.message.origin.app,
        )
        self._write(self.message.first_piece)

    def give_up(self) -> bool:
        """End it, unless it is finished already; tells whether that was so."""
        if self._is_finished or self._is_over:
            return False
        self._is_over = True
        if self._transfer is not None:
            self._transfer.abort()
        return True

    # As a `TransferListener`.

    def transfer_done(self, result: Result) -> None:
        """See `TransferListener`."""
        self._is_over = True
        self._ended(self.message, result)

    def pause_transfer(self) -> None:
        """See `TransferListener`."""
        self._is_paused = True

    def resume_transfer(self) -> None:
        """See `TransferListener`."""
        self._is_paused = False
        self._read()

    def _write(self, piece: bytes) -> None:
        assert self._transfer is not None
        self._pieces += 1
        self._bytes += len(piece)
        self._transfer.write(piece)
        if self._bytes < self.message.size:
            self._read()
        elif not self._is_over:
            self._is_finished = True
            self._transfer.finish()

    def _read(self) -> None:
        if self._is_paused or self._is_reading or self._is_finished or self._is_over:
            return
        self._is_reading = True
        place = (self.message.id, self._pieces)
        self._spool.writer.put(self._spool.table.read_piece, place, self._read_done)

    def _read_done(self, piece: bytes | None, error: Error | None) -> None:
        self._is_reading = False
        if self._is_over:
            return
        if piece is None or error is not None:
            self.give_up()
            self._interrupted(self.message, error is None)
        else:
            self._write(piece)

"""
A listener for clients from elsewhere, whose connections begin with TLS.

Promises
    A client has a place among the strangers before its handshake begins, so that unfinished
    handshakes are counted with all connections; without a place it is closed at once.
    A handshake that is not over in time ends the connection.

Raises nothing once it serves. While the process has no descriptor left, it accepts nothing for a
second at a time.
"""

import asyncio
import socket
import ssl
from typing import Final

from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.model import Reason
from sesguard.relay.service import Relay
from sesguard.relay.session import Session
from sesguard.relay.shares import Place

_NO_DESCRIPTOR_S: Final = 1.0


class TlsListener:
    """
    Serves the clients of one socket, which is its own from now on.

    Args:
        relay: What sessions share.
        listener: Bound, listening and not blocking.
        tls: With our certificate.
        is_lmtp: Whether LMTP is spoken.
    """

    def __init__(
        self, relay: Relay, listener: socket.socket, tls: ssl.SSLContext, *, is_lmtp: bool
    ) -> None:
        self._relay = relay
        self._listener = listener
        self._tls = tls
        self._is_lmtp = is_lmtp
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept nothing more, and end the handshakes; sessions go on."""
        self._accepting.cancel()
        # A handshake that was cancelled before its first step would leave its socket open.
        self._loop.call_soon(self._end_handshakes)

    def _end_handshakes(self) -> None:
        for handshake in self._handshakes:
            handshake.cancel()

    async def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = await self._loop.sock_accept(self._listener)
                except ConnectionAbortedError:
                    continue
                except OSError:
                    await asyncio.sleep(_NO_DESCRIPTOR_S)
                    continue
                self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        relay = self._relay
        place = relay.shares.take(None, relay.limits.max_connections, is_stranger=True)
        if place is None:
            connection.close()
            protocol = "lmtp" if self._is_lmtp else "smtp"
            relay.sink(RelayEvent(Fate.DEFERRED, protocol, reason=Reason.BUSY))
            return
        handshake = self._loop.create_task(self._shake_hands(connection, place))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket, place: Place) -> None:
        limits = self._relay.limits
        session = Session(self._relay, is_lmtp=self._is_lmtp, place=place)
        try:
            await self._loop.connect_accepted_socket(
                lambda: session,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=limits.handshake_timeout_s,
                ssl_shutdown_timeout=limits.parting_s,
            )
        except (OSError, asyncio.CancelledError):
            # It speaks no TLS, was too slow or has gone: there is no session that would do it.
            place.give_back()

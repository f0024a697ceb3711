"""
The listeners of the relay in one process.

Raises nothing once it serves. What a client may do to us is bounded by `SessionLimits`; a sweep
once a second lets those go whose time is over, so that no message costs a timer.
"""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Final

from sesguard.errors import SystemFault
from sesguard.relay.service import Relay
from sesguard.relay.session import Session
from sesguard.relay.tls_listener import TlsListener

BACKLOG: Final = 1024
"""Clients that may wait to be accepted; the event loop would set 100 where it is not told."""

_SWEEP_S: Final = 1.0
_LAST_WORDS_S: Final = 1.0
"""Of the time to stop: for those who are let go at its end."""
_POLL_S: Final = 0.02


class RelayServer:
    """
    Serves clients on the running event loop.

    Args:
        relay: What sessions share.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server | TlsListener] = []
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    async def serve(
        self,
        listener: socket.socket,
        *,
        is_lmtp: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Serve the clients of one more listener, which is ours from now on.

        Args:
            listener: Bound and listening, Unix or TCP.
            is_lmtp: Whether LMTP is spoken.
            tls: The connection begins with TLS, and only a token tells who the client is.
        """

        def make_session() -> Session:
            """One for each client."""
            return Session(self._relay, is_lmtp=is_lmtp)

        listener.setblocking(False)
        if tls is not None:
            listener.listen(BACKLOG)
            self._servers.append(TlsListener(self._relay, listener, tls, is_lmtp=is_lmtp))
        elif listener.family == socket.AF_UNIX:
            self._servers.append(
                await self._loop.create_unix_server(make_session, sock=listener, backlog=BACKLOG)
            )
        else:
            self._servers.append(
                await self._loop.create_server(make_session, sock=listener, backlog=BACKLOG)
            )

    async def stop(self, *, timeout_s: float) -> None:
        """
        Accept nothing more, let messages that are being received end, then let all go.

        Args:
            timeout_s: For all of it; who is still connected then is cut off.
        """
        for server in self._servers:
            server.close()
        sessions = self._relay.sessions
        for session in list(sessions):
            session.stop()
        await self._wait_until_gone(max(0.0, timeout_s - _LAST_WORDS_S))
        for session in list(sessions):
            session.stop(at_once=True)
        await self._wait_until_gone(_LAST_WORDS_S)
        self._sweeping.cancel()
        for session in list(sessions):
            session.abort()

    async def _wait_until_gone(self, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        # Once in the life of a process: not worth an event that every session would have to know.
        while self._relay.sessions and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _sweep(self) -> None:
        now = self._loop.time()
        for session in list(self._relay.sessions):
            session.check(now)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """
    A TLS context for clients from elsewhere.

    Raises:
        SystemFault: Certificate or key cannot be read, or do not fit.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SystemFault(
            "cannot use the certificate {certificate} with the key {key}: {reason}",
            hint="name PEM files that belong together in [relay]",
            certificate=certificate,
            key=key,
            reason=error.strerror or "they do not fit",
        ) from error
    return context

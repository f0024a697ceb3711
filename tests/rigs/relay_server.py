"""
A `RelayServer` on the test's own event loop, with an upstream that answers by a script.

    async with serving(tmp_path) as served:
        async with served.client() as client:
            await client.send(b"EHLO a\r\n")

The test's own user is the app `mta`, which may send as anybody; with `apps=()` it is a stranger.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rigs.queue import ScriptedCarrier
from sesguard.relay.apps import AppRule
from sesguard.relay.events import RelayEvent
from sesguard.relay.identity import Identities
from sesguard.relay.model import App, DeliveryMode
from sesguard.relay.rates import RateTable
from sesguard.relay.registry import AppRegistry
from sesguard.relay.routes import Routes
from sesguard.relay.server import RelayServer
from sesguard.relay.service import Relay, SessionLimits
from sesguard.relay.spool import SpoolCarrier
from sesguard.relay.trace import Trace

TIMEOUT_S = 20.0
SMALL_BUFFER = 4096
"""Octets of a socket's buffer, so that little is enough to fill it; the kernel doubles it."""
LONG_NAME = ".".join(["x" * 60] * 4)
"""Of a host: replies to EHLO are long."""
MTA = App("mta", senders=("*",), delivery=DeliveryMode.PASS)


class Client:
    """
    One connection that says and reads exactly what a test wants.

    Args:
        channel: Connected; not blocking.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Say it, as far as the relay takes it."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await self._loop.sock_sendall(self.channel, data)

    async def hear_until(self, end: bytes) -> bytes:
        """All that is said until a text is in it, or until the relay closes."""
        heard = b""
        async with asyncio.timeout(TIMEOUT_S):
            while end not in heard and (data := await self._read()):
                heard += data
        return heard

    async def hear_end(self) -> bytes:
        """All that is said until the relay closes."""
        heard = b""
        async with asyncio.timeout(TIMEOUT_S):
            while data := await self._read():
                heard += data
        return heard

    async def _read(self) -> bytes:
        with contextlib.suppress(ConnectionResetError):
            return await self._loop.sock_recv(self.channel, 65536)
        return b""


@dataclass
class Served:
    """The server, what it shares, and what it reported."""

    relay: Relay
    server: RelayServer
    upstream: ScriptedCarrier
    address: tuple[str, int]
    events: list[RelayEvent] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client; little is enough to fill what its socket can hold."""
        with socket.socket() as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            channel.setblocking(False)
            await asyncio.get_running_loop().sock_connect(channel, self.address)
            yield Client(channel)

    async def until_sessions(self, count: int) -> None:
        """Wait until there are so many."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.relay.sessions) != count:  # noqa: ASYNC110 - the relay has no event
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    *,
    limits: SessionLimits | None = None,
    tls: ssl.SSLContext | None = None,
    is_lmtp: bool = False,
    apps: Sequence[App] = (MTA,),
) -> AsyncIterator[Served]:
    """Serve on a port of the loopback for the time of a block; the test's user is each app."""
    events: list[RelayEvent] = []
    upstream = ScriptedCarrier()
    rules = [AppRule(app.name, app, uids=frozenset({os.geteuid()})) for app in apps]
    relay = Relay(
        identities=Identities(rules, AppRegistry(directory / "apps.json")),
        rates=RateTable(directory / "rates"),
        routes=Routes([], {}),
        upstream=upstream,
        # No app of these tests has the mode `spool`.
        spool=cast("SpoolCarrier", None),
        trace=Trace("relay.test", 0),
        sink=events.append,
        host_name=LONG_NAME,
        limits=limits or SessionLimits(),
        now=time.time,
    )
    server = RelayServer(relay)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = listener.getsockname()
    await server.serve(listener, is_lmtp=is_lmtp, tls=tls)
    try:
        yield Served(relay, server, upstream, address, events)
    finally:
        await server.stop(timeout_s=0)

"""A pool for tests, and a vault that is a variable."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from rigs.async_peer import AsyncPeer, Listener
from rigs.smtp_peer import PASSWORD, USER
from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint
from sesguard.core.envelope import Envelope, Recipient
from sesguard.core.routing import RoutingRule
from sesguard.core.secret import Secret
from sesguard.errors import Error
from sesguard.upstream.interface import Carrier, Result
from sesguard.upstream.lane import Destination
from sesguard.upstream.pool import UpstreamPool
from sesguard.upstream.timeouts import Timeouts

T = TypeVar("T")

QUICK = Timeouts(session_s=5, reply_s=5, data_s=5, final_s=5, wait_s=10)
HASTY = replace(QUICK, connect_rest_s=0.05, login_rest_s=0.05)
"""After a refused connection or login the next is tried in a moment."""
LOCK_STEP = ("8BITMIME",)
"""The features of a peer without PIPELINING: it gets one command at a time."""
SENDER = "app@example.com"
RECIPIENT = "user@example.net"
MESSAGE = b"From: app@example.com\r\n\r\nHello.\r\n"
LARGE = MESSAGE + (b"x" * 998 + b"\r\n") * 66
"""Enough of a message for it to get a session before it is complete."""

_OF_BEGIN = ("credential_id", "partial", "app")


class Vault:
    """A `CredentialSource` whose answer a test sets."""

    def __init__(self, username: str = USER, password: str = PASSWORD) -> None:
        self.fault: Error | None = None
        self.asked = 0
        self._version = 0
        self.rotate(username, password)

    def rotate(self, username: str, password: str) -> None:
        """A new version is CURRENT."""
        self._version += 1
        self._current = CredentialVersion(
            self._version, username, {"us-east-1": Secret(password)}, "2026-01-01T00:00:00Z", "test"
        )

    def current(self, credential_id: str) -> CredentialVersion:
        """See `CredentialSource`."""
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self._current


def destination(*endpoints: Endpoint, ca_file: Path | None, name: str = "main") -> Destination:
    """Where the mail of one credential goes."""
    rule = RoutingRule(name, endpoints[0].host, endpoints[0].port, ("us-east-1",))
    return Destination(rule, endpoints, ca_file)


@asynccontextmanager
async def pool_to(
    *endpoints: Endpoint, ca_file: Path | None, vault: Vault | None = None, **options: Any
) -> AsyncIterator[UpstreamPool]:
    """A pool that sends to these endpoints."""
    pool = UpstreamPool(
        vault or Vault(),
        [destination(*endpoints, ca_file=ca_file)],
        **{"timeouts": QUICK, "max_connections": 5, **options},
    )
    try:
        yield pool
    finally:
        await pool.close(timeout_s=5)


def at(peer: AsyncPeer) -> Endpoint:
    """Where the peer is."""
    return Endpoint(peer.host, peer.port)


def envelope(*recipients: str, sender: str = SENDER, **options: Any) -> Envelope:
    """An envelope."""
    to = recipients or (RECIPIENT,)
    return Envelope(sender, tuple(Recipient(each) for each in to), **options)


async def send(
    carrier: Carrier, *recipients: str, message: bytes = MESSAGE, **options: Any
) -> Result:
    """Send one message."""
    begin = {name: options.pop(name) for name in _OF_BEGIN if name in options}
    listener = Listener()
    transfer = carrier.begin(envelope(*recipients, **options), listener, **begin)
    transfer.write(message)
    transfer.finish()
    return await listener.result()


def run_on(name: str) -> Callable[[Coroutine[Any, Any, T]], T]:
    """A function that runs a coroutine on the event loop of that name, and finds what it lost."""

    def run(main: Coroutine[Any, Any, T]) -> T:
        factory = uvloop.new_event_loop if name == "uvloop" else asyncio.new_event_loop
        faults: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))
            result = runner.run(main)
        assert faults == []
        return result

    return run

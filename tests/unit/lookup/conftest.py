"""What the lookup tests share: credentials in memory, a desk, and a server in a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sesguard.core.credential import CredentialVersion
from sesguard.core.routing import RoutingRule
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError, Error
from sesguard.lookup.desk import LookupDesk
from sesguard.lookup.interface import Dialogue
from sesguard.lookup.model import LookupEvent
from sesguard.lookup.server import Limits, LookupServer

US = "email-smtp.us-east-1.amazonaws.com"
RULES = (
    RoutingRule("main", US, 587, ("us-east-1",)),
    RoutingRule("shop", US, 587, ("us-east-1",), ("shop.example",)),
)


class MemorySource:
    """A `CredentialSource` whose versions the test edits."""

    def __init__(self) -> None:
        self.versions: dict[str, CredentialVersion] = {}
        self.problem: Error | None = None
        self.put("main", 1, "AKIAMAIN000000000000", "main-password")
        self.put("shop", 7, "AKIASHOP000000000000", "shop-password")

    def put(self, name: str, number: int, username: str, password: str) -> None:
        """Make a version the CURRENT one."""
        self.versions[name] = CredentialVersion(
            number, username, {"us-east-1": Secret(password)}, "2026-01-01T00:00:00Z", "test"
        )

    def current(self, credential_id: str) -> CredentialVersion:
        """The CURRENT version."""
        if self.problem is not None:
            raise self.problem
        if credential_id not in self.versions:
            raise CredentialError("credential {id} has no CURRENT version", id=credential_id)
        return self.versions[credential_id]


@dataclass
class Counter:
    """A desk with its source and the events that it reported."""

    desk: LookupDesk
    source: MemorySource
    events: list[LookupEvent]


@dataclass
class Served:
    """A server that runs in a thread."""

    path: Path
    server: LookupServer
    loop: asyncio.AbstractEventLoop
    bugs: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False

    def connect(self) -> socket.socket:
        """A new connection with a time limit."""
        client = socket.socket(socket.AF_UNIX)
        try:
            client.settimeout(10)
            client.connect(str(self.path))
        except OSError:
            client.close()
            raise
        return client

    def call(self, act: Callable[[], Any]) -> Any:
        """Run something in the server's thread and give its result."""

        async def run() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def links(self) -> list[Any]:
        """The connections that the server waits for."""
        return list(self.call(lambda: set(self.server._waiting)))

    def stop(self, timeout_s: float) -> None:
        """Stop the server and wait for it."""
        self.stopped = True
        stopping = self.server.stop(timeout_s=timeout_s)
        asyncio.run_coroutine_threadsafe(stopping, self.loop).result(20)


@pytest.fixture
def counter() -> Callable[..., Counter]:
    """Make a desk: ``counter("exim", require_tls=False)``."""

    def make(protocol: str, *, require_tls: bool = True) -> Counter:
        source, events = MemorySource(), list[LookupEvent]()
        desk = LookupDesk(protocol, source, RULES, require_tls=require_tls, sink=events.append)
        return Counter(desk, source, events)

    return make


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Run servers: ``serve(dialogue, limits, events)``."""
    with contextlib.ExitStack() as stack:

        def start(dialogue: Dialogue, limits: Limits, events: list[LookupEvent]) -> Served:
            path = tmp_path / "s"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(1024)
            ready: list[Served] = []
            started, ending = threading.Event(), asyncio.Event()

            async def run() -> None:
                loop = asyncio.get_running_loop()
                server = LookupServer(listener, dialogue, limits, events.append)
                served = Served(path, server, loop)
                loop.set_exception_handler(lambda _loop, context: served.bugs.append(context))
                ready.append(served)
                started.set()
                await ending.wait()
                if not served.stopped:
                    await server.stop(timeout_s=0)

            thread = threading.Thread(target=lambda: asyncio.run(run()))
            thread.start()

            def end() -> None:
                ready[0].loop.call_soon_threadsafe(ending.set)
                thread.join(20)
                assert not thread.is_alive()

            assert started.wait(10)
            stack.callback(end)
            return ready[0]

        yield start

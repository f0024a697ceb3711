"""Clients from elsewhere: handshakes are counted, and end in time, as all who say nothing do."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from rigs.pool import run_on
from rigs.relay_server import Served, serving
from sesguard.relay.events import Fate
from sesguard.relay.model import Reason
from sesguard.relay.service import SessionLimits

Run = Callable[[Coroutine[Any, Any, None]], None]
FEW = SessionLimits(max_connections=8, parting_s=0.5, handshake_timeout_s=0.5)
"""One stranger at a time."""
PATIENT = SessionLimits(max_connections=8, parting_s=0.5)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of event loop."""
    return run_on(request.param)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the relay's certificate."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """The relay's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def secured(authority: trustme.CA) -> Any:
    """Makes a client with verified TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)

    @contextlib.asynccontextmanager
    async def connect(
        served: Served,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*served.address, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    return connect


def test_unfinished_handshake_holds_a_place_for_a_short_time(
    run: Run, tmp_path: Path, tls: ssl.SSLContext, secured: Any
) -> None:
    """The next one is closed without a word meanwhile; then the place is free."""

    async def main() -> None:
        async with serving(tmp_path, limits=FEW, tls=tls) as served:
            async with served.client() as silent, served.client() as second:
                assert b"" == await second.hear_end()
                assert b"" == await silent.hear_end()
            [event] = served.events
            assert (Fate.DEFERRED, Reason.BUSY) == (event.fate, event.reason)
            async with secured(served) as (reader, _):
                assert (await reader.readline()).startswith(b"220 ")

    run(main())


@pytest.mark.parametrize("said", [b"EHLO a\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_failed_handshake_gives_its_place_back(
    run: Run, tmp_path: Path, tls: ssl.SSLContext, secured: Any, said: bytes
) -> None:
    """Of one that speaks no TLS, or that has gone."""

    async def main() -> None:
        async with serving(tmp_path, limits=PATIENT, tls=tls) as served:
            async with served.client() as client:
                if said:
                    await client.send(said)
                    assert b"220" not in await client.hear_end()
            async with asyncio.timeout(20):
                greeting = b""
                while not greeting:
                    # The relay may still have to notice that the first one has gone.
                    with contextlib.suppress(ConnectionError):
                        async with secured(served) as (reader, _):
                            greeting = await reader.readline()
            assert greeting.startswith(b"220 ")

    run(main())


@pytest.mark.parametrize("said", [b"QUIT\r\n", b"EHLO a\r\n" * 99 + b"QUIT\r\n"])
def test_client_that_does_not_end_tls_is_cut_off(
    run: Run, tmp_path: Path, tls: ssl.SSLContext, secured: Any, said: bytes
) -> None:
    """It neither reads nor says that it is done, and does not close."""

    async def main() -> None:
        async with (
            serving(tmp_path, limits=PATIENT, tls=tls) as served,
            secured(served) as (reader, writer),
        ):
            assert (await reader.readline()).startswith(b"220 ")
            writer.transport.pause_reading()
            writer.write(said)
            await served.until_sessions(0)

    run(main())


def test_stranger_from_elsewhere_has_its_own_time(
    run: Run, tmp_path: Path, tls: ssl.SSLContext, secured: Any
) -> None:
    """It is let go with 421, though it speaks."""
    limits = SessionLimits(max_connections=8, public_login_timeout_s=0.5)

    async def main() -> None:
        async with (
            serving(tmp_path, limits=limits, tls=tls) as served,
            secured(served) as (reader, writer),
        ):
            assert (await reader.readline()).startswith(b"220 ")
            line = b"250 "
            while line.startswith(b"250 "):
                writer.write(b"NOOP\r\n")
                await asyncio.sleep(0.1)
                line = await asyncio.wait_for(reader.readline(), 20)
            assert line.startswith(b"421 4.4.2 ")

    run(main())


def test_stop_ends_handshakes_and_sessions(
    run: Run, tmp_path: Path, tls: ssl.SSLContext, secured: Any
) -> None:
    """Nothing is accepted afterwards."""
    limits = SessionLimits(max_connections=32, parting_s=0.5)

    async def main() -> None:
        async with (
            serving(tmp_path, limits=limits, tls=tls) as served,
            secured(served) as (reader, _),
            served.client() as silent,
        ):
            assert (await reader.readline()).startswith(b"220 ")
            await served.server.stop(timeout_s=300)
            assert (await reader.readline()).startswith(b"421 4.3.2 ")
            assert b"" == await silent.hear_end()
            with pytest.raises(ConnectionRefusedError):
                async with served.client():
                    pass

    run(main())

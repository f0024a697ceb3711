"""Certificates and peers for the tests of the sending side."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from rigs.pool import run_on
from rigs.smtp_peer import Peer, Script, Server, server_context, smtp_server


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The CA that our peers' certificates chain to."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate as a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Server side of TLS, for 127.0.0.1 and its neighbours."""
    return server_context(authority, "127.0.0.1", *(f"127.0.0.{last}" for last in range(10, 20)))


@pytest.fixture
def server(server_tls: ssl.SSLContext) -> Iterator[Server]:
    """A server that wants STARTTLS and AUTH, as SES does."""
    with smtp_server(server_tls) as running:
        yield running


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Make scripted peers; they are stopped at the end."""
    peers: list[Peer] = []

    def make(script: Script, address: tuple[str, int] = ("127.0.0.1", 0)) -> Peer:
        peers.append(Peer(script, address))
        return peers[-1]

    yield make
    for each in peers:
        each.stop()


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a coroutine on each kind of event loop."""
    return run_on(str(request.param))

"""
The sandbox as a whole: builds the parts, opens the ports, runs until it is told to stop.

Three listeners on 127.0.0.1, each on a port given or free: HTTP (AWS and control interface, a
thread per request), SMTP with STARTTLS, SMTP with TLS from the start. Clients may come from any
127.x.y.z: that is how tests have different source addresses.

`serve` writes the state file (``sandbox.json``) and the CA certificate (``ca.pem``) into its
directory once everything answers, removes the state file at the end, and stops on SIGTERM and
SIGINT. Raises `SandboxError` when a port is taken, `SystemFault` when the directory cannot be
written.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from sesguard.core.endpoints import require_region
from sesguard.errors import SandboxError
from sesguard.sandbox.dialogue import Dialogue
from sesguard.sandbox.model import (
    CA_FILE,
    DEFAULT_REGION,
    STATE_FILE,
    SandboxInfo,
    SandboxSettings,
    encode,
)
from sesguard.sandbox.overlay import Overlay
from sesguard.sandbox.smtp import SesSmtp
from sesguard.sandbox.state import SandboxState
from sesguard.sandbox.tls import CertificateAuthority
from sesguard.system.files import remove_file, write_atomic

ADDRESS: Final = "127.0.0.1"

_PARENT_CHECK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a sandbox."""

    directory: Path
    """For the state file and the CA certificate."""
    region: str = DEFAULT_REGION
    http_port: int = 0
    starttls_port: int = 0
    tls_port: int = 0
    exit_with_parent: bool = False
    """End when the process that started us ends, however it ends."""


def serve(options: Options, *, ready: Callable[[SandboxInfo], None] = lambda _: None) -> None:
    """
    Run a sandbox until SIGTERM or SIGINT.

    Args:
        options: How.
        ready: Called once everything answers.

    Raises:
        CredentialError: The region has not the form of one.
        SandboxError: A port cannot be opened.
        SystemFault: The directory cannot be written.
    """
    asyncio.run(_serve(options, ready))


async def _serve(options: Options, ready: Callable[[SandboxInfo], None]) -> None:
    state = SandboxState(SandboxSettings(region=require_region(options.region)))
    authority = CertificateAuthority()
    write_atomic(options.directory / CA_FILE, authority.certificate_pem, mode=0o644)
    with ExitStack() as stack:
        http_port = stack.enter_context(_http_listener(state, options.http_port))
        async with _smtp_listeners(state, authority, options) as (starttls_port, tls_port):
            info = SandboxInfo(
                endpoint_url=f"http://{ADDRESS}:{http_port}",
                smtp_host="localhost",
                starttls_port=starttls_port,
                tls_port=tls_port,
                ca_file=(options.directory / CA_FILE).absolute(),
                pid=os.getpid(),
                region=options.region,
            )
            stack.enter_context(_state_file(options.directory / STATE_FILE, info))
            ready(info)
            await _stopped(exit_with_parent=options.exit_with_parent)


@contextmanager
def _http_listener(state: SandboxState, port: int) -> Iterator[int]:
    overlay = Overlay(state, DomainDispatcherApplication(create_backend_app))
    # werkzeug reports a port that is taken by ending the process.
    try:
        server = make_server(ADDRESS, port, overlay, threaded=True, request_handler=_Handler)
    except (OSError, SystemExit) as error:
        raise _port_fault(port, error) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield _port_of(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@asynccontextmanager
async def _smtp_listeners(
    state: SandboxState, authority: CertificateAuthority, options: Options
) -> AsyncIterator[tuple[int, int]]:
    context = authority.server_context(lambda: state.tls_mode)

    def starttls() -> SesSmtp:
        dialogue = Dialogue(state, tls_wrapper=False)
        return SesSmtp(
            dialogue,
            starttls_context=None if dialogue.stripped else context,
            idle_timeout_s=state.settings.idle_timeout_s,
        )

    def tls_wrapper() -> SesSmtp:
        return SesSmtp(
            Dialogue(state, tls_wrapper=True),
            starttls_context=None,
            idle_timeout_s=state.settings.idle_timeout_s,
        )

    first = await _listen(starttls, options.starttls_port)
    second = await _listen(tls_wrapper, options.tls_port, ssl=context)
    try:
        yield first.sockets[0].getsockname()[1], second.sockets[0].getsockname()[1]
    finally:
        first.close()
        second.close()


async def _listen(factory: Callable[[], SesSmtp], port: int, **options: Any) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(factory, ADDRESS, port, backlog=1024, **options)
    except OSError as error:
        raise _port_fault(port, error) from error


async def _stopped(*, exit_with_parent: bool) -> None:
    """Wait for a signal, or for the parent's end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parent = os.getppid()
    while not stop.is_set() and not (exit_with_parent and os.getppid() != parent):
        try:
            await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S if exit_with_parent else None)
        except TimeoutError:
            continue


@contextmanager
def _state_file(path: Path, info: SandboxInfo) -> Iterator[None]:
    write_atomic(path, encode(info), mode=0o600)
    try:
        yield
    finally:
        remove_file(path)


class _Handler(MotoRequestHandler):
    """Serves HTTP/1.1 without the access log and without waiting for more bytes to send."""

    disable_nagle_algorithm = True

    def log_request(self, *_: object) -> None:
        pass


def _port_of(server: BaseWSGIServer) -> int:
    return int(server.socket.getsockname()[1])


def _port_fault(port: int, error: BaseException) -> SandboxError:
    reason = error.strerror if isinstance(error, OSError) else "the port is taken"
    return SandboxError(
        "cannot listen on {address}:{port}: {reason}", address=ADDRESS, port=port, reason=reason
    )


def set_up_logging(handler: logging.Handler) -> None:
    """Let warnings and the reasons of denials be seen, and the libraries' chatter not."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("sesguard").setLevel(logging.INFO)
    for name in ("mail.log", "mail.debug", "werkzeug", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)

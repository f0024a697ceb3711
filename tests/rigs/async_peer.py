"""An SMTP server on the test's own event loop: it takes mail, and misbehaves on demand."""

import asyncio
import contextlib
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from rigs.smtp_peer import PASSWORD, USER
from sesguard.core.endpoints import TLS_WRAPPER_PORTS
from sesguard.core.secret import Secret
from sesguard.upstream.interface import Result, Transfer
from sesguard.upstream.wire import auth_plain_reveal

MESSAGE_ID = "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"


class Act(Enum):
    """What the server does instead of a reply."""

    DROP = auto()
    """Resets the connection."""
    STALL = auto()
    """Says nothing until the client goes away."""


@dataclass(frozen=True)
class Mail:
    """A message that was taken."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    """In wire form."""
    connection: int
    user: str


@dataclass
class AsyncPeer:
    """The server. ``next_replies["MAIL"]`` are what it says to the next MAIL commands."""

    context: ssl.SSLContext
    features: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE 41943040")
    host: str = "127.0.0.1"
    port: int = 0
    passwords: dict[str, str] = field(default_factory=lambda: {USER: PASSWORD})
    mails: list[Mail] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    """Every command, AUTH without its message."""
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    next_replies: dict[str, deque[str | Act]] = field(default_factory=lambda: defaultdict(deque))
    """For CONNECT, a command, a ``TEXT`` (the end of a message), and ``DURING`` (in its text)."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: messages are read no further."""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def say_next(self, stage: str, *replies: str | Act) -> None:
        """Answer the next commands so; a reply that begins with 421 also ends the connection."""
        self.next_replies[stage] += replies

    def drop_all(self) -> None:
        """Close every connection."""
        for writer in [*self.writers]:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self.writers.add(writer)
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            await _Dialogue(self, reader, writer, self.connections).run()
        self.open_now -= 1
        self.writers.discard(writer)
        writer.transport.abort()


class _Dialogue:
    def __init__(
        self,
        peer: AsyncPeer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._number = number
        self._secure = False
        self._user = ""
        self._sender = ""
        self._recipients: list[str] = []

    async def run(self) -> None:
        self._secure = self._writer.get_extra_info("ssl_object") is not None
        await self._answer("CONNECT", "220 peer ESMTP")
        while True:
            line = (await self._reader.readuntil(b"\r\n")).decode().rstrip("\r\n")
            verb = line[:4].upper()
            self._peer.heard.append("AUTH" if verb == "AUTH" else line)
            if verb == "QUIT":
                return
            await self._command(verb, line)

    async def _command(self, verb: str, line: str) -> None:
        address = line.partition("<")[2].partition(">")[0]
        match verb:
            case "EHLO":
                offer = ("AUTH PLAIN", *self._peer.features) if self._secure else ("STARTTLS",)
                lines = ["peer", *offer]
                said = [f"250-{each}\r\n" for each in lines[:-1]]
                await self._answer("EHLO", "".join(said) + f"250 {lines[-1]}")
            case "STAR" if await self._answer("STAR", "220 go"):
                await self._writer.start_tls(self._peer.context)
                self._secure = True
            case "AUTH":
                await self._log_in(line)
            case "MAIL" if await self._answer("MAIL", "250 Ok"):
                self._sender, self._recipients = address, []
            case "RCPT" if await self._answer("RCPT", "250 Ok"):
                self._recipients.append(address)
            case "DATA":
                await self._data()
            case "RSET":
                self._recipients = []
                await self._answer("RSET", "250 Ok")

    async def _data(self) -> None:
        usual = "354 go ahead" if self._recipients else "554 no valid recipients"
        if await self._answer("DATA", usual):
            await self._read_text()

    async def _log_in(self, line: str) -> None:
        for user, password in self._peer.passwords.items():
            if auth_plain_reveal(user, Secret(password)).decode().rstrip() == line:
                self._user = user
                await self._answer("AUTH", "235 Authentication successful.")
                return
        await self._answer("AUTH", "535 Authentication Credentials Invalid")

    async def _read_text(self) -> None:
        if self._peer.next_replies["DURING"]:
            await self._reader.readexactly(1)
            await self._answer("DURING", "")
        text = bytearray(b"\r\n")
        while not text.endswith(b"\r\n.\r\n"):
            await self._peer.gate.wait()
            piece = await self._reader.read(1 << 20)
            if not piece:
                raise EOFError
            searched = max(0, len(text) - 4)
            text += piece
            end = text.find(b"\r\n.\r\n", searched)
            assert end in (-1, len(text) - 5), "something follows the end of the message"
        if await self._answer("TEXT", f"250 Ok {MESSAGE_ID}"):
            self._peer.mails.append(
                Mail(
                    self._sender,
                    tuple(self._recipients),
                    bytes(text[2:-3]),
                    self._number,
                    self._user,
                )
            )
        self._recipients = []

    async def _answer(self, stage: str, usual: str) -> bool:
        """Say what is due; gives whether it was good."""
        planned = self._peer.next_replies[stage]
        reply = planned.popleft() if planned else usual
        if reply is Act.DROP:
            self._writer.transport.abort()
            raise EOFError
        if reply is Act.STALL:
            await self._reader.read(1 << 20)
            raise EOFError
        self._writer.write(f"{reply}\r\n".encode() if reply else b"")
        await self._writer.drain()
        if reply.startswith("421"):
            raise EOFError
        return reply[:1] in ("2", "3")


@contextlib.asynccontextmanager
async def running_peer(
    context: ssl.SSLContext, *, host: str = "127.0.0.1", port: int = 0, **options: object
) -> AsyncIterator[AsyncPeer]:
    """Run the server for the length of a block."""
    peer = AsyncPeer(context, host=host, **options)  # type: ignore[arg-type]
    peer.gate.set()
    wrapped = context if port in TLS_WRAPPER_PORTS else None
    server = await asyncio.start_server(peer.serve, host, port, ssl=wrapped)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        peer.gate.set()
        peer.drop_all()
        while peer.open_now:  # noqa: ASYNC110 - polled, as everything is that has no event
            await asyncio.sleep(0.001)


class Listener:
    """A `TransferListener` that a test can wait for."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.is_paused = False
        self.pauses = 0
        self._done = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()

    def transfer_done(self, result: Result) -> None:
        self.results.append(result)
        self._done.set()
        self._may_write.set()

    def pause_transfer(self) -> None:
        self.is_paused = True
        self.pauses += 1
        self._may_write.clear()

    def resume_transfer(self) -> None:
        self.is_paused = False
        self._may_write.set()

    async def result(self) -> Result:
        """The one result."""
        async with asyncio.timeout(30):
            await self._done.wait()
        await asyncio.sleep(0)
        assert len(self.results) == 1
        return self.results[0]

    async def write_all(self, transfer: Transfer, pieces: "list[bytes]") -> None:
        """Write as fast as the transfer lets us."""
        for piece in pieces:
            await self._may_write.wait()
            transfer.write(piece)
            await asyncio.sleep(0)


async def until(check: Callable[[], object], *, timeout_s: float = 20) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110 - polled, as the rest of the tests do
            await asyncio.sleep(0.002)

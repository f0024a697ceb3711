"""
How an SMTP session with an upstream begins: greeting, EHLO, STARTTLS, EHLO, AUTH.

Promises: nothing but EHLO and STARTTLS is said before TLS is up and verified, and nothing but AUTH
before the login; a peer that says more than the one reply that is due is cut off (before TLS it is
an attempt to inject replies into the secured session, CVE-2011-0411); all of it together has one
deadline; no text holds the password, also when the peer sends it back.

Raises `LoginRefused`, `SessionRefused`, `TemporaryFailure`, and `UpstreamError` for what a person
must look at: no verified TLS, no AUTH PLAIN, no SMTP.

Sources: RFC 5321, 3.1; RFC 3207; RFC 4954.
"""

import asyncio
import smtplib
import socket
import ssl
from dataclasses import dataclass
from typing import Final, cast

from sesguard.core.endpoints import Endpoint
from sesguard.core.secret import Secret
from sesguard.errors import UpstreamError
from sesguard.upstream.failures import SessionRefused
from sesguard.upstream.faults import network_error
from sesguard.upstream.replies import Outcome, Reply, classify
from sesguard.upstream.smtp import LoginRefused
from sesguard.upstream.wire import NotSmtp, Offer, Redactor, ReplyReader, auth_plain_reveal

_TLS_SHUTDOWN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Login:
    """A credential version at one endpoint."""

    credential_id: str
    version: int
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is ready for its first message."""

    endpoint: Endpoint
    login: Login
    transport: asyncio.Transport
    offer: Offer
    redactor: Redactor


async def open_session(
    endpoint: Endpoint, login: Login, context: ssl.SSLContext, timeout_s: float
) -> Session:
    """
    Connect, secure the session and log in.

    Args:
        endpoint: Host and port; the port says whether TLS comes first or by STARTTLS.
        login: The credential to use.
        context: TLS, from `tls_context`.
        timeout_s: Time for all of it.

    Raises:
        LoginRefused: Not with this user and password.
        SessionRefused: The upstream asks to come back later.
        TemporaryFailure: Not reachable, too slow, or the connection broke.
        UpstreamError: No verified TLS, no AUTH PLAIN, no SMTP.
    """
    handshake = _Handshake(endpoint, login)
    try:
        async with asyncio.timeout(timeout_s):
            await handshake.secure(context)
            return await handshake.log_in()
    except (OSError, UnicodeError) as error:
        handshake.drop()
        raise network_error(error, endpoint, timeout_s) from error
    except BaseException:
        handshake.drop()
        raise


class _Handshake(asyncio.Protocol):
    """The protocol of the connection until the session is ready."""

    def __init__(self, endpoint: Endpoint, login: Login) -> None:
        self._endpoint = endpoint
        self._login = login
        self._loop = asyncio.get_running_loop()
        self._redactor = Redactor(login.username, login.password)
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._offer = Offer()
        self._answer: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._said_too_much = False
        self._lost = False

    async def secure(self, context: ssl.SSLContext) -> None:
        """Connect and put TLS up."""
        host, port = self._endpoint.host, self._endpoint.port
        if self._endpoint.starts_with_tls:
            await self._loop.create_connection(
                lambda: self,
                host,
                port,
                ssl=context,
                server_hostname=host,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
            )
            self._require(*await self._hear())
        else:
            await self._loop.create_connection(lambda: self, host, port)
            self._require(*await self._hear())
            await self._start_tls(context)
        await self._greet()

    async def log_in(self) -> Session:
        """Authenticate by AUTH PLAIN."""
        login, host = self._login, self._endpoint.host
        if not self._offer.auth_plain:
            raise UpstreamError("{host} does not offer AUTH PLAIN", host=host)
        code, text = await self._ask(auth_plain_reveal(login.username, login.password))
        reply = self._reply(code, text)
        if reply.outcome is Outcome.AUTH_REFUSED:
            raise LoginRefused(
                "{host} refused the login of {username}: {reply}",
                hint="check that the key is active and the password is for this region",
                host=host,
                username=login.username,
                reply=reply,
            )
        self._require(code, text)
        assert self._transport is not None
        return Session(self._endpoint, login, self._transport, self._offer, self._redactor)

    def drop(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            replies = self._reader.feed(data)
        except NotSmtp:
            self._cut_off()
            return
        answered = self._answer.done()
        if replies and not answered:
            self._answer.set_result(replies[0])
        if answered or len(replies) > 1 or (replies and self._reader.is_within_reply):
            self._cut_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._lost = True
        self._fail(exc or smtplib.SMTPServerDisconnected())

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        await self._greet()
        if not self._offer.starttls:
            raise smtplib.SMTPNotSupportedError
        self._require(*await self._ask(b"STARTTLS\r\n"))
        assert self._transport is not None
        secured = await self._loop.start_tls(
            self._transport,
            self,
            context,
            server_hostname=self._endpoint.host,
            ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
        )
        if secured is None:  # The peer hung up meanwhile.
            raise smtplib.SMTPServerDisconnected
        self._transport = secured

    async def _greet(self) -> None:
        name = socket.gethostname() or "localhost"
        code, text = await self._ask(f"EHLO {name}\r\n".encode())
        self._require(code, text)
        self._offer = Offer.of_ehlo(text)

    async def _ask(self, command: bytes) -> tuple[int, bytes]:
        if self._lost:
            raise smtplib.SMTPServerDisconnected
        assert self._transport is not None
        self._answer = self._loop.create_future()
        self._transport.write(command)
        return await self._hear()

    async def _hear(self) -> tuple[int, bytes]:
        try:
            answer = await self._answer
        finally:
            # More than was due is not a broken connection, although it ends as one.
            if self._said_too_much:
                raise UpstreamError(
                    "{host}:{port} does not answer as an SMTP server does",
                    hint="check host and port: 465 and 2465 start with TLS, the others do not",
                    host=self._endpoint.host,
                    port=self._endpoint.port,
                )
        return answer

    def _cut_off(self) -> None:
        self._said_too_much = True
        self.drop()
        self._fail(smtplib.SMTPServerDisconnected())

    def _fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            # It counts as seen, because nobody waits for a reply during a TLS handshake.
            self._answer.exception()

    def _reply(self, code: int, text: bytes) -> Reply:
        return classify(code, self._redactor.clean(text))

    def _require(self, code: int, text: bytes) -> None:
        reply, host = self._reply(code, text), self._endpoint.host
        if reply.outcome is Outcome.ACCEPTED:
            return
        if reply.outcome.is_temporary:
            raise SessionRefused("{host} asks to try again later: {reply}", host=host, reply=reply)
        raise UpstreamError("{host} refused the session: {reply}", host=host, reply=reply)

"""
One SMTP session to an SES endpoint.

Promises: nothing but EHLO and STARTTLS is said before TLS is up; the certificate chains to the
given CA (or the system's), is for the host that was asked for, and TLS is 1.2 or newer; without
AUTH nothing is sent; a peer that is slow, silent or babbling is given up after `timeout_s`; no
exception text holds the password, even when the peer sends it back.

Raises `TemporaryFailure` for what may work later, `LoginRefused` when the upstream does not take
the user and password, `UpstreamError` for the rest (a certificate that does not verify, no
STARTTLS, no AUTH PLAIN). Mail is kept in every one of these cases.

Known fault: when the connection breaks after the message was sent and before its reply, nobody can
know whether SES took it; a further attempt may then send it twice (RFC 5321, 4.2.5, RFC 1047).
"""

import base64
import contextlib
import re
import smtplib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sesguard.core.encodings import encoded_forms
from sesguard.core.endpoints import Endpoint
from sesguard.core.secret import REDACTED, Secret
from sesguard.errors import TemporaryFailure, UpstreamError
from sesguard.upstream.dialogue import StarttlsClient, WrappedClient
from sesguard.upstream.faults import network_error
from sesguard.upstream.replies import Outcome, Reply, classify
from sesguard.upstream.tls import tls_context

DEFAULT_TIMEOUT_S: Final = 30.0
FINAL_TIMEOUT_S: Final = 600.0
"""Time for the reply to a whole message (RFC 5321, 4.5.3.2.6): giving up early means duplicates."""
MAX_RECIPIENTS: Final = 50
"""SES's limit for one message."""

_ADDRESS: Final = re.compile(r"[!-;=?-~]{1,64}@[A-Za-z0-9.:\[\]-]{1,255}")


class LoginRefused(UpstreamError):
    """The upstream does not take this user and password: wrong, deleted, or not active yet."""


class SmtpUpstream:
    """
    One session; a context manager that connects and closes.

    Args:
        endpoint: Host and port; the port says whether TLS comes first or by STARTTLS.
        ca_file: Trusted CA certificates instead of the system's.
        timeout_s: Time to connect, and for each reply.
        final_timeout_s: Time for the reply to a whole message.
        source_address: Local address to connect from.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ca_file: Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        final_timeout_s: float = FINAL_TIMEOUT_S,
        source_address: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._context = tls_context(ca_file)
        self._timeout_s = timeout_s
        self._final_timeout_s = final_timeout_s
        self._source = (source_address, 0) if source_address else None
        self._client: StarttlsClient | WrappedClient | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> None:
        """
        Connect and secure the session.

        Raises:
            TemporaryFailure: Not reachable, or it asks to come back later.
            UpstreamError: No verified TLS.
        """
        with self._faults():
            self._client = self._open()
            code, text = self._client.ehlo()
        self._require(classify(code, _decode(text)))

    def login(self, username: str, password: Secret) -> None:
        """
        Authenticate by AUTH PLAIN.

        Raises:
            LoginRefused: Not with this user and password.
            TemporaryFailure: The upstream cannot tell now.
            UpstreamError: AUTH PLAIN is not offered.
        """
        client = self._connected()
        if "PLAIN" not in client.esmtp_features.get("auth", "").upper().split():
            raise UpstreamError("{host} does not offer AUTH PLAIN", host=self.endpoint.host)
        message = f"\0{username}\0{password.reveal()}".encode()
        with self._faults():
            code, text = client.docmd("AUTH", f"PLAIN {base64.b64encode(message).decode()}")
        self._require(classify(code, _redact(text, username, password)), username=username)

    def send(self, envelope_sender: str, recipients: Sequence[str], message: bytes) -> Reply:
        """
        Send one message; either every recipient is accepted or none.

        Args:
            envelope_sender: Address, or empty for a bounce.
            recipients: Up to `MAX_RECIPIENTS` addresses.
            message: Header and body; any line ends are sent as CRLF.

        Returns:
            The reply to the message, or the first one that refused a part of it.

        Raises:
            TemporaryFailure: The connection broke or the peer was too slow.
            UpstreamError: An address or the number of recipients that SMTP cannot carry.
        """
        client = self._connected()
        commands = _envelope(envelope_sender, recipients)
        with self._faults():
            for command in commands:
                reply = self._command(client, command)
                if reply.outcome is not Outcome.ACCEPTED:
                    # The refusal is the answer, also when the peer hangs up after it.
                    with contextlib.suppress(OSError):
                        client.rset()
                    return reply
        with self._faults(self._final_timeout_s):
            return self._send_data(client, message)

    def close(self) -> None:
        """End the session; it need not be open."""
        client, self._client = self._client, None
        if client is not None:
            client.reply_timeout_s = 1.0
            with contextlib.suppress(smtplib.SMTPException, OSError):
                client.quit()
            client.close()

    def _open(self) -> StarttlsClient | WrappedClient:
        if self.endpoint.starts_with_tls:
            return WrappedClient(
                self.endpoint,
                timeout_s=self._timeout_s,
                source=self._source,
                context=self._context,
            )
        client = StarttlsClient(self.endpoint, timeout_s=self._timeout_s, source=self._source)
        try:
            client.starttls(context=self._context)
        except BaseException:
            client.close()
            raise
        return client

    def _send_data(self, client: StarttlsClient | WrappedClient, message: bytes) -> Reply:
        try:
            code, text = client.data(re.sub(rb"\r\n|\r|\n", b"\r\n", message))
        except smtplib.SMTPDataError as error:
            return classify(error.smtp_code, _decode(error.smtp_error))
        return classify(code, _decode(text))

    def _command(self, client: StarttlsClient | WrappedClient, command: str) -> Reply:
        code, text = client.docmd(command)
        return classify(code, _decode(text))

    def _connected(self) -> StarttlsClient | WrappedClient:
        if self._client is None:
            raise UpstreamError("there is no session with {host}", host=self.endpoint.host)
        return self._client

    def _require(self, reply: Reply, username: str | None = None) -> None:
        """Raise what fits unless `reply` is a good one."""
        host = self.endpoint.host
        if reply.outcome is Outcome.ACCEPTED:
            return
        if reply.outcome is Outcome.AUTH_REFUSED and username is not None:
            raise LoginRefused(
                "{host} refused the login of {username}: {reply}",
                hint="check that the key is active and the password is for this region",
                host=host,
                username=username,
                reply=reply,
            )
        if reply.outcome.is_temporary:
            raise TemporaryFailure(
                "{host} asks to try again later: {reply}", host=host, reply=reply
            )
        raise UpstreamError("{host} refused the session: {reply}", host=host, reply=reply)

    @contextlib.contextmanager
    def _faults(self, timeout_s: float | None = None) -> Iterator[None]:
        """Bound each reply, and turn what the network, TLS and smtplib raise into our errors."""
        timeout_s = timeout_s or self._timeout_s
        if self._client is not None:
            self._client.reply_timeout_s = timeout_s
        try:
            yield
        except smtplib.SMTPResponseException as error:
            self._raise_for_response(error)
        except (OSError, UnicodeError) as error:
            raise network_error(error, self.endpoint, timeout_s) from error

    def _raise_for_response(self, error: smtplib.SMTPResponseException) -> None:
        if error.smtp_code < 0:
            raise UpstreamError(
                "{host}:{port} does not answer as an SMTP server does",
                hint="check host and port: 465 and 2465 start with TLS, the others do not",
                host=self.endpoint.host,
                port=self.endpoint.port,
            ) from error
        self._require(classify(error.smtp_code, _decode(error.smtp_error)))


def check_login(
    endpoint: Endpoint,
    username: str,
    password: Secret,
    *,
    ca_file: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    source_address: str | None = None,
) -> None:
    """
    Log in and out again; no message is sent.

    Raises:
        LoginRefused: Not with this user and password.
        TemporaryFailure: It cannot be told now.
        UpstreamError: No verified TLS, or no AUTH PLAIN.
    """
    with SmtpUpstream(
        endpoint, ca_file=ca_file, timeout_s=timeout_s, source_address=source_address
    ) as upstream:
        upstream.login(username, password)


def require_address(address: str) -> str:
    """
    Give `address` back when SMTP can carry it: ASCII, no spaces, no angle brackets.

    Raises:
        UpstreamError: It cannot.
    """
    if not _ADDRESS.fullmatch(address):
        raise UpstreamError(
            "{address!r} is not an address that SMTP can carry",
            hint="use one such as user@example.com, in ASCII",
            address=address,
        )
    return address


def _envelope(sender: str, recipients: Sequence[str]) -> list[str]:
    if not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise UpstreamError(
            "a message goes to 1 to {max} recipients, not {count}",
            max=MAX_RECIPIENTS,
            count=len(recipients),
        )
    sender = require_address(sender) if sender else ""
    return [
        f"MAIL FROM:<{sender}>",
        *(f"RCPT TO:<{require_address(recipient)}>" for recipient in recipients),
    ]


def _redact(text: bytes, username: str, password: Secret) -> str:
    for form in encoded_forms(password, username).values():
        text = text.replace(form, REDACTED.encode())
    return _decode(text)


def _decode(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")

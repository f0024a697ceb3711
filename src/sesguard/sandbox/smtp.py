"""
The SMTP endpoint as a protocol: aiosmtpd, with the words and the strictness of SES.

aiosmtpd reads commands, does STARTTLS and AUTH, and reads DATA (only CRLF.CRLF ends it). Here its
reply texts become those of SES (`_SES_TEXTS`), nothing but EHLO, NOOP, QUIT and STARTTLS is taken
in the clear, each reply is one write, and the connection log hears of every MAIL and AUTH before it
is judged. What a command means is decided in `sesguard.sandbox.dialogue`.

Where AWS gives no text, those of SubEthaSMTP are used, whose wording SES shares. Limits: 40 MiB a
message, 512 bytes a command, 1 MiB a line of a message.

Known faults: SES offers AUTH in EHLO also before TLS (and then refuses it); we offer it after TLS
only. Five unknown commands end the connection, as aiosmtpd has it.
"""

import asyncio
import logging
import secrets
import ssl
import string
from typing import Final

from aiosmtpd.smtp import SMTP, TLSSetupException

from sesguard.sandbox.dialogue import HOST_NAME, MAX_MESSAGE_BYTES, Dialogue

_SES_TEXTS: Final = {
    "250 OK": "250 Ok",
    "454 TLS not available": "502 Error: command not implemented",
    "552 Error: Too much mail data": "552 Message is too long.",
    "552 Error: message size exceeds fixed maximum message size": "552 Message is too long.",
    "553 5.1.3 Error: malformed address": "553 <{argument}> Invalid email address",
}
"""What the library says, and what SES says instead."""

_MAX_LINE_BYTES: Final = 1024 * 1024
_MAX_REPLY_LENGTH: Final = 2000
_ALPHANUMERIC: Final = string.ascii_letters + string.digits

_log = logging.getLogger(__name__)


class SesSmtp(SMTP):
    """One connection."""

    line_length_limit = _MAX_LINE_BYTES
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(
        self, dialogue: Dialogue, *, starttls_context: ssl.SSLContext | None, idle_timeout_s: float
    ) -> None:
        """
        Make the protocol of a new connection.

        Args:
            dialogue: Decides and remembers.
            starttls_context: None where STARTTLS is not to be had.
            idle_timeout_s: How long to wait for the client's next line.
        """
        super().__init__(
            dialogue,
            hostname=HOST_NAME,
            ident=f"ESMTP SimpleEmailService-d-{_random(9).upper()} {_random(20)}",
            data_size_limit=MAX_MESSAGE_BYTES,
            tls_context=starttls_context,
            timeout=idle_timeout_s,
            auth_require_tls=False,
            authenticator=dialogue.authenticate,
            loop=asyncio.get_running_loop(),
        )
        self._dialogue = dialogue
        self._greeted = False
        self._argument = ""

    @property
    def tls_version(self) -> str | None:
        """Such as ``TLSv1.3``, or None in the clear."""
        found = self.transport.get_extra_info("ssl_object") if self.transport else None
        return None if found is None else str(found.version())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called for the TCP connection, and again when STARTTLS has made it a TLS connection."""
        super().connection_made(transport)
        self._dialogue.connected(transport.get_extra_info("peername")[0], self.tls_version)

    def connection_lost(self, error: Exception | None) -> None:
        """Called once, at the end."""
        super().connection_lost(error)
        self._dialogue.entry().closed()

    async def push(self, status: str | bytes) -> None:
        """Send a reply, in the words of SES and in one write."""
        text = status.decode("ascii", "replace") if isinstance(status, bytes) else status
        if not self._greeted:
            self._greeted = True
            refusal = await self._dialogue.greet(self)
            if refusal is not None:
                await self.hang_up(refusal)
        text = _SES_TEXTS.get(text, text).replace("{argument}", self._argument)
        await super().push(_clean(text))

    async def hang_up(self, reply: str | None = None) -> None:
        """Close the connection, with a last reply or at once; never returns."""
        assert self.transport is not None
        if reply is None:
            self.transport.abort()  # type: ignore[attr-defined]
        else:
            await super().push(_clean(reply))
            self.transport.close()
        # The loss of the connection cancels this task; a command must not go on until then.
        await self.loop.create_future()

    def wait_longer(self, seconds: float) -> None:
        """Put the idle time-out off."""
        self._reset_timeout(self._timeout_duration + seconds)

    async def check_auth_needed(self, caller_method: str) -> bool:  # noqa: ARG002 - the library's
        """Refuse what needs TLS or AUTH that is not there; MAIL, RCPT, DATA and others call it."""
        if await self._refuse_in_the_clear():
            return True
        assert self.session is not None
        if self.session.authenticated:
            return False
        await self.push("530 Authentication required")
        return True

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802 - the library's naming
        """STARTTLS, at most once."""
        if self.tls_version is not None:
            await self.push("454 TLS not available due to temporary reason: TLS already active")
        else:
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """AUTH, with the mechanism in upper or lower case."""
        self._dialogue.entry().auth_command(tls=self.tls_version is not None)
        if await self._refuse_in_the_clear():
            return
        mechanism, _, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(f"{mechanism.upper()} {rest}".rstrip())

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """MAIL FROM."""
        self._dialogue.mail_command(self)
        self._argument = _address_of(arg)
        if arg is not None and arg.replace(" ", "").upper().startswith("FROM:<>"):
            if not await self.check_helo_needed() and not await self.check_auth_needed("MAIL"):
                await self.push("501 Invalid MAIL FROM address provided")
            return
        await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RCPT TO."""
        self._argument = _address_of(arg)
        await super().smtp_RCPT(arg)

    async def handle_exception(self, error: Exception) -> str:
        """What to answer when handling a command failed, or the client broke a handshake off."""
        if isinstance(error, TLSSetupException):
            self._dialogue.entry().tls_broken_off()
        else:
            _log.exception("a command from %s failed", self._dialogue.entry().snapshot())
        return "451 Temporary service failure"

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # The parser of the standard library fails on broken addresses in more ways than it says.
        try:
            return super()._getaddr(arg)
        except Exception:  # noqa: BLE001
            return None, None

    async def _refuse_in_the_clear(self) -> bool:
        if self.tls_version is not None or self._dialogue.stripped:
            return False
        await self.push("530 Must issue a STARTTLS command first")
        return True

    def _timeout_cb(self) -> None:
        if self.transport is not None:
            self._writer.write(b"451 Timeout waiting for data from client.\r\n")
        super()._timeout_cb()  # type: ignore[no-untyped-call]


def _address_of(argument: str | None) -> str:
    return (argument or "").partition(":")[2].strip().removeprefix("<").partition(">")[0]


def _clean(reply: str) -> bytes:
    """A reply as bytes that cannot break out of its line."""
    lines = reply[:_MAX_REPLY_LENGTH].split("\r\n")
    return b"\r\n".join(
        "".join(character if character.isprintable() else "?" for character in line).encode(
            "ascii", "replace"
        )
        for line in lines
    )


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))

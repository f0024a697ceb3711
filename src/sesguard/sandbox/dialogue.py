"""
The decisions of one SMTP connection: who the client is, what it may send, and which fault strikes.

Its ``handle_*`` methods are the hooks of aiosmtpd, called by `sesguard.sandbox.smtp.SesSmtp` once a
command's syntax is right; each gives the reply, or MISSING to let the library give its own.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, assert_never
from uuid import uuid4

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Envelope, LoginPassword, Session

from sesguard.core.secret import Secret
from sesguard.core.smtp_password import PasswordVersion, password_version
from sesguard.sandbox.accounts import Principal
from sesguard.sandbox.admission import Admission, Submission
from sesguard.sandbox.backends import record_key_use
from sesguard.sandbox.connections import ConnectionEntry
from sesguard.sandbox.message import MessageError, read_message
from sesguard.sandbox.model import FaultKind, ReceivedMessage, Stage, TlsMode
from sesguard.sandbox.quota import RATE_EXCEEDED
from sesguard.sandbox.state import SandboxState

if TYPE_CHECKING:
    from sesguard.sandbox.smtp import SesSmtp

HOST_NAME: Final = "email-smtp.amazonaws.com"
MAX_MESSAGE_BYTES: Final = 40 * 1024 * 1024
MAX_RECIPIENTS: Final = 50

_ACCEPTED: Final = "235 Authentication successful."
_INVALID: Final = "535 Authentication Credentials Invalid"
_OLD_SIGNATURE: Final = (
    "535 Signature Version 2 is deprecated for use with SES from March 26, 2021."
)


class Dialogue:
    """What one connection's commands mean."""

    def __init__(self, state: SandboxState, *, tls_wrapper: bool) -> None:
        self._state = state
        self._tls_wrapper = tls_wrapper
        self._entry: ConnectionEntry | None = None
        self._principal: Principal | None = None
        self._source_address = ""
        self.stripped = state.tls_mode is TlsMode.STRIPPED and not tls_wrapper
        """Whether this connection plays the man in the middle who hides STARTTLS."""

    def entry(self) -> ConnectionEntry:
        """This connection in the log."""
        assert self._entry is not None
        return self._entry

    def connected(self, source_address: str, tls_version: str | None) -> None:
        """The connection is there, or has become a TLS connection."""
        if self._entry is None:
            self._source_address = source_address
            self._entry = self._state.connections.open(
                source_address, tls_wrapper=self._tls_wrapper
            )
        if tls_version is not None:
            self._entry.tls_started(tls_version)

    def mail_command(self, server: SesSmtp) -> None:
        """A MAIL command arrived, whatever is said to it."""
        self.entry().mail_command(
            tls=server.tls_version is not None, authenticated=self._principal is not None
        )

    async def greet(self, server: SesSmtp) -> str | None:
        """A reply to give instead of the banner, or None."""
        return await self._disturb(server, Stage.CONNECT)

    async def handle_EHLO(  # noqa: N802 - the library's hook
        self,
        server: SesSmtp,
        session: Session,
        _envelope: Envelope,
        host_name: str,
        _responses: list[str],
    ) -> list[str]:
        """All lines of the answer to EHLO, in one text."""
        fault = await self._disturb(server, Stage.EHLO)
        if fault is not None:
            return [fault]
        session.host_name = host_name
        in_the_clear = server.tls_version is None and not self.stripped
        offer = "STARTTLS" if in_the_clear else "AUTH PLAIN LOGIN"
        lines = (HOST_NAME, "8BITMIME", f"SIZE {MAX_MESSAGE_BYTES}", offer)
        return ["\r\n".join([*(f"250-{line}" for line in lines), "250 Ok"])]

    async def handle_AUTH(  # noqa: N802
        self, server: SesSmtp, _session: Session, _envelope: Envelope, _arguments: list[str]
    ) -> Any:
        """A fault, or on to the mechanism."""
        return await self._disturb(server, Stage.AUTH) or MISSING

    def authenticate(
        self,
        server: SMTP,
        _session: Session,
        _envelope: Envelope,
        mechanism: str,
        given: LoginPassword,
    ) -> AuthResult:
        """Check a user and password; the library's ``authenticator``."""
        user = given.login.decode("utf-8", "replace")
        password = Secret(given.password.decode("utf-8", "replace"))
        self._principal = self._state.accounts.authenticate(user, password)
        if self._principal is not None:
            record_key_use(user, "ses", self._state.settings.region)
            reply = _ACCEPTED
        elif password_version(password.reveal()) is PasswordVersion.V2:
            reply = _OLD_SIGNATURE
        else:
            reply = _INVALID
        tls = getattr(server, "tls_version", None) is not None
        self.entry().auth_answered(mechanism, user, reply, tls=tls)
        return AuthResult(success=self._principal is not None, handled=False, message=reply)

    async def handle_MAIL(  # noqa: N802
        self,
        server: SesSmtp,
        _session: Session,
        _envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> Any:
        """The envelope sender."""
        fault = await self._disturb(server, Stage.MAIL)
        if fault is not None:
            return fault
        if not _has_domain(address):
            return "501 Invalid MAIL FROM address provided"
        return MISSING

    async def handle_RCPT(  # noqa: N802
        self,
        server: SesSmtp,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> Any:
        """A recipient."""
        fault = await self._disturb(server, Stage.RCPT)
        if fault is not None:
            return fault
        if not _has_domain(address):
            return f"553 <{address}> Invalid email address"
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 Too many recipients"
        return MISSING

    async def handle_DATA(  # noqa: N802
        self, server: SesSmtp, _session: Session, envelope: Envelope
    ) -> str:
        """The message, complete."""
        fault = await self._disturb(server, Stage.DATA)
        if fault is not None:
            return fault
        reply = self._take(server, envelope)
        accepted = reply.startswith("250")
        self.entry().message_answered(accepted=accepted)
        if accepted:
            return await self._disturb(server, Stage.ACCEPTED) or reply
        return reply

    def _take(self, server: SesSmtp, envelope: Envelope) -> str:
        assert self._principal is not None
        assert envelope.mail_from is not None
        content = envelope.original_content or b""
        try:
            message = read_message(content)
        except MessageError as error:
            return str(error)
        submission = Submission(
            self._principal,
            self._source_address,
            server.tls_version is not None,
            envelope.mail_from,
            tuple(envelope.rcpt_tos),
            message,
        )
        admission = Admission(self._state, submission)
        refusal = admission.refusal()
        if refusal is not None:
            return refusal
        received = self._received(server, submission, admission.configuration_set, len(content))
        self._state.inbox.add(received, message.delivered)
        return f"250 Ok {received.id}"

    def _received(
        self,
        server: SesSmtp,
        submission: Submission,
        configuration_set: str | None,
        size: int,
    ) -> ReceivedMessage:
        return ReceivedMessage(
            id=new_message_id(),
            received_at=datetime.now(UTC),
            source_address=submission.source_address,
            user_name=submission.principal.user_name,
            access_key_id=submission.principal.access_key_id,
            envelope_sender=submission.envelope_sender,
            recipients=submission.recipients,
            headers=submission.message.headers,
            configuration_set=configuration_set,
            tags=submission.message.tags,
            tls_version=server.tls_version,
            size=size,
            connection_id=self.entry().snapshot().id,
        )

    async def _disturb(self, server: SesSmtp, stage: Stage) -> str | None:
        """Let the fault of this stage strike: a reply instead of ours, or None to go on."""
        fault = self._state.faults.take(stage)
        if fault is None:
            return None
        match fault.kind:
            case FaultKind.DROP:
                await server.hang_up()
            case FaultKind.STALL:
                server.wait_longer(fault.delay_s)
                await asyncio.sleep(fault.delay_s)
                await server.hang_up()
            case FaultKind.SLOW:
                server.wait_longer(fault.delay_s)
                await asyncio.sleep(fault.delay_s)
            case FaultKind.REPLY_421:
                await server.hang_up("421 Too many concurrent SMTP connections")
            case FaultKind.REPLY_451:
                return "451 Temporary service failure"
            case FaultKind.REPLY_454 if stage is Stage.AUTH:
                return "454 Temporary authentication failure"
            case FaultKind.REPLY_454:
                return RATE_EXCEEDED
            case _:
                assert_never(fault.kind)
        return None


def new_message_id() -> str:
    """An id that looks like those of SES: 0100 and the time in hex, a UUID, zeros."""
    return f"0100{int(time.time() * 1000):012x}-{uuid4()}-000000"


def _has_domain(address: str) -> bool:
    local, _, domain = address.rpartition("@")
    return bool(local and domain)

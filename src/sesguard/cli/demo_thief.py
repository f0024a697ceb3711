"""
The thief of the demo: has a copy of the credential, sends from another address, and never rests.

When the leak was cut is told by the sandbox's own log of connections, not by us or by the command.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint
from sesguard.errors import SandboxError, TemporaryFailure, UpstreamError
from sesguard.sandbox.client import SandboxClient
from sesguard.sandbox.mail_load import ThreadLoad
from sesguard.sandbox.model import SmtpConnection
from sesguard.upstream.replies import Outcome
from sesguard.upstream.smtp import SmtpUpstream

THIEF_ADDRESS: Final = "127.0.0.2"
PROOFS: Final = 3
"""Refusals in a row that prove the key dead; see `sesguard.respond.containment`."""

_INTERVAL_S: Final = 0.1


class Thief(ThreadLoad):
    """
    Logs in and sends a mail, again and again.

    Args:
        endpoint: Where SES is.
        ca_file: The CA of its certificate.
        version: What was stolen.
        sender: In whose name.
    """

    def __init__(
        self, endpoint: Endpoint, ca_file: Path, version: CredentialVersion, sender: str
    ) -> None:
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._version = version
        self._sender = sender
        super().__init__(self._try, interval_s=_INTERVAL_S)

    def _try(self, number: int) -> bool:
        recipient = f"victim{number}@example.org"
        mail = f"From: {self._sender}\r\nTo: {recipient}\r\nSubject: You have won\r\n\r\nhi\r\n"
        try:
            with SmtpUpstream(
                self._endpoint, ca_file=self._ca_file, source_address=THIEF_ADDRESS
            ) as upstream:
                password = self._version.password_for(self._endpoint.host)
                upstream.login(self._version.username, password)
                reply = upstream.send(self._sender, [recipient], mail.encode())
        except (UpstreamError, TemporaryFailure):
            return False
        return reply.outcome is Outcome.ACCEPTED


@dataclass(frozen=True, slots=True)
class Containment:
    """What SES saw of a leaked key."""

    refused_at: datetime
    """It was refused for the first time, to whomever."""
    proved_at: datetime
    """It was refused to sesguard as often as sesguard wants to see it."""


def read_containment(client: SandboxClient, access_key_id: str) -> Containment:
    """
    Find out when a key was refused.

    Raises:
        SandboxError: It was not.
    """
    refused = [each for each in client.connections() if _is_refusal(each, access_key_id)]
    proofs = [each for each in refused if each.source_address != THIEF_ADDRESS]
    if len(proofs) < PROOFS:
        raise SandboxError("SES did not refuse the leaked key {key}", key=access_key_id)
    return Containment(refused[0].opened_at, proofs[PROOFS - 1].opened_at)


def thief_accepted_after(client: SandboxClient, moment: datetime) -> int:
    """How many mails of the thief SES took after `moment`."""
    return sum(
        mail.source_address == THIEF_ADDRESS and mail.received_at > moment
        for mail in client.inbox()
    )


def _is_refusal(connection: SmtpConnection, access_key_id: str) -> bool:
    mine = [attempt for attempt in connection.auth if attempt.user == access_key_id]
    return bool(mine) and (mine[-1].reply.startswith("535") or connection.refused > 0)

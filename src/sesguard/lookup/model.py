"""
The words of a lookup: question, grant, refusal, event.

Nothing here holds a secret in the clear. A `LookupEvent` holds none at all, but it does hold text
of the client, which may be hostile: whoever writes it down escapes and bounds it
(`sesguard.daemon.log`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError
from sesguard.system.peers import Peer


class Outcome(StrEnum):
    """What became of a lookup."""

    GRANTED = "granted"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why a lookup was refused; the words of the log."""

    UID_NOT_ALLOWED = "uid_not_allowed"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    NO_FILE_DESCRIPTORS = "no_file_descriptors"
    TIMED_OUT = "timed_out"
    HUNG_UP = "hung_up"
    MALFORMED = "malformed_request"
    TOO_LONG = "request_too_long"
    NO_TLS = "no_tls"
    NO_CREDENTIAL = "no_credential"
    UNSENDABLE = "unsendable_credential"
    VAULT = "vault_unusable"


class Refused(CredentialError):
    """A lookup that gets no credential."""

    def __init__(self, reason: Reason, template: str, /, **parameters: object) -> None:
        super().__init__(template, hint=None, **parameters)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Question:
    """What an MTA asks."""

    credential: str | None = None
    """Name of the credential, when the MTA names one."""
    host: str | None = None
    """SMTP host that it is connected to."""
    sender: str | None = None
    """Envelope sender; empty for a bounce."""
    message_id: str | None = None
    """The MTA's own id of the message."""
    cipher: str | None = None
    """TLS cipher of the session with the host; empty: it has no TLS; None: not told."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a question: a version of a credential, and its password for the host."""

    credential_id: str
    version: CredentialVersion
    password: Secret


@dataclass(frozen=True, slots=True)
class LookupEvent:
    """One line of the audit trail."""

    outcome: Outcome
    protocol: str
    """``exim``, ``postfix`` or ``control``."""
    peer: Peer | None = None
    reason: Reason | None = None
    """Set when it was refused."""
    detail: str | None = None
    """The refusal in words."""
    host: str | None = None
    sender: str | None = None
    message_id: str | None = None
    cipher: str | None = None
    credential_id: str | None = None
    version: int | None = None
    """Number of the credential version that was handed out."""


EventSink = Callable[[LookupEvent], None]
"""Takes each event; it must neither raise nor wait."""

"""
What the sandbox's process and its clients tell each other.

Frozen records, sent as JSON over the control interface (`sesguard.sandbox.control`) and kept in the
state file. Times are UTC; sizes are bytes; ``_s`` is seconds.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypedDict, TypeVar

import msgspec
from msgspec import Meta

ACCOUNT_ID: Final = "123456789012"
"""The sandbox's one AWS account."""
DEFAULT_REGION: Final = "us-east-1"
CONTROL_PREFIX: Final = "/_sesguard/"
"""Where the control interface is, on the port of the AWS endpoint."""
STATE_FILE: Final = "sandbox.json"
"""In the sandbox's directory while it runs: a `SandboxInfo`."""
CA_FILE: Final = "ca.pem"
LOG_FILE: Final = "sandbox.log"
LOGGER: Final = "sesguard.sandbox"
"""What the sandbox's own lines of the log begin with."""

Duration = Annotated[float, Meta(ge=0)]
"""Seconds."""

T = TypeVar("T")


class TlsMode(StrEnum):
    """What the SMTP endpoint does with TLS. All but the first are what a client must refuse."""

    NORMAL = "normal"
    """A valid certificate."""
    WRONG_NAME = "wrong-name"
    """A certificate of our CA for another host."""
    EXPIRED = "expired"
    """A certificate of our CA whose time is over."""
    UNKNOWN_CA = "unknown-ca"
    """The right names, signed by a CA that nobody trusts."""
    STRIPPED = "stripped"
    """Somebody in the middle hides STARTTLS and takes AUTH and mail in the clear."""


class Stage(StrEnum):
    """Where in the SMTP dialogue a fault strikes, always instead of the normal reply."""

    CONNECT = "connect"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """The message has arrived and is not taken."""
    ACCEPTED = "accepted"
    """The message has been taken, and the client does not hear of it."""


class FaultKind(StrEnum):
    """What goes wrong."""

    DROP = "drop"
    """The connection is reset."""
    STALL = "stall"
    """No reply until the client goes away, or until `Fault.delay_s` has passed: then a reset."""
    SLOW = "slow"
    """The normal reply, `Fault.delay_s` late."""
    REPLY_421 = "421"
    """``421 Too many concurrent SMTP connections``, and the connection is closed."""
    REPLY_451 = "451"
    """``451 Temporary service failure``."""
    REPLY_454 = "454"
    """At AUTH ``454 Temporary authentication failure``, else a throttling failure."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on demand."""

    stage: Stage
    kind: FaultKind
    count: Annotated[int, Meta(ge=0)] | None = None
    """How many times it strikes; None means until it is cleared."""
    delay_s: Duration = 3600.0
    """Duration of `FaultKind.SLOW` and `FaultKind.STALL`."""


class ApiFaultKind(StrEnum):
    """What goes wrong with a call of the AWS API."""

    THROTTLED = "throttled"
    """``Throttling``, ``Rate exceeded``; the call is not taken."""
    INTERNAL = "internal"
    """Status 500; the call is not taken."""
    DENIED = "denied"
    """``AccessDenied``; the call is not taken."""
    SKEWED = "skewed"
    """``Signature expired``: the caller's clock is wrong; the call is not taken."""
    LOST = "lost"
    """The call takes effect, and the connection is closed without an answer."""
    UNREACHABLE = "unreachable"
    """The connection is closed without an answer; the call is not taken and not in the trail."""


@dataclass(frozen=True, slots=True)
class ApiFault:
    """One fault of the AWS API on demand."""

    operation: str
    """Such as ``iam:CreateAccessKey``; ``*`` stands for any text. SES v2 is ``ses`` as well."""
    kind: ApiFaultKind
    count: Annotated[int, Meta(ge=0)] | None = 1
    """How many calls it strikes; None means until it is cleared. An SDK repeats calls itself."""
    after: Annotated[int, Meta(ge=0)] = 0
    """How many matching calls it lets pass before."""
    delay_s: Duration = 0.0
    """How long the caller waits for the refusal, or for the end of the connection."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What can be changed while the sandbox runs."""

    region: str = DEFAULT_REGION
    """Region of the SMTP endpoint: of its passwords, identities and quotas."""
    new_key_delay_s: Duration = 0.0
    """How long a new or reactivated access key does not work yet."""
    retired_key_delay_s: Duration = 0.0
    """How long a deactivated or deleted access key still works."""
    max_send_rate: float = 10_000.0
    """Recipients a second; negative means no limit."""
    max_24_hour_send: float = 1_000_000.0
    """Recipients in 24 hours; negative means no limit."""
    production_access: bool = True
    """Without it every recipient must be a verified identity too (the "SES sandbox")."""
    idle_timeout_s: Duration = 60.0
    """How long the SMTP endpoint waits for a client's next line."""


class SettingsChanges(TypedDict, total=False):
    """The settings to change: any of the fields of `SandboxSettings`."""

    region: str
    new_key_delay_s: float
    retired_key_delay_s: float
    max_send_rate: float
    max_24_hour_send: float
    production_access: bool
    idle_timeout_s: float


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """Where a running sandbox is; the content of its state file."""

    endpoint_url: str
    """For AWS_ENDPOINT_URL."""
    smtp_host: str
    starttls_port: int
    tls_port: int
    ca_file: Path
    """Certificate of the CA that signed the SMTP endpoint's certificate."""
    pid: int
    region: str
    """Region at the start."""


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """The state at a glance."""

    pid: int
    settings: SandboxSettings
    tls_mode: TlsMode
    faults: tuple[Fault, ...]
    api_faults: tuple[ApiFault, ...]
    sending_enabled: bool
    """False while the account is paused."""
    messages: int
    """In the inbox."""
    messages_dropped: int
    """Forgotten because the inbox was full."""
    connections: int
    """In the connection log."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message that the SMTP endpoint accepted."""

    id: str
    """What the client was told: ``250 Ok ID``."""
    received_at: datetime
    source_address: str
    """The client's IP address."""
    user_name: str
    """IAM user whose key was used."""
    access_key_id: str
    envelope_sender: str
    recipients: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    """Names and unfolded values, in order, with the X-SES- headers that SES takes out."""
    configuration_set: str | None
    """Named by the header, or else the default of the identity."""
    tags: dict[str, str]
    """From X-SES-MESSAGE-TAGS."""
    tls_version: str | None
    """Such as ``TLSv1.3``; None when it came in the clear (`TlsMode.STRIPPED`)."""
    size: int
    connection_id: int

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, or None."""
        for found, value in self.headers:
            if found.lower() == name.lower():
                return value
        return None


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """One AUTH command."""

    mechanism: str
    user: str
    """The user name given: an access key id, or whatever the client sent. Never a password."""
    reply: str
    """What it was answered; empty when the client aborted or sent garbage."""
    tls: bool


@dataclass(frozen=True, slots=True)
class SmtpConnection:
    """One connection to the SMTP endpoint, from the first byte (of TLS, on the wrapper port)."""

    id: int
    opened_at: datetime
    closed_at: datetime | None
    source_address: str
    tls_wrapper: bool
    """Whether it came to the port where TLS begins with the connection."""
    tls_version: str | None
    """None when there was no TLS."""
    tls_failed: bool
    """Whether a handshake after STARTTLS was broken off."""
    auth: tuple[AuthAttempt, ...]
    auth_without_tls: bool
    """Whether an AUTH command came in the clear."""
    mail_without_tls: bool
    """Whether MAIL FROM was tried in the clear."""
    mail_without_auth: bool
    """Whether MAIL FROM was tried without a successful AUTH."""
    messages: int
    """Messages accepted."""
    refused: int
    """Messages refused at the end of DATA."""


def _encode_extra(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


def _decode_extra(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def to_builtins(value: object) -> object:
    """Turn a record into what `json.dumps` takes."""
    return msgspec.to_builtins(value, enc_hook=_encode_extra)


def encode(value: object) -> bytes:
    """A record as JSON."""
    return msgspec.json.encode(value, enc_hook=_encode_extra)


def decode(data: bytes, kind: type[T]) -> T:
    """
    Read a record from JSON.

    Raises:
        msgspec.DecodeError: Not JSON, or not a record of that kind.
    """
    return msgspec.json.decode(data, type=kind, dec_hook=_decode_extra)

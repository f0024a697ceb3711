"""
The value of a secret that the rotation function looks after: one version of a credential, as JSON.

Described in docs/formats/managed-secret.md. Unknown fields are refused, so that a misspelt one is
not lost at the next rotation. A value without `ManagedValue.username` is a beginning: it says whose
key is wanted, and the first rotation issues it.

Raises `CheckFailed` for a value that does not fit. It tells the field, never what stands there, and
has no cause, because a parser's message may quote.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sesguard.config.schema import CredentialSettings, Port
from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.core.shapes import REGION, is_smtp_password
from sesguard.errors import CheckFailed

Region = Annotated[str, Meta(pattern=rf"^{REGION.pattern}\Z")]
UserName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_+=,.@-]{1,64}\Z")]
AccessKeyId = Annotated[str, Meta(pattern=r"^AKIA[A-Z0-9]{16}\Z")]
Time = Annotated[datetime, Meta(tz=True)]

_FIELD: Final = re.compile(r"`\$\.(\w+)(?:\[[0-9.]+\])?`\Z")
"""Where a message of msgspec tells the field that does not fit."""


class ManagedValue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields, in the order in which they are written."""

    version: Literal[1]
    """Of the format."""
    iam_user: UserName
    """Whose access key it is."""
    regions: Annotated[tuple[Region, ...], Meta(min_length=1)]
    """AWS regions to derive a password for; the first is the default."""
    host: str | None = None
    """SMTP host; null for the public endpoint of the region."""
    port: Port = 587
    """SMTP port; 465 and 2465 start with TLS, the others use STARTTLS."""
    username: AccessKeyId | None = None
    """The access key id, which is the SMTP user; this and the next two go together."""
    passwords: dict[Region, Secret] | None = None
    """Region to SMTP password."""
    created_at: Time | None = None
    """When the key was made."""

    def __post_init__(self) -> None:
        parts = (self.username, self.passwords or None, self.created_at)
        if None in parts and parts != (None, None, None):
            raise ValueError

    def seal(self) -> Secret:
        """The whole as JSON text."""
        return Secret(msgspec.json.encode(self, enc_hook=_encode_secret).decode())

    def settings(self, ca_file: Path | None) -> CredentialSettings:
        """What the test of a login wants to know of a credential."""
        return CredentialSettings(
            regions=self.regions,
            host=self.host,
            port=self.port,
            ca_file=ca_file,
            iam_user=self.iam_user,
        )

    def credential_version(self) -> CredentialVersion:
        """User and passwords, of a value that has them."""
        assert self.username is not None
        assert self.passwords is not None
        assert self.created_at is not None
        return CredentialVersion(
            number=1,
            username=self.username,
            passwords=self.passwords,
            created_at=self.created_at.isoformat(timespec="seconds"),
            origin="AWS Secrets Manager",
        )


def parse_value(text: Secret, secret_id: str) -> ManagedValue:
    """
    Read a value.

    Args:
        text: All of it.
        secret_id: Of which secret, for the message.

    Raises:
        CheckFailed: It does not fit.
    """
    try:
        return msgspec.json.decode(text.reveal(), type=ManagedValue, dec_hook=_decode_secret)
    except (msgspec.MsgspecError, ValueError) as error:
        found = _FIELD.search(str(error))
        field = found[1] if found and found[1] in ManagedValue.__struct_fields__ else "the whole"
    raise CheckFailed(
        "the value of {secret} is not a credential of ours: look at {field}",
        hint="write it as docs/formats/managed-secret.md says",
        secret=secret_id,
        field=field,
    )


def _encode_secret(value: object) -> str:
    assert isinstance(value, Secret)
    return value.reveal()


def _decode_secret(_kind: type, value: object) -> Secret:
    if isinstance(value, str) and is_smtp_password(value):
        return Secret(value)
    raise ValueError

"""
SES SMTP passwords: derivation from an IAM secret key, and recognition.

An SES SMTP password is not stored anywhere by AWS: it is computed from the secret access key and
the region (Signature Version 4), so it is 44 characters of base64 whose first byte is the version:

    k = HMAC-SHA256("AWS4" + secret key, "11111111")
    k = HMAC-SHA256(k, region); k = HMAC-SHA256(k, "ses")
    k = HMAC-SHA256(k, "aws4_request"); k = HMAC-SHA256(k, "SendRawEmail")
    password = base64(0x04 || k)

It is one-way: a password does not reveal its key, and it works in one region only. Version 2
(0x02, not regional) is refused by SES since 2021; it is recognised here and never issued.

Source: docs.aws.amazon.com/ses/latest/dg/smtp-credentials.html.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from sesguard.core.endpoints import require_region
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError

_DATE: Final = "11111111"
_SERVICE: Final = "ses"
_TERMINAL: Final = "aws4_request"
_MESSAGE: Final = "SendRawEmail"
_SECRET_KEY: Final = re.compile(r"[A-Za-z0-9/+=]{40,128}")


class PasswordVersion(IntEnum):
    """First byte of the decoded password."""

    V2 = 2
    V4 = 4


def require_secret_key(secret_key: Secret) -> Secret:
    """
    Give `secret_key` back when it has the form of an IAM secret access key.

    Raises:
        CredentialError: It does not: wrong length or characters, or an SMTP password.
    """
    text = secret_key.reveal()
    if password_version(text) is not None:
        raise CredentialError(
            "this is an SES SMTP password, not an IAM secret access key",
            hint="import it as a user and password instead; a password cannot be turned back",
        )
    if not _SECRET_KEY.fullmatch(text):
        raise CredentialError(
            "this does not have the form of an IAM secret access key "
            "(40 characters of A-Z a-z 0-9 + / =)",
            hint="check that the whole key was given, without quotes or spaces",
        )
    return secret_key


def derive_smtp_password(secret_key: Secret, region: str) -> Secret:
    """
    Compute the version 4 SMTP password of `secret_key` in `region`.

    Raises:
        CredentialError: The key or the region does not have the form of one.
    """
    text = require_secret_key(secret_key).reveal()
    return _derive_v4(text, require_region(region))


def derive_for_regions(secret_key: Secret, regions: Iterable[str]) -> dict[str, Secret]:
    """
    Compute the password of every region, so that the secret key can be dropped afterwards.

    Returns:
        Region name to password, in the order given.

    Raises:
        CredentialError: No region, or a bad key or region.
    """
    passwords = {region: derive_smtp_password(secret_key, region) for region in regions}
    if not passwords:
        raise CredentialError(
            "no region to derive an SMTP password for",
            hint="name at least one region, such as us-east-1",
        )
    return passwords


def password_version(text: str) -> PasswordVersion | None:
    """Tell which version `text` is, or None when it does not have the shape of an SMTP password."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    if len(text) != 44 or len(raw) != 33:
        return None
    return PasswordVersion(raw[0]) if raw[0] in PasswordVersion.__members__.values() else None


def _derive_v4(secret_key: str, region: str) -> Secret:
    digest = ("AWS4" + secret_key).encode()
    for part in (_DATE, region, _SERVICE, _TERMINAL, _MESSAGE):
        digest = hmac.new(digest, part.encode(), hashlib.sha256).digest()
    return Secret(base64.b64encode(bytes([PasswordVersion.V4]) + digest).decode())

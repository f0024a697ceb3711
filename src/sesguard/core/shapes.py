"""
The shapes of SES credentials in text.

The password shape is exact for every derived password: 44 base64 characters whose first byte (4 or
2) fixes the first character and two bits of the second. About 0.4 % of random 44-character base64
has it as well, so on its own it is weak evidence; beside a key id or an SES host it is strong.

Promises: the expressions are for `search` and for `fullmatch`, and take linear time on any text.
"""

import re
from typing import Final

ACCESS_KEY_ID: Final = re.compile(r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}(?![A-Za-z0-9])")
SMTP_PASSWORD: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?:B[A-P]|A[g-v])[A-Za-z0-9+/]{42}(?![A-Za-z0-9+/=])"
)
SECRET_KEY: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=])")
REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]{1,16}){1,3}-[0-9]{1,2}")
SES_HOST: Final = re.compile(
    r"(?<![a-z0-9-])(?:vpce-[a-z0-9-]{1,63}\.)?email-smtp(?:-fips)?"
    rf"\.(?P<region>{REGION.pattern})\.(?:vpce\.)?amazonaws\.(?:com(?:\.cn)?|eu)"
    r"(?![a-z0-9-]|\.[a-z0-9])",
    re.IGNORECASE,
)
"""Public, FIPS and VPC endpoints; the group ``region`` holds the region."""


def is_access_key_id(text: str) -> bool:
    """Whether `text` is the id of a long-lived access key (AKIA...)."""
    return ACCESS_KEY_ID.fullmatch(text) is not None


def is_smtp_password(text: str) -> bool:
    """Whether `text` has the shape of an SES SMTP password, version 4 or 2."""
    return SMTP_PASSWORD.fullmatch(text) is not None


def looks_like_secret_key(text: str) -> bool:
    """
    Whether `text` has the shape of a raw IAM secret key, which people give as the password.

    40 characters, of both cases: a hexadecimal hash is not one.
    """
    mixed_case = text not in (text.lower(), text.upper())
    return mixed_case and SECRET_KEY.fullmatch(text) is not None

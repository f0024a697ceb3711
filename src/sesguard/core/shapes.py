"""
The shapes of SES credentials in text.

The password shape is exact for every derived password: 44 base64 characters whose first byte (4 or
2) fixes the first character and two bits of the second. About 0.4 % of random 44-character base64
has it as well, so on its own it is weak evidence; beside a key id or an SES host it is strong.
"""

import re
from typing import Final

ACCESS_KEY_ID: Final = re.compile(r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}(?![A-Za-z0-9])")
SMTP_PASSWORD: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?:B[A-P]|A[g-v])[A-Za-z0-9+/]{42}(?![A-Za-z0-9+/=])"
)
SES_HOST: Final = re.compile(
    r"(?:vpce-[a-z0-9-]+\.)?email-smtp(?:-fips)?\.[a-z]{2,4}(?:-[a-z]+){1,3}-\d{1,2}"
    r"\.(?:vpce\.)?amazonaws\.(?:com(?:\.cn)?|eu)",
    re.IGNORECASE,
)


def is_access_key_id(text: str) -> bool:
    """Whether `text` is the id of a long-lived access key (AKIA...)."""
    return ACCESS_KEY_ID.fullmatch(text) is not None


def is_smtp_password(text: str) -> bool:
    """Whether `text` has the shape of an SES SMTP password, version 4 or 2."""
    return SMTP_PASSWORD.fullmatch(text) is not None


def looks_like_secret_key(text: str) -> bool:
    """Whether `text` has the shape of a raw IAM secret key (40 characters), a common mistake."""
    return re.fullmatch(r"[A-Za-z0-9/+]{40}", text) is not None

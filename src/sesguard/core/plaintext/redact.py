"""
Taking known secrets out of bytes, in every form of `sesguard.core.encodings`.

The marker that takes a secret's place consists of capital letters and hyphens: it means nothing
to Exim, Postfix, PHP, a shell or TOML, and is not the shape of a credential. It is as long as what
it replaces, so that lengths and offsets in the file stay right (PHP's serialised strings, compiled
maps), and it is UTF-16 where the secret was.
"""

import re
from collections.abc import Iterable
from typing import Final

from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret

MARKER: Final = "SESGUARD-REMOVED"


def redact(
    content: bytes, secrets: Iterable[Secret], username: str | None = None
) -> tuple[bytes, int]:
    """
    Replace every form of every secret.

    Args:
        content: What to take them out of.
        secrets: The values; an empty one is left out.
        username: SMTP user that goes with them; adds the AUTH PLAIN message.

    Returns:
        The new content, and how many places were replaced.
    """
    markers = {
        form: _marker(name, len(form))
        for secret in secrets
        for name, form in encoded_forms(secret, username).items()
    }
    if not markers:
        return content, 0
    # Longest first: AUTH PLAIN contains the base64 of the password.
    needles = sorted(markers, key=len, reverse=True)
    pattern = re.compile(b"|".join(map(re.escape, needles)))
    return pattern.subn(lambda match: markers[match[0]], content)


def search_forms(secrets: Iterable[Secret], username: str | None = None) -> tuple[bytes, ...]:
    """Every form of every secret, for `contains_any`."""
    return tuple(
        dict.fromkeys(
            form for secret in secrets for form in encoded_forms(secret, username).values()
        )
    )


def contains_any(content: bytes, needles: Iterable[bytes]) -> bool:
    """Whether one of `needles` occurs in `content`."""
    return any(needle in content for needle in needles)


def _marker(form: str, length: int) -> bytes:
    if form in ("utf-16-le", "utf-16-be"):
        return MARKER.ljust(length // 2, "-").encode(form)
    return MARKER.ljust(length, "-").encode()

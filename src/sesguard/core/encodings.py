"""
The forms in which a secret may show up in bytes.

One list, used by whatever searches for a known secret (the tripwire of the tests and the demo, the
wiping of a target, the scanner): raw, URL-encoded, hexadecimal, base64 at each of the three byte
offsets, base64 of the SASL PLAIN and LOGIN messages, and UTF-16.
"""

import base64
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from sesguard.core.secret import Secret


def encoded_forms(secret: Secret, username: str | None = None) -> dict[str, bytes]:
    """
    List every form of `secret` to search for.

    Args:
        secret: The value.
        username: SMTP user that goes with it; adds the AUTH PLAIN message.

    Returns:
        Name of the form to the bytes to look for. Forms that are equal to the raw one are left out.
    """
    raw = secret.reveal().encode()
    forms: dict[str, bytes] = {"raw": raw}
    for name, value in _forms(raw, username):
        if value not in forms.values():
            forms[name] = value
    return forms


def _forms(raw: bytes, username: str | None) -> Iterator[tuple[str, bytes]]:
    text = raw.decode()
    yield "url", quote(text, safe="").encode()
    yield "url-path", quote(text).encode()
    yield "url-lower", quote_plus(text).replace("%2B", "%2b").replace("%2F", "%2f").encode()
    yield "hex", raw.hex().encode()
    yield "hex-upper", raw.hex().upper().encode()
    yield "json", text.replace("/", "\\/").encode()
    yield "utf-16-le", text.encode("utf-16-le")
    yield "utf-16-be", text.encode("utf-16-be")
    # A value inside a longer base64 text starts at any of three positions; the characters that also
    # depend on its neighbours are cut off at both ends.
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw)
        start = (offset * 8 + 5) // 6
        end = ((offset + len(raw)) * 8) // 6
        yield f"base64-{offset}", encoded[start:end]
    if username is not None:
        yield "auth-plain", base64.b64encode(b"\0" + username.encode() + b"\0" + raw)

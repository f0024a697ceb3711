"""
The forms in which a secret may show up in bytes.

One list, used by whatever searches for a known secret (the tripwire of the tests and the demo, the
wiping of a target, the scanner): raw, URL-encoded, hexadecimal, base64 at each of the three byte
offsets, base64 of the SASL PLAIN message, JSON, and UTF-16. SASL LOGIN is base64 at offset 0.

Limits: a form of fewer than `MIN_FORM_BYTES` bytes is left out, other than the raw one, because it
would be found everywhere. Base64 or hexadecimal that is broken into lines inside the secret, and
compressed or encrypted data, are not covered.
"""

import base64
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from sesguard.core.secret import Secret

MIN_FORM_BYTES: Final = 8

_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def encoded_forms(secret: Secret, username: str | None = None) -> dict[str, bytes]:
    """
    List every form of `secret` to search for.

    Args:
        secret: The value. Bytes that were not UTF-8 may be in it as surrogates ("surrogateescape").
        username: SMTP user that goes with it; adds the AUTH PLAIN message.

    Returns:
        Name of the form to the bytes to look for, each once. Empty for an empty secret.
    """
    raw = secret.reveal().encode("utf-8", "surrogateescape")
    forms = {"raw": raw} if raw else {}
    for name, value in _forms(raw, username):
        if len(value) >= MIN_FORM_BYTES and value not in forms.values():
            forms[name] = value
    return forms


def _forms(raw: bytes, username: str | None) -> Iterator[tuple[str, bytes]]:
    text = raw.decode("utf-8", "surrogateescape")
    for name, encoded in (
        ("url", quote(raw, safe="")),
        ("url-path", quote(raw)),
        ("url-form", quote_plus(raw)),
    ):
        yield name, encoded.encode()
        yield f"{name}-lower", _PERCENT.sub(lambda match: match[0].lower(), encoded).encode()
    yield "hex", raw.hex().encode()
    yield "hex-upper", raw.hex().upper().encode()
    yield "json", raw.replace(b"/", b"\\/")
    yield "utf-16-le", text.encode("utf-16-le", "surrogatepass")
    yield "utf-16-be", text.encode("utf-16-be", "surrogatepass")
    # A value inside a longer base64 text starts at any of three positions; the characters that also
    # depend on its neighbours are cut off at both ends.
    for offset in range(3):
        encoded_bytes = base64.b64encode(bytes(offset) + raw)
        start = (offset * 8 + 5) // 6
        end = ((offset + len(raw)) * 8) // 6
        yield f"base64-{offset}", encoded_bytes[start:end]
        yield f"base64url-{offset}", encoded_bytes[start:end].translate(_URL_SAFE)
    if username is not None:
        yield (
            "auth-plain",
            base64.b64encode(b"\0" + username.encode("utf-8", "surrogateescape") + b"\0" + raw),
        )

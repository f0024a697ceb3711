"""
A vault key as text: one line, ``sesguard-key/1`` and the base64 of its 32 bytes.

The same in a file, in a credential of systemd or in a secret, so that a person can move it.
"""

import base64
from typing import Final

_TITLE: Final = b"sesguard-key/1 "


def encode_key(key: bytes) -> bytes:
    """The line, with its end."""
    return _TITLE + base64.b64encode(key) + b"\n"


def decode_key(line: bytes) -> bytes:
    """The key in a line that `encode_key` made, and nothing of any other."""
    try:
        key = base64.b64decode(line.removeprefix(_TITLE))
    except ValueError:
        return b""
    return key if line == encode_key(key) else b""

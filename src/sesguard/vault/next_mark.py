"""
The coming mark: what vouches for a vault whose manifest key is being changed.

The mark is signed by the manifest key, so a vault with a new key needs a mark with a new signature,
and two files cannot be renamed at once. The coming mark is written first, under the new key:

    mark (old key)                  vault N   (old key)
    mark (old key)   mark.next      vault N   (old key)
    mark (old key)   mark.next      vault N+1 (new key)    one rename later
    mark (new key)                  vault N+1 (new key)

It names the mark that it replaces by its SHA-256 and counts only while exactly that mark is there,
signed by another key. So it adds no way to put back an old vault: whoever wants it to count has to
put back the mark of that time as well, and with vault and mark of one time nothing could ever be
told (docs/formats/vault.md).
"""

import hashlib
from pathlib import Path
from typing import Final

from msgspec import Struct

from sesguard.errors import VaultTampered
from sesguard.vault.format import Positive, parse_document, sign_document

NEXT_MARK_HEADER: Final = b"sesguard-next-mark/1"


class NextMark(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a coming mark."""

    generation: Positive
    """That of the vault with the new manifest key."""
    vault_id: str
    replaces: str
    """SHA-256 of the mark that is there, hexadecimal."""


def encode_next_mark(generation: int, vault_id: str, mark: bytes, key: bytes) -> bytes:
    """
    The bytes of the coming mark.

    Args:
        generation: Number of the coming generation.
        vault_id: That of the vault.
        mark: All bytes of the mark that it will replace.
        key: The new manifest key.
    """
    body = NextMark(generation, vault_id, hashlib.sha256(mark).hexdigest())
    return sign_document(NEXT_MARK_HEADER, body, key)


def read_next_mark(data: bytes, mark: bytes, vault_id: str, key: bytes, path: Path) -> int:
    """
    The generation in a coming mark.

    Raises:
        VaultTampered: Changed, of another vault or key, or not about this mark.
    """
    body = parse_document(data, NEXT_MARK_HEADER, NextMark, path).verify(key)
    if (body.vault_id, body.replaces) != (vault_id, hashlib.sha256(mark).hexdigest()):
        raise VaultTampered("{path} belongs to another vault", path=path)
    return body.generation

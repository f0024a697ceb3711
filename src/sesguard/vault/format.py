"""
The bytes of the vault's files: signed documents of three ASCII lines.

    header      kind and version of the file, ``sesguard-vault/1`` or ``sesguard-mark/1``
    body        canonical JSON: fields in the order of the class, keys of maps sorted, no spaces
    signature   base64 of HMAC-SHA256 over the two lines above, under the manifest key

each ended by one newline, and nothing after the third. The header is part of what is signed, so a
mark cannot pass for a vault. Reading holds ``serialise(parse(b)) == b`` for every accepted `b`:
anything that another spelling could hide in (spaces, order, duplicate keys, loose base64) is
refused as `VaultTampered`, as is everything else that does not fit.

Limits: `MAX_FILE_BYTES`. Described in docs/formats/vault.md.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from sesguard.core.credential import StagingLabel
from sesguard.errors import VaultTampered
from sesguard.vault import cipher

VAULT_HEADER: Final = b"sesguard-vault/1"
MARK_HEADER: Final = b"sesguard-mark/1"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""A vault of some 10,000 credential versions; a larger file is not ours."""

Positive = Annotated[int, Meta(ge=1)]

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class SealedRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One encrypted credential version."""

    version: Positive
    wrapped_key: bytes
    """The data key, as the key provider wrapped it."""
    nonce: bytes
    ciphertext: bytes
    """With its tag."""


class CredentialEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One credential: what is not secret of it, and its sealed records."""

    id: str
    labels: dict[StagingLabel, Positive]
    next_number: Positive
    versions: tuple[SealedRecord, ...]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a vault file."""

    generation: Positive
    """Grows by one with each change."""
    vault_id: str
    """32 hexadecimal digits; made with the vault and never changed."""
    provider: str
    """Name of the key provider."""
    manifest_key: bytes
    """The key that signs this file and the mark, as the key provider wrapped it."""
    credentials: tuple[CredentialEntry, ...]
    """In the order of their ids."""


class Mark(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a mark: the highest generation that is known to have been in use."""

    generation: Positive
    vault_id: str


Body = TypeVar("Body", bound=Struct)


@dataclass(frozen=True, slots=True)
class SignedDocument(Generic[Body]):
    """A parsed document whose signature has not been checked yet."""

    unverified: Body
    """Use it only to find the key to verify with."""
    covered: bytes
    signature: bytes
    path: Path

    def verify(self, key: bytes) -> Body:
        """
        Check the signature.

        Returns:
            The body, now to be trusted.

        Raises:
            VaultTampered: The signature does not fit.
        """
        if not cipher.is_authentic(key, self.covered, self.signature):
            raise VaultTampered(
                "{path} was changed: its signature does not fit",
                hint="run: sesguard credential check --restore-previous",
                path=self.path,
            )
        return self.unverified


def sign_document(header: bytes, body: Struct, key: bytes) -> bytes:
    """The three lines for `body`."""
    covered = header + b"\n" + _ENCODER.encode(body) + b"\n"
    return covered + base64.b64encode(cipher.authenticate(key, covered)) + b"\n"


def parse_document(
    data: bytes, header: bytes, kind: type[Body], path: Path
) -> SignedDocument[Body]:
    """
    Read the three lines without checking the signature.

    Args:
        data: All bytes of the file.
        header: The first line that it must have.
        kind: Class of the body.
        path: Where the bytes come from, for messages.

    Raises:
        VaultTampered: Not byte for byte what `sign_document` would have written.
    """
    lines = data.split(b"\n")
    if len(lines) == 4 and lines[0] == header and not lines[3]:
        try:
            body = msgspec.json.decode(lines[1], type=kind)
            signature = base64.b64decode(lines[2])
        except ValueError:
            pass
        else:
            if lines[1] == _ENCODER.encode(body) and lines[2] == base64.b64encode(signature):
                covered = data[: len(header) + len(lines[1]) + 2]
                return SignedDocument(body, covered, signature, path)
    raise VaultTampered(
        "{path} was changed or cut short: it does not have the form of a {header} file",
        hint="run: sesguard credential check --restore-previous",
        path=path,
        header=header.decode(),
    )

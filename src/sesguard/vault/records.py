"""
Sealing: one plaintext under a data key of its own, and credential versions as sealed records.

The data key is random, encrypts one plaintext and is kept only as the key provider wrapped it. Key
and ciphertext are both bound to the encryption context, so that a record opens only as the version
of the credential of the vault for which it was sealed.

The plaintext of a record is compact JSON: ``username``, ``passwords`` (region to password),
``created_at``, ``origin``, ``exposed``, ``deactivated_at``.

Described in docs/formats/sealed-record.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError, VaultTampered
from sesguard.vault import cipher
from sesguard.vault.format import SealedRecord
from sesguard.vault.providers.interface import KeyProvider


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted plaintext and its wrapped data key."""

    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


class _Payload(Struct, frozen=True, forbid_unknown_fields=True):
    username: str
    passwords: dict[str, Secret]
    created_at: str
    origin: str
    exposed: bool
    deactivated_at: str | None = None


def seal(provider: KeyProvider, plaintext: bytes, context: Mapping[str, str]) -> Sealed:
    """
    Encrypt `plaintext` under a fresh data key, bound to `context`.

    Raises:
        KeyProviderError: The data key cannot be wrapped.
    """
    data_key = cipher.new_key()
    wrapped_key = provider.wrap(data_key, context)
    nonce, ciphertext = cipher.seal(data_key, plaintext, cipher.canonical_context(context))
    return Sealed(wrapped_key, nonce, ciphertext)


def unseal(provider: KeyProvider, sealed: Sealed, context: Mapping[str, str]) -> bytes:
    """
    Decrypt what `seal` made.

    Raises:
        VaultTampered: Changed, or another context.
        KeyProviderError: The data key cannot be unwrapped.
    """
    data_key = provider.unwrap(sealed.wrapped_key, context)
    return cipher.unseal(
        data_key, sealed.nonce, sealed.ciphertext, cipher.canonical_context(context)
    )


def seal_version(
    provider: KeyProvider, vault_id: str, credential_id: str, version: CredentialVersion
) -> SealedRecord:
    """
    Make the sealed record of a credential version.

    Raises:
        CredentialError: A text in it is not valid Unicode.
        KeyProviderError: The data key cannot be wrapped.
    """
    payload = _Payload(
        version.username,
        dict(version.passwords),
        version.created_at,
        version.origin,
        version.exposed,
        version.deactivated_at,
    )
    try:
        plaintext = msgspec.json.encode(payload, enc_hook=Secret.reveal)
    except UnicodeEncodeError:
        raise CredentialError(
            "version {number} of credential {id} has text that is not valid Unicode",
            number=version.number,
            id=credential_id,
        ) from None
    sealed = seal(provider, plaintext, _context(vault_id, credential_id, version.number))
    return SealedRecord(version.number, sealed.wrapped_key, sealed.nonce, sealed.ciphertext)


def open_version(
    provider: KeyProvider, vault_id: str, credential_id: str, record: SealedRecord
) -> CredentialVersion:
    """
    Decrypt a sealed record.

    Raises:
        VaultTampered: Changed, or of another credential, version or vault.
        KeyProviderError: The data key cannot be unwrapped.
    """
    sealed = Sealed(record.wrapped_key, record.nonce, record.ciphertext)
    plaintext = unseal(provider, sealed, _context(vault_id, credential_id, record.version))
    try:
        payload = msgspec.json.decode(plaintext, type=_Payload, dec_hook=_to_secret)
    except ValueError:
        # The cause is dropped: it may quote the plaintext.
        raise VaultTampered(
            "the record of version {number} of credential {id} does not hold a credential version",
            hint="use the release of sesguard that wrote the vault",
            number=record.version,
            id=credential_id,
        ) from None
    return CredentialVersion(
        number=record.version,
        username=payload.username,
        passwords=payload.passwords,
        created_at=payload.created_at,
        origin=payload.origin,
        exposed=payload.exposed,
        deactivated_at=payload.deactivated_at,
    )


def _context(vault_id: str, credential_id: str, number: int) -> dict[str, str]:
    return {
        "purpose": "credential-version",
        "vault": vault_id,
        "credential": credential_id,
        "version": str(number),
    }


def _to_secret(_kind: type, value: str) -> Secret:
    return Secret(value)

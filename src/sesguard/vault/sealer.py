"""
Sealing of other data with the vault's key: checkpoints that contain a secret.

The sealed bytes describe themselves:

    18 bytes  ``sesguard-sealed/1`` and a newline
    2 bytes   length of the wrapped data key, big-endian
    n bytes   wrapped data key
    12 bytes  nonce
    the rest  AES-256-GCM ciphertext with its tag

Each call takes a fresh data key. The encryption context that the key provider sees is the
caller's, each name with ``context.`` before it, and ``purpose`` = ``sealed-data``, so that nothing
sealed here can pass for a credential version. Described in docs/formats/sealed-record.md.
"""

from collections.abc import Mapping
from typing import Final

from sesguard.errors import VaultTampered, WrongKey
from sesguard.vault import cipher
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.records import Sealed, seal, unseal

_HEADER: Final = b"sesguard-sealed/1\n"
_LENGTH_BYTES: Final = 2


class VaultSealer:
    """
    The `sesguard.core.interfaces.Sealer` that seals with the vault's key provider.

    Args:
        provider: What wraps the data keys.
        older: Opens what `provider` does not, while the key is being changed.
    """

    def __init__(self, provider: KeyProvider, older: KeyProvider | None = None) -> None:
        self._provider = provider
        self._older = older

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """
        Encrypt `plaintext`, bound to `context`: it opens only with the same context.

        Raises:
            KeyProviderError: The data key cannot be wrapped.
        """
        sealed = seal(self._provider, plaintext, _context(context))
        length = len(sealed.wrapped_key).to_bytes(_LENGTH_BYTES, "big")
        return _HEADER + length + sealed.wrapped_key + sealed.nonce + sealed.ciphertext

    def unseal(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """
        Decrypt what `seal` made.

        Raises:
            VaultTampered: Changed data, or another context.
            KeyProviderError: The data key cannot be unwrapped.
        """
        try:
            return unseal(self._provider, _parse(sealed), _context(context))
        except (WrongKey, VaultTampered):
            # What another kind of provider wrapped may have another form, too.
            if self._older is None:
                raise
        return unseal(self._older, _parse(sealed), _context(context))


def _parse(sealed: bytes) -> Sealed:
    rest = sealed.removeprefix(_HEADER)
    key_end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "big")
    nonce_end = key_end + cipher.NONCE_BYTES
    if len(rest) == len(sealed) or len(rest) < nonce_end + cipher.TAG_BYTES:
        raise VaultTampered("sealed data was changed or cut short: it does not have the right form")
    return Sealed(rest[_LENGTH_BYTES:key_end], rest[key_end:nonce_end], rest[nonce_end:])


def _context(context: Mapping[str, str]) -> dict[str, str]:
    return {"purpose": "sealed-data"} | {f"context.{name}": context[name] for name in context}

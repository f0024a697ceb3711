"""What the layers above hand to each other: small Protocols, each with one job."""

from collections.abc import Mapping
from typing import Protocol

from sesguard.core.credential import CredentialVersion


class CredentialSource(Protocol):
    """Gives the version of a credential that is in use at this moment."""

    def current(self, credential_id: str) -> CredentialVersion:
        """
        The CURRENT version.

        Raises:
            CredentialError: There is no such credential, or it has no CURRENT version.
            VaultError: The vault cannot be read and there is no last good copy in memory.
        """
        ...


class Sealer(Protocol):
    """Encrypts what must not lie on the disk in the clear, such as a checkpoint with a secret."""

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt `plaintext`, bound to `context`: it opens only with the same context."""
        ...

    def unseal(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """
        Decrypt what `seal` made.

        Raises:
            VaultTampered: Changed data, or another context.
            KeyProviderError: The key cannot be had.
        """
        ...

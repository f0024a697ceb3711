"""
What a key provider is.

A key provider wraps data keys: it encrypts 32 bytes under a key that it keeps (in a file, a TPM,
AWS KMS, an HSM) and binds them to an encryption context. The vault stores what it gives back and
never looks inside. Every provider passes `sesguard.testing.key_provider_suite`; all of ours share
`sesguard.vault.providers.stored`.

Errors are the same for all of them, so that callers can tell what to do:

    KeyProviderLocked       a passphrase, PIN or device is missing; a person must give it
    KeyProviderDenied       this caller may not use the key
    KeyProviderUnavailable  no key, or no answer; it may be there later
    WrongKey                the data key was wrapped by another key
    VaultTampered           right key, but the wrapped bytes or the context were changed
    SystemFault             the operating system said no; the hint has the command to run
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class ProviderDescription:
    """What a key provider is worth, for people; one sentence each."""

    protects: tuple[str, ...]
    """What an attacker cannot do."""
    does_not_protect: tuple[str, ...]
    """What an attacker can still do."""


class KeyProvider(Protocol):
    """Wraps and unwraps data keys."""

    name: ClassVar[str]
    """As in the settings file and in the vault: ``keyfile``, ``kms``."""

    @property
    def place(self) -> str:
        """Where the key lies, for people: a path, an ARN; nothing secret."""
        ...

    def ensure_key(self) -> bool:
        """
        Make the key if this provider keeps one of its own and has none yet.

        Returns:
            Whether one was made, and so needs a backup.

        Raises:
            KeyProviderError: There is no key and this provider cannot make one.
            SystemFault: The key is there and must not be used as it is.
        """
        ...

    def load(self) -> None:
        """
        Fetch whatever needs rights that the process is about to drop. May be repeated.

        Raises:
            KeyProviderError: The key cannot be had.
            SystemFault: The key is there and must not be used as it is.
        """
        ...

    def require_vacant(self) -> None:
        """
        Look that no key is in the way of a vault that is not under it and comes here.

        One that is there is of another vault, which would be lost with it, or one that this vault
        had before and that may have leaked. A next key that was given up is no matter.

        Raises:
            KeyProviderUnavailable: There is one.
            KeyProviderError: It cannot be told.
            SystemFault: Likewise.
        """
        ...

    def prepare_next(self, in_use: bytes = b"") -> bool:
        """
        Make a new key beside the one there is, and wrap with it from now on.

        What the key before it wrapped can be unwrapped as well, here and after the next `load`.
        A next key that is there already is taken if it wrapped `in_use`. Any other is replaced: it
        is of a change that was given up, and nobody knows who has read it since.

        Args:
            in_use: The vault's manifest key as this provider wrapped it; empty if it did not.

        Returns:
            Whether the key is a new one.

        Raises:
            KeyProviderError: It cannot be made.
            SystemFault: Likewise.
        """
        ...

    def promote_next(self) -> None:
        """
        Make the key of `prepare_next` the only one, in one step; without one nothing happens.

        Raises:
            KeyProviderError: It could not be done, or the key cannot be had after it.
            SystemFault: Likewise.
        """
        ...

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """
        Encrypt a 32-byte `data_key`, bound to `context`.

        Raises:
            KeyProviderError: The key cannot be had.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """
        Decrypt what `wrap` made.

        Raises:
            WrongKey: Another key wrapped it.
            VaultTampered: The bytes or the context differ from what was wrapped.
            KeyProviderError: The key cannot be had.
        """
        ...

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        ...

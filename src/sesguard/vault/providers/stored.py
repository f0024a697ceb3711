"""
What all key providers have in common: a 32-byte vault key, fetched once, that wraps data keys here.

Providers differ in where the vault key lies and what opens it, and in nothing else: a file, a
passphrase, the TPM, AWS KMS, a secret, an HSM. It is fetched once and then kept in memory, so that
a provider that goes away later stops no mail and the daemon needs no rights to it.

A wrapped data key is

    1 byte    format, 1
    8 bytes   key id: the first bytes of HMAC-SHA256(vault key, "sesguard key id")
    12 bytes  nonce
    48 bytes  AES-256-GCM of the data key; associated data: the 9 bytes above and the context

The key id tells a wrong key (`WrongKey`) from changed bytes (`VaultTampered`). A changed key id is
taken for a wrong key; neither ever gives a data key.

A provider has two places for a vault key, `Slot.CURRENT` and `Slot.NEXT`. While the key is being
changed (`sesguard.vault.rewrap`) both may be there, and what either wrapped can be unwrapped; at
the end the next one becomes the current one and the old key is gone.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final

from sesguard.errors import (
    KeyProviderError,
    KeyProviderUnavailable,
    SystemFault,
    VaultTampered,
    WrongKey,
)
from sesguard.system.files import (
    ensure_directory,
    keep_copy,
    read_file,
    remove_file,
    remove_stale_temporaries,
    require_private,
    write_atomic,
)
from sesguard.vault import cipher
from sesguard.vault.providers.interface import ProviderDescription

_FORMAT: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_HEADER_BYTES: Final = len(_FORMAT) + _KEY_ID_BYTES
_NONCE_END: Final = _HEADER_BYTES + cipher.NONCE_BYTES
_WRAPPED_BYTES: Final = _NONCE_END + cipher.KEY_BYTES + cipher.TAG_BYTES
_MAX_FILE_BYTES: Final = 16 * 1024


class Slot(StrEnum):
    """The two places for a vault key."""

    CURRENT = "current"
    NEXT = "next"


class StoredKeyProvider(ABC):
    """
    A `KeyProvider` that fetches its vault key from somewhere.

    A subclass says where: `_exists`, `_fetch`, `_store`, `_promote`, `_is_taken`, and what that is
    worth; and what of it is not kept (`_forget`).
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self._keys: dict[bytes, bytes] = {}
        """Key id to vault key, once they were fetched."""
        self._wraps_with = b""
        """Id of the key that wraps."""
        self._next = b""
        """Id of the key that was found in `Slot.NEXT`."""

    # What a subclass gives.

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the vault key lies, for people: a path, an ARN; nothing secret."""

    @abstractmethod
    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""

    @abstractmethod
    def _exists(self, slot: Slot) -> bool:
        """Whether there is a vault key in that place, in whatever state."""

    @abstractmethod
    def _fetch(self, slot: Slot) -> bytes:
        """
        The vault key in that place, which exists.

        Raises:
            KeyProviderError: It cannot be had.
            SystemFault: It is there and must not be used as it is.
        """

    @abstractmethod
    def _store(self, slot: Slot, key: bytes) -> None:
        """Put a new vault key into that place, durably and as a whole."""

    @abstractmethod
    def _promote(self) -> None:
        """Make the next key the current one, in one step; the old one is gone."""

    @abstractmethod
    def _is_taken(self) -> bool:
        """Whether another vault may be under a key that is there."""

    def _forget(self) -> None:  # noqa: B027 - most keep nothing
        """Let go of what only fetching a key needs: a PIN, a session; called after each load."""

    # `KeyProvider`.

    def ensure_key(self) -> bool:
        """Make the vault key if there is none; see `KeyProvider.ensure_key`."""
        missing = not any(self._exists(slot) for slot in Slot)
        if missing:
            self._store(Slot.CURRENT, cipher.new_key())
        self.load()
        return missing

    def load(self) -> None:
        """Fetch the vault key; see `KeyProvider.load`."""
        try:
            if not self._keys:
                self._load()
        finally:
            self._forget()

    def _load(self) -> None:
        found = [slot for slot in Slot if self._exists(slot)]
        if not found:
            raise KeyProviderUnavailable(
                "there is no vault key {place}",
                hint="put the key back from its backup, or run: sesguard init (for a new vault)",
                place=self.place,
            )
        for slot in found:
            try:
                key = self._fetch(slot)
            except (KeyProviderError, SystemFault):
                # A change of the key that was not finished must not stop who has the present one.
                if not self._keys:
                    raise
            else:
                self._keys[_key_id(key)] = key
                self._wraps_with = self._wraps_with or _key_id(key)
                if slot is Slot.NEXT:
                    self._next = _key_id(key)

    def require_vacant(self) -> None:
        """Look that no vault key is in the way; see `KeyProvider.require_vacant`."""
        if self._is_taken():
            raise KeyProviderUnavailable(
                "there is a vault key in {place} already, and this vault is not under it",
                hint="remove it if no other vault is under it, or name another place in the table"
                " of the key provider",
                place=self.place,
            )

    def prepare_next(self, in_use: bytes = b"") -> bool:
        """Make the next vault key and wrap with it from now on; see `KeyProvider`."""
        if any(self._exists(slot) for slot in Slot):
            self.load()
        is_new = not in_use or _id_in(in_use) != self._next
        if is_new:
            self._store(Slot.NEXT, cipher.new_key())
        key = self._fetch(Slot.NEXT)
        self._wraps_with = self._next = _key_id(key)
        self._keys[self._wraps_with] = key
        return is_new

    def promote_next(self) -> None:
        """Make the next vault key the only one; see `KeyProvider`."""
        if self._exists(Slot.NEXT):
            self._promote()
        self._keys.clear()
        self._wraps_with = self._next = b""
        self.load()

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt a data key, bound to `context`; see `KeyProvider.wrap`."""
        self.load()
        header = _FORMAT + self._wraps_with
        key = self._keys[self._wraps_with]
        nonce, ciphertext = cipher.seal(key, data_key, header + cipher.canonical_context(context))
        return header + nonce + ciphertext

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt what `wrap` made; see `KeyProvider.unwrap`."""
        self.load()
        header = wrapped[:_HEADER_BYTES]
        if len(wrapped) != _WRAPPED_BYTES or not header.startswith(_FORMAT):
            raise VaultTampered("a wrapped data key does not have the form of one")
        key = self._keys.get(_id_in(wrapped))
        if key is None:
            raise WrongKey(
                "the data key was not wrapped by the key in {place}",
                hint="put back the vault key that the vault was made with",
                place=self.place,
            )
        associated = header + cipher.canonical_context(context)
        return cipher.unseal(
            key, wrapped[_HEADER_BYTES:_NONCE_END], wrapped[_NONCE_END:], associated
        )


class FileKeyProvider(StoredKeyProvider):
    """
    A provider whose vault key lies in a file of its own, in the clear or protected.

    The file is refused when it is a symbolic link, has another owner than root (or the present
    user), or can be read by others; the hint has the command to run. The next key lies beside it,
    with ``.next`` at the end of the name.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._paths: Final = {Slot.CURRENT: path, Slot.NEXT: path.with_name(f"{path.name}.next")}

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self._paths[Slot.CURRENT])

    @abstractmethod
    def _protect(self, key: bytes) -> bytes:
        """The content of the file for a vault key."""

    @abstractmethod
    def _open(self, content: bytes) -> bytes:
        """
        The vault key in the content of a file; what is no key is taken for an empty file.

        Raises:
            KeyProviderError: It cannot be had.
        """

    def _exists(self, slot: Slot) -> bool:
        # A dangling link is something to complain about, not a place that is free.
        return os.path.lexists(self._paths[slot])

    def _fetch(self, slot: Slot) -> bytes:
        path = self._paths[slot]
        require_private(path)
        key = self._open(read_file(path, max_bytes=_MAX_FILE_BYTES).content)
        if len(key) != cipher.KEY_BYTES:
            raise KeyProviderUnavailable(
                "{path} holds no vault key", hint="put the key back from its backup", path=path
            )
        return key

    def _store(self, slot: Slot, key: bytes) -> None:
        path = self._paths[slot]
        if not path.parent.is_dir():
            ensure_directory(path.parent, mode=0o755)
        self._remove_leftovers()
        write_atomic(path, self._protect(key), mode=0o600)

    def _promote(self) -> None:
        keep_copy(self._paths[Slot.NEXT], self._paths[Slot.CURRENT])
        remove_file(self._paths[Slot.NEXT])
        self._remove_leftovers()

    def _is_taken(self) -> bool:
        return self._exists(Slot.CURRENT)

    def _remove_leftovers(self) -> None:
        """What a killed process was about to rename: a hidden copy of a key, which would stay."""
        path = self._paths[Slot.CURRENT]
        remove_stale_temporaries(path.parent, f"{path.name}.")


def _id_in(wrapped: bytes) -> bytes:
    return wrapped[len(_FORMAT) : _HEADER_BYTES]


def _key_id(key: bytes) -> bytes:
    return cipher.authenticate(key, b"sesguard key id")[:_KEY_ID_BYTES]

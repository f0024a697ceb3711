"""
The key provider ``keyfile``: the vault key lies in a file that only root can read.

The file is one line, ``sesguard-key/1`` and the base64 of 32 random bytes. It is refused when it is
a symbolic link, has another owner than root (or the present user), or can be read by others; the
hint has the command to run. The key is read once and then kept in memory: the daemon loads it as
root and drops its rights afterwards.

A wrapped data key is

    1 byte    format, 1
    8 bytes   key id: the first bytes of HMAC-SHA256(vault key, "sesguard key id")
    12 bytes  nonce
    48 bytes  AES-256-GCM of the data key; associated data: the 9 bytes above and the context

The key id tells a wrong key (`WrongKey`) from changed bytes (`VaultTampered`). A changed key id is
taken for a wrong key; neither ever gives a data key.

Known fault: the key lies beside the vault on the same host. See `KeyfileProvider.describe`.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from sesguard.errors import KeyProviderUnavailable, SystemFault, VaultTampered, WrongKey
from sesguard.system.files import ensure_directory, read_file, require_private, write_atomic
from sesguard.vault import cipher
from sesguard.vault.providers.interface import ProviderDescription

_LINE: Final = "sesguard-key/1 "
_MAX_BYTES: Final = 4096
_FORMAT: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_HEADER_BYTES: Final = len(_FORMAT) + _KEY_ID_BYTES
_NONCE_END: Final = _HEADER_BYTES + cipher.NONCE_BYTES
_WRAPPED_BYTES: Final = _NONCE_END + cipher.KEY_BYTES + cipher.TAG_BYTES

_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "a web user, another local user or a backup of the vault directory alone gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "whoever reads the whole disk, or a snapshot or backup of it, has the key and the vault",
        "root on this host can use the key",
    ),
)


class KeyfileProvider:
    """
    Wraps data keys with a key from a file; see the module docstring.

    Args:
        path: The key file. It is read at the first use or by `load`.
    """

    name: ClassVar[str] = "keyfile"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    @classmethod
    def create(cls, path: Path) -> "KeyfileProvider":
        """
        Make a new key file, 0600.

        Call it with the vault locked: of two calls at the same time the later one would win.

        Raises:
            SystemFault: There is such a file already, or it cannot be written.
        """
        if os.path.lexists(path):
            raise SystemFault(
                "{path} exists already",
                hint="keep it: what was sealed with this key opens with no other",
                path=path,
            )
        if not path.parent.is_dir():
            ensure_directory(path.parent, mode=0o755)
        line = f"{_LINE}{base64.b64encode(cipher.new_key()).decode()}\n"
        write_atomic(path, line.encode(), mode=0o600)
        return cls(path)

    def ensure_key(self) -> bool:
        """Make the key file if there is none; see `KeyProvider.ensure_key`."""
        missing = not os.path.lexists(self._path)
        if missing:
            self.create(self._path)
        self.load()
        return missing

    def load(self) -> None:
        """
        Read the key into memory.

        Raises:
            KeyProviderUnavailable: There is no such file, or no key in it.
            SystemFault: A link, a foreign owner or a loose mode.
        """
        self._loaded_key()

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt a data key, bound to `context`; see `KeyProvider.wrap`."""
        key = self._loaded_key()
        header = _FORMAT + _key_id(key)
        nonce, ciphertext = cipher.seal(key, data_key, header + cipher.canonical_context(context))
        return header + nonce + ciphertext

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt what `wrap` made; see `KeyProvider.unwrap`."""
        key = self._loaded_key()
        header = wrapped[:_HEADER_BYTES]
        if len(wrapped) != _WRAPPED_BYTES or not header.startswith(_FORMAT):
            raise VaultTampered("a wrapped data key does not have the form of one")
        if header[len(_FORMAT) :] != _key_id(key):
            raise WrongKey(
                "the data key was not wrapped by the key in {path}",
                hint="put back the key file that the vault was made with",
                path=self._path,
            )
        associated = header + cipher.canonical_context(context)
        return cipher.unseal(
            key, wrapped[_HEADER_BYTES:_NONCE_END], wrapped[_NONCE_END:], associated
        )

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def _loaded_key(self) -> bytes:
        if self._key is None:
            self._key = _read_key(self._path)
        return self._key


def _key_id(key: bytes) -> bytes:
    return cipher.authenticate(key, b"sesguard key id")[:_KEY_ID_BYTES]


def _read_key(path: Path) -> bytes:
    if not os.path.lexists(path):
        raise KeyProviderUnavailable(
            "there is no vault key {path}",
            hint="put the key back from its backup, or run: sesguard init (for a new vault)",
            path=path,
        )
    require_private(path)
    key = _parse_key(read_file(path, max_bytes=_MAX_BYTES).content)
    if key is None:
        raise KeyProviderUnavailable(
            "{path} holds no vault key", hint="put the key back from its backup", path=path
        )
    return key


def _parse_key(content: bytes) -> bytes | None:
    """The key in a key file; None unless the file is exactly what `create` writes."""
    try:
        key = base64.b64decode(content.removeprefix(_LINE.encode()))
    except ValueError:
        return None
    expected = _LINE.encode() + base64.b64encode(key) + b"\n"
    return key if content == expected and len(key) == cipher.KEY_BYTES else None

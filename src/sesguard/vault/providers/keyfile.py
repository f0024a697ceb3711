"""
The key provider ``keyfile``: the vault key lies in a file that only root can read.

The file is the line of `sesguard.vault.providers.key_line`.

Known fault: the key lies beside the vault on the same host. See `KeyfileProvider.describe`.
"""

import os
from pathlib import Path
from typing import ClassVar, Final

from sesguard.errors import SystemFault
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.key_line import decode_key, encode_key
from sesguard.vault.providers.stored import FileKeyProvider

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


class KeyfileProvider(FileKeyProvider):
    """
    Wraps data keys with a key from a file; see the module docstring.

    Args:
        path: The key file. It is read at the first use or by `load`.
    """

    name: ClassVar[str] = "keyfile"

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
        provider = cls(path)
        provider.ensure_key()
        return provider

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def _protect(self, key: bytes) -> bytes:
        return encode_key(key)

    def _open(self, content: bytes) -> bytes:
        return decode_key(content)

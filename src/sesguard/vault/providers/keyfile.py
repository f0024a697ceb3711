"""
The key provider ``keyfile``: the vault key lies in a file that only root can read.

The file is one line, ``sesguard-key/1`` and the base64 of 32 random bytes.

Known fault: the key lies beside the vault on the same host. See `KeyfileProvider.describe`.
"""

import base64
import os
from pathlib import Path
from typing import ClassVar, Final

from sesguard.errors import SystemFault
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.stored import FileKeyProvider

_LINE: Final = b"sesguard-key/1 "

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
        return _LINE + base64.b64encode(key) + b"\n"

    def _open(self, content: bytes) -> bytes:
        try:
            key = base64.b64decode(content.removeprefix(_LINE))
        except ValueError:
            return b""
        # Only exactly what `_protect` writes.
        return key if content == self._protect(key) else b""

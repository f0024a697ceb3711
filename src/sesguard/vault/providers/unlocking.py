"""
Where a provider gets the passphrase or PIN that opens its key.

In this order: the file that the settings name, the systemd credential of the service, a person at
the terminal. A line end at the end is not part of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderLocked
from sesguard.system.credentials import service_credential
from sesguard.system.files import read_file, require_private

Ask = Callable[[], Secret | None]
"""Asks a person at the terminal; None: there is no terminal."""

_MAX_BYTES: Final = 4096


def nobody() -> Secret | None:
    """An `Ask` where there is nobody."""
    return None


@dataclass(frozen=True, slots=True)
class Unlocking:
    """Finds one secret; see the module docstring."""

    what: str
    """``passphrase`` or ``PIN``."""
    file: Path | None
    """0600, owned by root or the present user."""
    credential: str
    """Name of a systemd credential."""
    ask: Ask = nobody

    def find(self) -> Secret:
        """
        The secret.

        Raises:
            KeyProviderLocked: There is none, or an empty one.
            SystemFault: The file cannot be read, or by others as well.
        """
        found = self._find()
        if found is None or not found.reveal():
            raise KeyProviderLocked(
                "the vault key is locked: there is no {what}",
                hint="name a file with it in the settings, pass the systemd credential"
                " {credential}, or run the command at a terminal",
                what=self.what,
                credential=self.credential,
            )
        return found

    def _find(self) -> Secret | None:
        if self.file is not None:
            require_private(self.file)
            return _secret(read_file(self.file, max_bytes=_MAX_BYTES).content)
        content = service_credential(self.credential)
        return self.ask() if content is None else _secret(content)


def _secret(content: bytes) -> Secret:
    return Secret(content.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r"))

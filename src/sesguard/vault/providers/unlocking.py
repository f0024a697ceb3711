"""
Where a provider gets the passphrase or PIN that opens its key.

In this order: the file that the settings name, the systemd credential of the service, a person at
the terminal. A line end at the end is not part of it.

A new one comes from the file with ``.next`` at the end of its name, if there is one, and else from
the same places. Until the change is finished both files may be there: `Unlocking.find_all` gives
what is in either, and `Unlocking.promote_next` makes the new one the only one.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderLocked
from sesguard.system.credentials import service_credential
from sesguard.system.files import (
    keep_copy,
    read_file,
    read_if_exists,
    remove_file,
    remove_stale_temporaries,
    require_private,
)

_MAX_BYTES: Final = 4096


class Ask(Protocol):
    """Asks a person at the terminal."""

    def __call__(self, what: str, *, new: bool) -> Secret | None:
        """
        Ask.

        Args:
            what: ``passphrase`` or ``PIN``.
            new: It is to be set now: say so, and have it typed twice.

        Returns:
            The answer; None: there is no terminal.
        """
        ...


def nobody(what: str, *, new: bool) -> Secret | None:  # noqa: ARG001 - an `Ask`
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

    def find(self, *, new: bool = False) -> Secret:
        """
        The secret.

        Args:
            new: The one to be set, where it differs from the present one.

        Raises:
            KeyProviderLocked: There is none, or an empty one.
            SystemFault: The file cannot be read, or by others as well.
        """
        found = self.find_next() if new else None
        if found is None:
            found = self._find(new=new)
        if not found:
            raise KeyProviderLocked(
                "the vault key is locked: there is no {what}",
                hint="name a file with it in the settings, pass the systemd credential"
                " {credential}, or run the command at a terminal",
                what=self.what,
                credential=self.credential,
            )
        return found

    def find_next(self) -> Secret | None:
        """
        What is in the file with the new secret; None: there is no such file.

        Raises:
            SystemFault: It cannot be read, or by others as well.
        """
        state = self.file and read_if_exists(_next(self.file), max_bytes=_MAX_BYTES)
        if not (self.file and state):
            return None
        require_private(_next(self.file))
        return _secret(state.content)

    def find_all(self) -> Iterator[Secret]:
        """
        The secret, and after it the one that takes its place when a change is finished.

        Raises:
            KeyProviderLocked: As `find`.
            SystemFault: As `find`.
        """
        yield self.find()
        following = self.find_next()
        if following:
            yield following

    def promote_next(self) -> None:
        """
        Make the file with the new secret the only one, in one step.

        Raises:
            SystemFault: It could not be done: there is none, say.
        """
        if self.file:
            keep_copy(_next(self.file), self.file)
            remove_file(_next(self.file))
            # A second name that a killed process had given to it would keep it on the disk.
            remove_stale_temporaries(self.file.parent, f"{self.file.name}.")

    def _find(self, *, new: bool) -> Secret | None:
        if self.file is not None:
            if not os.path.lexists(self.file):
                raise KeyProviderLocked(
                    "the vault key is locked: there is no file {path} with the {what}",
                    hint="put the file in its place; the service is then started again by systemd",
                    path=self.file,
                    what=self.what,
                )
            require_private(self.file)
            return _secret(read_file(self.file, max_bytes=_MAX_BYTES).content)
        content = service_credential(self.credential)
        return self.ask(self.what, new=new) if content is None else _secret(content)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _secret(content: bytes) -> Secret:
    return Secret(content.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r"))

"""
The whole change of the vault key: the vault, the journal, and at last the settings file.

Promises: it is refused before anything is done where it could not be brought to its end: a run in
the journal that is not finished, a settings file that cannot be changed, a vault that does not
open, a key provider that does not answer. It is refused, too, where the new key would take the
place of one that another vault may be under. No rotation, response or change of a target goes on
meanwhile: their locks are held. Killed at any moment, the vault opens with exactly one of the two
providers, and the same change done again finishes it.

Known fault: a `sesguard panic` that waits for the lock meanwhile goes on with the key that it
loaded before. It cuts the leak, and is to be run again for the rest.
"""

import contextlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.cli.i18n import N_
from sesguard.config.key_provider import set_key_provider, with_key_provider
from sesguard.config.schema import Settings
from sesguard.core.interfaces import Sealer
from sesguard.deploy.service import LOCK_FILE as TARGET_LOCK
from sesguard.errors import CheckFailed, Error
from sesguard.rotation.service import LOCK_FILE as ROTATION_LOCK
from sesguard.system.files import ensure_directory, read_file
from sesguard.system.locks import exclusive_lock
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.rewrap import unfinished
from sesguard.vault.sealer import VaultSealer
from sesguard.vault.vault import Vault
from sesguard.workflow.journal import Run, find_journal

_LOCKS: Final = (TARGET_LOCK, ROTATION_LOCK)
_WAYS_OUT: Final = {
    "target": N_("run: sesguard target apply {subject} (or: sesguard target undo {subject})"),
    "rotation": N_("run: sesguard rotate --resume --credential {subject}"),
    "retirement": N_("run: sesguard rotate --resume --credential {subject}"),
}
"""Workflow to what ends a run of it; all others are of ``panic``."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of the key came to."""

    generation: int
    """Of the vault."""
    unreadable: int
    """Entries of the journal that no key opened; they are as they were."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Moves everything that is sealed to a new key; see the module docstring."""

    settings: Settings
    config: Path
    """The settings file."""
    vault: Vault
    """With the key provider that the settings name."""
    target: KeyProvider
    """Where the new key lies; for the same provider, the one of the vault."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the target is another provider than the settings name."""
        return self.target is not self.vault.provider

    def is_begun(self) -> bool:
        """
        Whether an interrupted change brought the vault to the target, and the settings not.

        Raises:
            VaultTampered: The vault file does not have the form of one.
        """
        return self.is_elsewhere and self.vault.claimed_provider() == self.target.name

    def require_possible(self) -> None:
        """
        Look whether it can be done; changes nothing.

        Raises:
            CheckFailed: A run in the journal is not finished.
            SettingsError: The settings file cannot be changed.
            VaultError: The vault does not open, or the target has a key of another one.
        """
        if self.is_elsewhere:
            with_key_provider(read_file(self.config).content, self.config, self.target.name)
        journal = find_journal(self.settings.state_directory, VaultSealer(self.vault.provider))
        if journal is not None:
            with closing(journal):
                _require_finished(journal.unfinished())
        if not self.is_begun():
            self.vault.read()
            if self.is_elsewhere:
                self.target.require_vacant()

    def make(self) -> Changed:
        """
        Do it, or finish what an interrupted change began.

        Raises:
            LockBusyError: Another sesguard process changes something.
            CheckFailed: As `require_possible`, as is everything before the vault is changed.
            VaultError: As `sesguard.vault.rewrap`.
            SystemFault: A file cannot be read or written.
        """
        unreadable = 0

        def follow(sealer: Sealer) -> None:
            nonlocal unreadable
            journal = find_journal(self.settings.state_directory, sealer)
            if journal is not None:
                with closing(journal):
                    unreadable = journal.reseal()

        with self._alone():
            self.require_possible()
            contents = self.vault.rewrap(self.target, follow)
            if self.is_elsewhere:
                self._set_key_provider()
        return Changed(contents.generation, unreadable)

    def _set_key_provider(self) -> None:
        try:
            set_key_provider(self.config, self.target.name)
        except Error as error:
            raise unfinished(self.target.name, error) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        directory = self.settings.state_directory
        ensure_directory(directory, mode=0o755)
        with contextlib.ExitStack() as stack:
            for name in _LOCKS:
                stack.enter_context(exclusive_lock(directory / name))
            yield


def _require_finished(runs: list[Run]) -> None:
    for run in runs:
        raise CheckFailed(
            "a change that was begun at {time} is not finished: {workflow} of {subject}",
            hint=_WAYS_OUT.get(run.workflow, N_("run: sesguard panic")),
            time=run.started_at,
            workflow=run.workflow,
            subject=run.subject,
        )

"""
Every kind of key provider that a rewrap is tested with, and a host whose vault is under one.

A kind is a name and a function that gives a provider for a directory: always a fresh one, as
another process has it, whose key lies below that directory. To test one more, add it to `KINDS`; if
its key lies elsewhere, `SealedHost.copied` has to copy that, too.
"""

import shutil
import tomllib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from sesguard.cli.credential_rewrap_change import KeyChange
from sesguard.config.schema import Settings, VaultSettings
from sesguard.core.credential import Credential
from sesguard.core.message import message
from sesguard.errors import Error
from sesguard.vault.generation import VaultContents
from sesguard.vault.providers.interface import KeyProvider, ProviderDescription
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.providers.stored import FileKeyProvider
from sesguard.vault.sealer import VaultSealer
from sesguard.vault.vault import Vault
from sesguard.workflow.journal import (
    EntryState,
    JournalEntry,
    PlannedEntry,
    RunState,
    open_journal,
)

Change = Callable[[Credential], Credential]

SETTINGS: Final = '# ours\nstate_directory = "/x"\n\n[vault] # here\nkey_provider = "{}" # why\n'


class MaskedProvider(FileKeyProvider):
    """The second simplest kind: the key lies in a file with all its bits flipped."""

    name: ClassVar[str] = "masked"

    def describe(self) -> ProviderDescription:
        """Nothing much."""
        return ProviderDescription(("nothing",), ("everything",))

    def _protect(self, key: bytes) -> bytes:
        return bytes(255 - byte for byte in key)

    def _open(self, content: bytes) -> bytes:
        return self._protect(content)


Kinds = Mapping[str, Callable[[Path], KeyProvider]]

KINDS: Final[Kinds] = {
    "keyfile": lambda directory: KeyfileProvider(directory / "keyfile" / "vault.key"),
    "masked": lambda directory: MaskedProvider(directory / "masked" / "vault.key"),
}

PAIRS: Final = [(source, target) for source in KINDS for target in KINDS]
"""Every ordered pair; of one kind it is a new key of the same provider."""


@dataclass(frozen=True)
class SealedHost:
    """Settings, a vault and a journal below one directory."""

    directory: Path
    kinds: Kinds = field(default_factory=lambda: KINDS)
    copy_elsewhere: Callable[[Path, Path], None] = lambda _directory, _copy: None
    """Copies keys that do not lie below the directory."""

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    @property
    def configured(self) -> str:
        """The kind that the settings name."""
        name = tomllib.loads(self.config.read_text())["vault"]["key_provider"]
        assert isinstance(name, str)
        return name

    def vault(self, kind: str | None = None) -> Vault:
        """The vault as a new process opens it, with a kind; default: that of the settings."""
        return Vault(self.directory / "vault", self.kinds[kind or self.configured](self.directory))

    def change(self, target: str) -> KeyChange:
        """A change of the key, as a new process does it."""
        vault = self.vault()
        same = target == self.configured
        return KeyChange(
            Settings(
                state_directory=self.directory,
                vault=VaultSettings(directory=vault.directory),
            ),
            self.config,
            vault,
            vault.provider if same else self.kinds[target](self.directory),
        )

    def rewrap(self, target: str) -> None:
        """Change the key."""
        self.change(target).make()

    def openers(self, *kinds: str) -> dict[str, VaultContents]:
        """Which kinds open the vault, and to what."""
        opened = {}
        for kind in dict.fromkeys(kinds):
            try:
                opened[kind] = self.vault(kind).read()
            except Error:
                continue
        return opened

    def entries(self) -> list[JournalEntry]:
        """All of the journal, opened with the key of the settings."""
        sealer = VaultSealer(self.vault().provider)
        with closing(open_journal(self.directory, sealer)) as journal:
            return [
                entry for run in journal.runs("target") for entry in journal.entries(run.run_id)
            ]

    def run(self, state: RunState, subject: str = "exim") -> None:
        """Put a run of two steps into the journal."""
        sealer = VaultSealer(self.vault().provider)
        steps = [PlannedEntry(message("step"), b"first"), PlannedEntry(message("step"), b"second")]
        with closing(open_journal(self.directory, sealer)) as journal:
            run = journal.start_run("target", subject, steps, "2026-01-01T00:00:00+00:00")
            journal.begin_entry(run.run_id, 1, b"plaintext of the configuration")
            journal.set_entry_state(run.run_id, 1, EntryState.DONE)
            journal.set_run_state(run.run_id, state)

    def copied(self, directory: Path) -> "SealedHost":
        """The same host once more, to do the same thing to each anew."""
        shutil.copytree(self.directory, directory)
        self.copy_elsewhere(self.directory, directory)
        return replace(self, directory=directory)

    def forget(self, kind: str) -> None:
        """Lose the key of a kind that lies in files."""
        for path in sorted((self.directory / kind).iterdir()):
            path.unlink()


def sealed_host(
    directory: Path, kind: str, rotate: Change, kinds: Kinds = KINDS, **options: Any
) -> SealedHost:
    """A host whose vault has three versions, generation 4, with a run in the journal."""
    directory.mkdir()
    host = SealedHost(directory, kinds, **options)
    host.config.write_text(SETTINGS.format(kind))
    vault = host.vault()
    vault.provider.ensure_key()
    vault.create()
    for name in ("ses", "other", "ses"):
        vault.update(name, rotate)
    host.run(RunState.DONE)
    return host

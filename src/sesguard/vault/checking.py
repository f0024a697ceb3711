"""
Looking at every record of the vault without showing one, for ``credential check``.

A check names what was looked at and holds the error, if there was one. Nothing is raised for what
is wrong in the vault, so that one bad record does not hide the others.
"""

from dataclasses import dataclass
from pathlib import Path

from sesguard.errors import Error, SystemFault, VaultError
from sesguard.vault.format import CredentialEntry, Manifest
from sesguard.vault.generation import open_manifest
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.reading import VaultReader, rolled_back
from sesguard.vault.records import open_version
from sesguard.vault.store import VaultFiles


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """What became of one check. It never holds a secret."""

    path: Path
    """The file; for the check of the vault as a whole, its directory."""
    generation: int | None = None
    """None where the file does not tell."""
    credential_id: str | None = None
    """None where the check is of a file."""
    version: int | None = None
    """None where the check is of a file."""
    error: Error | None = None
    """What is wrong, or None."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.error is None


def check_vault(files: VaultFiles, provider: KeyProvider) -> list[RecordCheck]:
    """
    Check both generations, record by record, and then whether they are the right ones.

    Returns:
        For each of the two files one check of the file and one of each record in it; then one of
        the vault as a whole.
    """
    whole, mark = _check_whole(files, provider)
    return [
        *_check_file(files, files.current, provider, lowest=mark),
        *_check_file(files, files.previous, provider, lowest=mark - 1),
        whole,
    ]


def _check_whole(files: VaultFiles, provider: KeyProvider) -> tuple[RecordCheck, int]:
    try:
        current, mark = VaultReader(files, provider).load()
    except (VaultError, SystemFault) as error:
        return RecordCheck(files.directory, error=error), 0
    return RecordCheck(files.directory, current.number), mark


def _check_file(
    files: VaultFiles, path: Path, provider: KeyProvider, *, lowest: int
) -> list[RecordCheck]:
    try:
        data = files.read(path)
        if data is None:
            return []
        manifest, _ = open_manifest(data, path, provider)
    except (VaultError, SystemFault) as error:
        return [RecordCheck(path, error=error)]
    number = manifest.generation
    old = rolled_back(path, number, lowest) if number < lowest else None
    return [
        RecordCheck(path, number, error=old),
        *(
            check
            for entry in manifest.credentials
            for check in _check_entry(path, manifest, entry, provider)
        ),
    ]


def _check_entry(
    path: Path, manifest: Manifest, entry: CredentialEntry, provider: KeyProvider
) -> list[RecordCheck]:
    checks = []
    for record in entry.versions:
        error: Error | None = None
        try:
            open_version(provider, manifest.vault_id, entry.id, record)
        except VaultError as problem:
            error = problem
        checks.append(RecordCheck(path, manifest.generation, entry.id, record.version, error))
    return checks

"""
One generation of the vault: a verified manifest with its credentials opened.

Opening checks everything that can be checked in the file alone: form, signature, each record.
Whether it is the generation that should be there is for `sesguard.vault.reading` to say.

Changing makes a new generation. A record is carried over as it is while its version is unchanged; a
changed or new version is sealed anew under a new data key. `Generation.resealed` seals all of them
anew, with a new manifest key.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from sesguard.core.credential import Credential
from sesguard.errors import VaultTampered, WrongKey
from sesguard.vault import cipher
from sesguard.vault.format import (
    MARK_HEADER,
    VAULT_HEADER,
    CredentialEntry,
    Manifest,
    Mark,
    parse_document,
    sign_document,
)
from sesguard.vault.next_mark import encode_next_mark, read_next_mark
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.records import open_version, seal_version

_VAULT_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class VaultContents:
    """What is in the vault, opened."""

    generation: int
    vault_id: str
    credentials: Mapping[str, Credential]

    def credential(self, name: str) -> Credential:
        """The credential of that name; one that is not there has no versions."""
        return self.credentials.get(name, Credential(name))


@dataclass(frozen=True, slots=True)
class Generation:
    """A verified manifest, the key that signs it, and the opened credentials."""

    manifest: Manifest
    contents: VaultContents
    key: bytes = field(repr=False)

    @property
    def number(self) -> int:
        """The number of this generation."""
        return self.manifest.generation

    def encode(self) -> bytes:
        """The bytes of the vault file."""
        return sign_document(VAULT_HEADER, self.manifest, self.key)

    def encode_mark(self) -> bytes:
        """The bytes of the mark that says that this generation is in use."""
        return sign_document(MARK_HEADER, Mark(self.number, self.manifest.vault_id), self.key)

    def read_mark(self, data: bytes | None, path: Path) -> int:
        """
        The generation in a mark of this vault.

        Raises:
            VaultTampered: Not there, changed, or of another vault.
        """
        if data is None:
            raise VaultTampered(
                "{path} is gone, so an old generation of the vault could not be told",
                hint="run: sesguard credential check --restore-previous",
                path=path,
            )
        mark = parse_document(data, MARK_HEADER, Mark, path).verify(self.key)
        if mark.vault_id != self.manifest.vault_id:
            raise VaultTampered("{path} belongs to another vault", path=path)
        return mark.generation

    def encode_next_mark(self, mark: bytes) -> bytes:
        """The bytes of the coming mark, for a generation with a new manifest key."""
        return encode_next_mark(self.number, self.manifest.vault_id, mark, self.key)

    def read_next_mark(self, data: bytes, mark: bytes, path: Path) -> int:
        """
        The generation in a coming mark of this vault.

        Raises:
            VaultTampered: It does not count; see `sesguard.vault.next_mark`.
        """
        return read_next_mark(data, mark, self.manifest.vault_id, self.key, path)

    def numbered(self, number: int) -> "Generation":
        """The same credentials as generation `number`."""
        return self._with(number, self.manifest.credentials, self.contents.credentials)

    def with_credential(self, provider: KeyProvider, credential: Credential) -> "Generation":
        """
        The next generation, with `credential` added or replaced.

        Raises:
            KeyProviderError: A data key cannot be wrapped.
        """
        name = credential.credential_id
        entries = {entry.id: entry for entry in self.manifest.credentials}
        entries[name] = self._seal(provider, entries.get(name), credential)
        return self._with(
            self.number + 1,
            tuple(entries[key] for key in sorted(entries)),
            {**self.contents.credentials, name: credential},
        )

    def without_credential(self, credential_id: str) -> "Generation":
        """The next generation, without that credential."""
        return self._with(
            self.number + 1,
            tuple(entry for entry in self.manifest.credentials if entry.id != credential_id),
            {k: v for k, v in self.contents.credentials.items() if k != credential_id},
        )

    def resealed(self, provider: KeyProvider) -> "Generation":
        """
        The next generation: the same credentials, and every key a new one, wrapped by `provider`.

        Raises:
            KeyProviderError: A data key cannot be wrapped.
        """
        number, vault_id, key = self.number + 1, self.manifest.vault_id, cipher.new_key()
        manifest = Manifest(
            number,
            vault_id,
            provider.name,
            provider.wrap(key, _manifest_context(vault_id)),
            tuple(self._resealed(provider, entry) for entry in self.manifest.credentials),
        )
        return Generation(manifest, VaultContents(number, vault_id, self.contents.credentials), key)

    def _resealed(self, provider: KeyProvider, entry: CredentialEntry) -> CredentialEntry:
        versions = self.contents.credentials[entry.id].versions
        return msgspec.structs.replace(
            entry,
            versions=tuple(
                seal_version(provider, self.manifest.vault_id, entry.id, version)
                for version in versions
            ),
        )

    def _seal(
        self, provider: KeyProvider, entry: CredentialEntry | None, credential: Credential
    ) -> CredentialEntry:
        name = credential.credential_id
        old = self.contents.credential(name)
        known = {version.number: version for version in old.versions}
        records = {record.version: record for record in entry.versions} if entry else {}
        return CredentialEntry(
            id=name,
            labels=dict(credential.labels),
            next_number=credential.next_number,
            versions=tuple(
                records[version.number]
                if known.get(version.number) == version
                else seal_version(provider, self.manifest.vault_id, name, version)
                for version in credential.versions
            ),
        )

    def _with(
        self,
        number: int,
        entries: tuple[CredentialEntry, ...],
        credentials: Mapping[str, Credential],
    ) -> "Generation":
        return Generation(
            msgspec.structs.replace(self.manifest, generation=number, credentials=entries),
            VaultContents(number, self.manifest.vault_id, MappingProxyType(dict(credentials))),
            self.key,
        )


def first_generation(provider: KeyProvider) -> Generation:
    """
    Generation 1 of a new, empty vault.

    Raises:
        KeyProviderError: The manifest key cannot be wrapped.
    """
    key = cipher.new_key()
    vault_id = os.urandom(_VAULT_ID_BYTES).hex()
    wrapped_key = provider.wrap(key, _manifest_context(vault_id))
    manifest = Manifest(1, vault_id, provider.name, wrapped_key, ())
    return Generation(manifest, VaultContents(1, vault_id, MappingProxyType({})), key)


def claimed_provider(data: bytes, path: Path) -> str:
    """
    The name of the key provider that a vault file claims; nothing of it is verified.

    Raises:
        VaultTampered: It does not have the form of a vault file.
    """
    return parse_document(data, VAULT_HEADER, Manifest, path).unverified.provider


def open_manifest(data: bytes, path: Path, provider: KeyProvider) -> tuple[Manifest, bytes]:
    """
    Check form and signature of a vault file.

    Returns:
        The manifest, and the key that signs it.

    Raises:
        VaultTampered: Changed in any way.
        KeyProviderError: The manifest key cannot be unwrapped.
    """
    document = parse_document(data, VAULT_HEADER, Manifest, path)
    claimed = document.unverified
    if claimed.provider != provider.name:
        raise WrongKey(
            "{path} says that its key provider is {found!r}; the settings say {configured!r}",
            hint="run: sesguard credential rewrap --to {found} (to finish a change of the key), or"
            " set key_provider in the table vault of the settings file to {found}",
            path=path,
            found=claimed.provider,
            configured=provider.name,
        )
    key = provider.unwrap(claimed.manifest_key, _manifest_context(claimed.vault_id))
    return document.verify(key), key


def open_generation(data: bytes, path: Path, provider: KeyProvider) -> Generation:
    """
    Check a vault file and open every record in it.

    Raises:
        VaultTampered: Changed in any way.
        KeyProviderError: A key cannot be unwrapped.
    """
    manifest, key = open_manifest(data, path, provider)
    credentials = {
        entry.id: Credential(
            entry.id,
            tuple(
                open_version(provider, manifest.vault_id, entry.id, record)
                for record in entry.versions
            ),
            entry.labels,
            entry.next_number,
        )
        for entry in manifest.credentials
    }
    contents = VaultContents(manifest.generation, manifest.vault_id, MappingProxyType(credentials))
    return Generation(manifest, contents, key)


def _manifest_context(vault_id: str) -> dict[str, str]:
    return {"purpose": "manifest", "vault": vault_id}

"""
The vault: credentials under lock and seal, changed in one durable step.

Promises
    A change is one rename: after a crash, a kill or a full disk the vault is what it was before or
    what it was to become, and it opens.
    Two writers never lose each other's change: a lock is held from reading to writing.
    Readers need no lock and no right to write; they see one complete generation.
    A changed byte, a cut, a wrong key and an older generation are refused; the last good generation
    can still be opened (`Vault.read_last_good`) and put back (`Vault.restore_previous`).

Raises `VaultMissing`, `VaultTampered`, `VaultRolledBack`, `VaultBusy`, `KeyProviderError`, and
`SystemFault` for what the operating system refuses.

Known faults: putting back the whole directory, mark and all, as it was at one earlier moment cannot
be told from the files; a running daemon tells (`sesguard.vault.source`). Locks and renames promise
less on network file systems. Formats and reasons: docs/formats/vault.md.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sesguard.core.credential import Credential
from sesguard.core.interfaces import Sealer
from sesguard.errors import CredentialError, SystemFault, VaultError, VaultTampered
from sesguard.vault.checking import RecordCheck, check_vault
from sesguard.vault.generation import Generation, VaultContents, claimed_provider, first_generation
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.reading import DAMAGE, VaultReader, missing
from sesguard.vault.rewrap import rewrap
from sesguard.vault.store import LOCK_TIMEOUT_S, Stamp, VaultFiles


class Vault:
    """
    The vault in one directory; see the module docstring.

    Args:
        directory: Where its files are.
        provider: What wraps its keys.
        reader_gid: Group that may read the files; None for the owner alone.
        lock_timeout_s: How long a change waits for another one to end.
    """

    def __init__(
        self,
        directory: Path,
        provider: KeyProvider,
        *,
        reader_gid: int | None = None,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self.directory = directory
        self.provider = provider
        self._files = VaultFiles(directory, reader_gid, lock_timeout_s)
        self._reader = VaultReader(self._files, provider)

    @property
    def stamp(self) -> Stamp | None:
        """
        A cheap value that differs once the vault was changed; None when it cannot be seen.

        It may differ when nothing was changed as well.
        """
        return self._files.stamp

    def exists(self) -> bool:
        """
        Whether there is a vault, in whatever state.

        Raises:
            SystemFault: The directory cannot be searched.
        """
        return self._files.exists()

    def claimed_provider(self) -> str | None:
        """
        The key provider that the vault file names, unverified; None where there is no such file.

        Raises:
            VaultTampered: The file does not have the form of a vault.
            SystemFault: It cannot be read.
        """
        data = self._files.read(self._files.current)
        return None if data is None else claimed_provider(data, self._files.current)

    def create(self) -> None:
        """
        Make the directory and an empty vault in it.

        Raises:
            VaultError: There is a vault already, or the manifest key cannot be wrapped.
            SystemFault: The files cannot be made.
        """
        with self.locked():
            if self.exists():
                raise VaultError(
                    "there is a vault in {directory} already",
                    hint="use it, or move the directory away",
                    directory=self.directory,
                )
            first = first_generation(self.provider)
            # The mark comes first, so that a vault without a mark is never the work of a crash.
            self._files.write_mark(first.encode_mark())
            self._files.commit(first.encode(), keep_current=False)
            self._files.write_previous(first.encode())

    def read(self) -> VaultContents:
        """
        Open the current generation.

        Raises:
            VaultError: It is not there, changed, or older than it should be, or a key cannot be
                unwrapped.
            SystemFault: It cannot be read.
        """
        return self._reader.load()[0].contents

    def read_last_good(self) -> VaultContents:
        """
        Open the newest generation that is whole and not too old: current, else previous.

        Raises:
            VaultError: There is none; this is the error of `read`.
            SystemFault: As `read`.
        """
        try:
            return self.read()
        except DAMAGE:
            good = self._reader.last_good()
            if good is None:
                raise
            return good.contents

    def restore_previous(self) -> VaultContents:
        """
        Make the newest generation that is whole current again, as a new one, with a new mark.

        It is for a person to decide: without a mark that fits, the generation may be an old one.

        Raises:
            VaultError: Nothing is wrong with the vault, or no generation is whole.
            SystemFault: The files cannot be read or written.
        """
        self._require_existing()
        with self.locked():
            try:
                self._reader.load()
            except DAMAGE:
                good = self._reader.last_good(without_mark=True)
                if good is None:
                    raise
            else:
                raise VaultError(
                    "the vault in {directory} is in order: there is nothing to restore",
                    directory=self.directory,
                )
            return self._put_back(good)

    def update(self, credential_id: str, change: Callable[[Credential], Credential]) -> Credential:
        """
        Change one credential.

        Args:
            credential_id: Which one.
            change: Gives the new credential for the old one (without versions if there is none
                yet). It is called with the lock held. An equal result writes nothing.

        Returns:
            The credential as it is in the vault now.

        Raises:
            CredentialError: The id cannot be one, or `change` gave another credential back.
            VaultError: As `read`, or another process holds the lock. Nothing was changed.
            SystemFault: The files cannot be read or written. Nothing was changed.
        """
        self._require_existing()
        with self.locked():
            present, mark = self._reader.load()
            old = present.contents.credential(credential_id)
            new = change(old)
            if new.credential_id != credential_id:
                raise CredentialError(
                    "a change of credential {id} gave back {other}",
                    id=credential_id,
                    other=new.credential_id,
                )
            if new != old:
                self._commit(present, mark, present.with_credential(self.provider, new))
            return new

    def remove(self, credential_id: str) -> None:
        """
        Remove a credential with all its versions; the previous generation still holds it.

        Raises:
            CredentialError: There is none of that name.
            VaultError: As `update`.
            SystemFault: As `update`.
        """
        self._require_existing()
        with self.locked():
            present, mark = self._reader.load()
            if credential_id not in present.contents.credentials:
                raise CredentialError("there is no credential {id}", id=credential_id)
            self._commit(present, mark, present.without_credential(credential_id))

    def rewrap(self, target: KeyProvider, follow: Callable[[Sealer], None]) -> VaultContents:
        """
        Seal everything anew under a new key of `target`; see `sesguard.vault.rewrap`.

        Use this object no more where the target is another provider than its own.

        Args:
            target: Where the new key lies. For a new key of the same provider, the very
                object that this vault was opened with.
            follow: Seals anew what lies outside the vault, with a sealer that opens what either
                provider sealed and seals with the target.

        Raises:
            VaultError: The vault cannot be read, a key cannot be had, or another process holds
                the lock. Where the new key is in use already, the error says so and how to go on.
            SystemFault: The files cannot be read or written.
        """
        self._require_existing()
        with self.locked():
            return rewrap(self._files, self.provider, target, follow).contents

    def verify(self) -> list[RecordCheck]:
        """Open every record of both generations; see `sesguard.vault.checking`."""
        return check_vault(self._files, self.provider)

    def locked(self) -> AbstractContextManager[None]:
        """
        Hold the lock; the directory is made if it is not there.

        The methods that change the vault take it themselves and must not be called meanwhile.

        Raises:
            VaultBusy: Another process holds it.
            SystemFault: No directory or lock can be made.
        """
        return self._files.locked()

    def _require_existing(self) -> None:
        # Taking the lock makes the directory, which is not wanted for a vault that is not there.
        if not self.exists():
            raise missing(self.directory)

    def _commit(self, present: Generation, mark: int, new: Generation) -> None:
        if mark < present.number:
            self._files.write_mark(present.encode_mark())
        self._files.commit(new.encode(), keep_current=True)
        # The change is made. Saying that it failed would make the caller undo or repeat it; a mark
        # that is one behind is caught up with by the next change.
        with contextlib.suppress(SystemFault):
            self._files.write_mark(new.encode_mark())

    def _put_back(self, good: Generation) -> VaultContents:
        highest = good.number
        with contextlib.suppress(VaultTampered, SystemFault):
            highest = max(highest, self._reader.read_mark(good))
        # Numbered as the direct predecessor of the new one, so that it can stand in for it at once
        # and when this is interrupted.
        self._files.write_previous(good.numbered(highest).encode())
        restored = good.numbered(highest + 1)
        self._files.commit(restored.encode(), keep_current=False)
        self._files.write_mark(restored.encode_mark())
        return restored.contents

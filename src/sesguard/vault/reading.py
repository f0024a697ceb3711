"""
Which generation to believe: the vault's files checked against each other.

The *mark* holds the highest generation known to have been in use. A writer moves it on after each
commit, and before the next one if it was killed in between, so it is at most one behind:

    current < mark        an old vault was put back (`VaultRolledBack`)
    current > mark + 1    an old mark was put back (`VaultTampered`)
    previous < mark - 1   too old to stand in for the current one

Nobody takes the lock for reading. The mark is read before the vault, which can only be newer then,
and once more after it, when it can be at most one behind. Where the manifest key was changed in
between, no key verifies both marks, and all is read again.

A mark that is signed by another key than the vault counts for nothing, and the coming mark for it,
if there is one; see `sesguard.vault.next_mark`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.errors import (
    SystemFault,
    VaultMissing,
    VaultRolledBack,
    VaultTampered,
    WrongKey,
)
from sesguard.vault.generation import Generation, open_generation
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.store import VaultFiles

DAMAGE: Final = (VaultMissing, VaultTampered, VaultRolledBack, WrongKey, SystemFault)
"""What another generation may help against. A key provider out of reach is not damage."""


_ATTEMPTS: Final = 3
"""How often is read anew where the marks changed meanwhile."""


@dataclass(frozen=True, slots=True)
class _Marks:
    mark: bytes | None
    coming: bytes | None


class VaultReader:
    """Reads the generations that lie in the vault's files."""

    def __init__(self, files: VaultFiles, provider: KeyProvider) -> None:
        self._files = files
        self._provider = provider

    def load(self) -> tuple[Generation, int]:
        """
        The current generation, and the generation in the mark.

        Raises:
            VaultMissing: There is no vault.
            VaultTampered: Vault or mark were changed, or are not of the same time.
            VaultRolledBack: The vault is older than the mark.
            KeyProviderError: A key cannot be unwrapped.
            SystemFault: A file cannot be read.
        """
        attempt = 1
        while True:
            before, current, after = self._marks(), self._open(self._files.current), self._marks()
            try:
                return current, self._judge(before, current, after)
            except VaultTampered:
                if before == after or attempt == _ATTEMPTS:
                    raise
            attempt += 1

    def _judge(self, before: "_Marks", current: Generation, after: "_Marks") -> int:
        """The generation in the mark, which fits the current one."""
        lowest = self._mark_for(current, after if before.mark is None else before)
        mark = self._mark_for(current, after)
        if current.number < lowest:
            raise rolled_back(self._files.current, current.number, lowest)
        if current.number > mark + 1:
            raise VaultTampered(
                "{path} is of generation {mark}: too old for a vault of generation {generation}",
                hint="run: sesguard credential check --restore-previous",
                path=self._files.mark,
                mark=mark,
                generation=current.number,
            )
        return mark

    def last_good(self, *, without_mark: bool = False) -> Generation | None:
        """
        The newest generation that opens and is not too old, or None.

        Where no mark fits, the current generation is taken if the previous one is its predecessor:
        whoever puts back an old file would need its neighbour too.

        Args:
            without_mark: Take the newest one that opens if no mark fits.

        Raises:
            KeyProviderError: The key provider is out of reach.
        """
        found = sorted(self._intact(), key=lambda each: each.number, reverse=True)
        for generation in found:
            try:
                mark = self.read_mark(generation)
            except (VaultTampered, SystemFault):
                if without_mark or _is_successor(found):
                    return generation
            else:
                if generation.number >= mark - 1:
                    return generation
        return None

    def read_mark(self, generation: Generation) -> int:
        """
        The generation in the mark.

        Raises:
            VaultTampered: The mark is not there, changed, or not of the vault of `generation`.
            SystemFault: The mark cannot be read.
        """
        return self._mark_for(generation, self._marks())

    def _marks(self) -> "_Marks":
        # The coming one first: a writer removes it only after it has replaced the mark.
        coming = self._files.read(self._files.next_mark)
        return _Marks(self._files.read(self._files.mark), coming)

    def _mark_for(self, generation: Generation, marks: "_Marks") -> int:
        try:
            return generation.read_mark(marks.mark, self._files.mark)
        except VaultTampered:
            if marks.mark is None or marks.coming is None:
                raise
            with contextlib.suppress(VaultTampered):
                return generation.read_next_mark(marks.coming, marks.mark, self._files.next_mark)
            raise

    def _intact(self) -> Iterator[Generation]:
        for path in (self._files.current, self._files.previous):
            with contextlib.suppress(*DAMAGE):
                yield self._open(path)

    def _open(self, path: Path) -> Generation:
        # Asked before reading, so that a vault in the making is not taken for a removed one.
        was_there = self._files.exists()
        data = self._files.read(path)
        if data is not None:
            return open_generation(data, path, self._provider)
        if was_there:
            raise VaultTampered(
                "{path} is gone",
                hint="run: sesguard credential check --restore-previous",
                path=path,
            )
        raise missing(self._files.directory)


def missing(directory: Path) -> VaultMissing:
    """The error for a vault that is not there."""
    return VaultMissing(
        "there is no vault in {directory}", hint="run: sesguard init", directory=directory
    )


def rolled_back(path: Path, generation: int, lowest: int) -> VaultRolledBack:
    """The error for an old generation."""
    return VaultRolledBack(
        "{path} is generation {generation}, older than the {lowest} that was in use already",
        hint="run: sesguard credential check --restore-previous",
        path=path,
        generation=generation,
        lowest=lowest,
    )


def _is_successor(found: list[Generation]) -> bool:
    """Whether these are two generations of one vault, one after the other."""
    if len(found) != 2:
        return False
    newer, older = (generation.contents for generation in found)
    return newer.vault_id == older.vault_id and newer.generation == older.generation + 1

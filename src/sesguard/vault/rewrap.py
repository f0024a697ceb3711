"""
Moving the vault to a new key, of the same key provider or of another one.

In this order, with the vault's lock held:

    1. the target makes its next key (`KeyProvider.prepare_next`); one that is there is taken only
       if the vault is under it already
    2. the mark is brought up to date, and the coming mark is written beside it
    3. the vault is committed as the next generation, with a new manifest key and new data keys,
       all wrapped by the target's next key: one rename, from which on the target opens the vault
       and the provider before it does not
    4. ``vault.previous``, the mark and whatever else was sealed follow
    5. the target's next key becomes its only one (`KeyProvider.promote_next`)

Promises
    Before the rename of step 3 nothing is changed but for a next key that nothing uses yet.
    Killed at any moment, the vault opens with exactly one of the two providers, and doing it again
    finishes it: everything is sealed anew once more, also what was sealed meanwhile.
    A new key of the same provider is one that this call made. Where it had to finish an interrupted
    change first, whose key may be of any age, it makes another one after it.
    At the end the old key is needed for nothing but old backups.
    The settings are not touched: they follow last (`sesguard.config.key_provider`).

Raises what the providers raise, `VaultError` and `SystemFault`. After step 3 each error says that
the new key is in use and how to go on.

Known fault: a reader that loaded its key before and does not see the new one (another process, the
daemon) finds that the key does not fit; the daemon serves on from memory until it is restarted.
"""

from collections.abc import Callable

from sesguard.core.interfaces import Sealer
from sesguard.errors import Error, VaultError
from sesguard.vault.generation import Generation, claimed_provider, open_generation
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.reading import VaultReader
from sesguard.vault.sealer import VaultSealer
from sesguard.vault.store import VaultFiles


def rewrap(
    files: VaultFiles,
    source: KeyProvider,
    target: KeyProvider,
    follow: Callable[[Sealer], None],
) -> Generation:
    """
    Move the vault to a new key of `target`; see the module docstring. The lock is held.

    Args:
        files: The vault's files.
        source: The provider that the settings name.
        target: Where the new key lies; the same object as `source` for a new key of that one.
        follow: Seals anew what lies outside the vault, with the sealer that it is given.

    Returns:
        The new current generation.

    Raises:
        VaultError: As the module docstring says.
        SystemFault: Likewise.
    """
    new, is_new_key = _change(files, source, target, follow)
    if source is target and not is_new_key:
        new, _ = _change(files, source, target, follow)
    return new


def _change(
    files: VaultFiles,
    source: KeyProvider,
    target: KeyProvider,
    follow: Callable[[Sealer], None],
) -> tuple[Generation, bool]:
    """The steps of the module docstring; the new generation, and whether its key is a new one."""
    opener = _opener(files, source, target)
    present, _ = VaultReader(files, opener).load()
    is_new_key = target.prepare_next(present.manifest.manifest_key if opener is target else b"")
    new = present.resealed(target)
    # A provider that does not give back what it wrapped is found out while nothing is changed.
    open_generation(new.encode(), files.current, target)
    # An interrupted change may have left a coming mark that is still needed: it becomes the mark.
    mark = present.encode_mark()
    files.write_mark(mark)
    files.write_next_mark(new.encode_next_mark(mark))
    files.commit(new.encode(), keep_current=True)
    try:
        files.write_previous(new.numbered(present.number).encode())
        files.write_mark(new.encode_mark())
        follow(VaultSealer(target, None if source is target else source))
        target.promote_next()
    except Error as error:
        raise unfinished(target.name, error) from error
    return new, is_new_key


def unfinished(target: str, problem: Error) -> VaultError:
    """The error once the vault is under the new key and something after that failed."""
    return VaultError(
        "the vault has its new key, of the provider {provider}, but the change is not at its end:"
        " {problem}",
        hint="mend that, then run again: sesguard credential rewrap --to {provider}",
        provider=target,
        problem=problem,
    )


def _opener(files: VaultFiles, source: KeyProvider, target: KeyProvider) -> KeyProvider:
    """The provider that opens the vault: the target where an earlier run was cut short."""
    data = files.read(files.current)
    if data is not None and claimed_provider(data, files.current) == target.name:
        return target
    return source

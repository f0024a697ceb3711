"""From the settings to the vault: which key provider, which directory, who may read."""

from collections.abc import Callable, Mapping
from typing import Final

from sesguard.config.schema import Settings, VaultSettings
from sesguard.errors import VaultError
from sesguard.system.privileges import find_user, is_root
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

_PROVIDERS: Final[Mapping[str, Callable[[VaultSettings], KeyProvider]]] = {
    KeyfileProvider.name: lambda settings: KeyfileProvider(settings.keyfile.path),
}


def make_provider(settings: VaultSettings) -> KeyProvider:
    """The key provider that the settings name; nothing is read yet."""
    return _PROVIDERS[settings.key_provider](settings)


def open_vault(settings: Settings) -> Vault:
    """
    The vault that the settings name; nothing is read yet.

    What root writes to it the daemon's group may read.
    """
    user = find_user(settings.daemon.user) if is_root() else None
    return Vault(
        settings.vault.directory,
        make_provider(settings.vault),
        reader_gid=user.gid if user else None,
    )


def init_vault(settings: Settings) -> Vault:
    """
    Make the vault, and its key where the key provider keeps one of its own and has none.

    Raises:
        VaultError: There is a vault already, or the key cannot be had.
        SystemFault: A file cannot be made.
    """
    vault = open_vault(settings)
    if vault.exists():
        # Looked at before the key: a new key beside an old vault would hide what is missing.
        raise VaultError(
            "there is a vault in {directory} already",
            hint="use it, or move the directory away",
            directory=vault.directory,
        )
    with vault.locked():
        vault.provider.ensure_key()
    vault.create()
    return vault

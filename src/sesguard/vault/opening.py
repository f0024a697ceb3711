"""From the settings to the vault: which key provider, which directory, who may read."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from sesguard.config.schema import Settings
from sesguard.errors import SettingsError, VaultError
from sesguard.system.privileges import find_user, is_root
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.providers.passphrase import PassphraseProvider
from sesguard.vault.providers.pkcs11 import Pkcs11Provider
from sesguard.vault.providers.systemd import SystemdProvider
from sesguard.vault.providers.unlocking import Ask, Unlocking, nobody
from sesguard.vault.vault import Vault

if TYPE_CHECKING:
    from sesguard.aws.session import AwsSession

T = TypeVar("T")


def _keyfile(settings: Settings, _ask: Ask) -> KeyProvider:
    return KeyfileProvider(settings.vault.keyfile.path)


def _passphrase(settings: Settings, ask: Ask) -> KeyProvider:
    own = settings.vault.passphrase
    unlocking = Unlocking("passphrase", own.passphrase_file, own.credential, ask)
    return PassphraseProvider(own.path, unlocking)


def _systemd(settings: Settings, _ask: Ask) -> KeyProvider:
    own = settings.vault.systemd
    return SystemdProvider(
        own.path,
        with_key=own.with_key,
        tpm2_device=own.tpm2_device,
        tpm2_pcrs=own.tpm2_pcrs,
    )


def _pkcs11(settings: Settings, ask: Ask) -> KeyProvider:
    own = settings.vault.pkcs11
    return Pkcs11Provider(
        own.path,
        module=_required(own.module, "vault.pkcs11.module", "pkcs11"),
        token_label=_required(own.token_label, "vault.pkcs11.token_label", "pkcs11"),
        key_label=own.key_label,
        pin=Unlocking("PIN", own.pin_file, own.pin_credential, ask),
    )


def _kms(settings: Settings, _ask: Ask) -> KeyProvider:
    # Imported where it is used, like all of AWS here: boto3 takes 15 MB and 0.1 s.
    from sesguard.vault.providers.kms import KmsProvider  # noqa: PLC0415

    own = settings.vault.kms
    key_id = _required(own.key_id, "vault.kms.key_id", "kms")
    region = _required(_region(own.region, key_id, settings), "vault.kms.region", "kms")
    return KmsProvider(own.path, key_id, _connect(settings, region))


def _secretsmanager(settings: Settings, _ask: Ask) -> KeyProvider:
    from sesguard.vault.providers.secretsmanager import SecretsManagerProvider  # noqa: PLC0415

    own = settings.vault.secretsmanager
    region = _required(
        _region(own.region, own.secret_id, settings),
        "vault.secretsmanager.region",
        "secretsmanager",
    )
    return SecretsManagerProvider(own.secret_id, _connect(settings, region))


_PROVIDERS: Final[Mapping[str, Callable[[Settings, Ask], KeyProvider]]] = {
    "keyfile": _keyfile,
    "kms": _kms,
    "passphrase": _passphrase,
    "pkcs11": _pkcs11,
    "secretsmanager": _secretsmanager,
    "systemd": _systemd,
}


def _region(own: str | None, name: str, settings: Settings) -> str | None:
    """The region of a key or secret: its own setting, that in its ARN, that of the table aws."""
    in_arn = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 5 else None
    return own or in_arn or settings.aws.region


def _connect(settings: Settings, region: str) -> "Callable[[], AwsSession]":
    from sesguard.aws.session import START, AwsSession  # noqa: PLC0415

    return lambda: AwsSession(region, settings.aws.profile, patience=START)


def _required(value: T | None, key: str, name: str) -> T:
    if value is None:
        raise SettingsError(
            "{key} is not set, and the key provider {name} needs it",
            hint="set it in the settings file, or choose another vault.key_provider",
            key=key,
            name=name,
        )
    return value


def make_provider(settings: Settings, name: str | None = None, ask: Ask = nobody) -> KeyProvider:
    """
    A key provider; nothing is read yet.

    Args:
        settings: Where its key is.
        name: Which one. Default: the one that the settings name.
        ask: Asks a person for its passphrase or PIN.

    Raises:
        SettingsError: Something that the provider needs is not set.
    """
    return _PROVIDERS[name or settings.vault.key_provider](settings, ask)


def open_vault(settings: Settings, ask: Ask = nobody) -> Vault:
    """
    The vault that the settings name; nothing is read yet.

    What root writes to it the daemon's group may read.

    Raises:
        SettingsError: Something that its key provider needs is not set.
    """
    user = find_user(settings.daemon.user) if is_root() else None
    return Vault(
        settings.vault.directory,
        make_provider(settings, ask=ask),
        reader_gid=user.gid if user else None,
    )


def init_vault(settings: Settings, ask: Ask = nobody) -> Vault:
    """
    Make the vault, and its key where the key provider keeps one of its own and has none.

    Raises:
        VaultError: There is a vault already, or the key cannot be had.
        SystemFault: A file cannot be made.
    """
    vault = open_vault(settings, ask)
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

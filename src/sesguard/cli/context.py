"""What every command is handed: settings, vault and output, each made when it is first used."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import click

from sesguard.aws.iam import IamKeys
from sesguard.aws.session import AwsSession
from sesguard.cli.i18n import _
from sesguard.cli.output import Output, is_interactive
from sesguard.config.load import load_settings, settings_path
from sesguard.config.schema import CredentialSettings, Settings
from sesguard.core.credential import Credential
from sesguard.core.secret import Secret
from sesguard.deploy.service import TargetService
from sesguard.errors import UsageError
from sesguard.respond.playbook import PanicService
from sesguard.rotation.service import RotationService
from sesguard.vault.opening import make_provider, open_vault
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.sealer import VaultSealer
from sesguard.vault.vault import Vault

_QUESTIONS: Final = {
    "passphrase": _("Passphrase of the vault key"),
    "PIN": _("PIN of the token with the vault key"),
}
_NEW_QUESTIONS: Final = {
    "passphrase": _("New passphrase of the vault key"),
    "PIN": _("New PIN of the token with the vault key"),
}


class App:
    """The state of one run of the command line; ``ctx.obj`` of click."""

    def __init__(self) -> None:
        self.config = settings_path(None)
        """The settings file, which need not exist."""
        self.debug = False
        """Whether an error is shown with its traceback."""
        self.output = Output()
        """Where everything is written."""

    def configure(self, *, config: Path | None, debug: bool, color: bool) -> None:
        """Take the global options over."""
        self.config = settings_path(config).absolute()
        self.debug = debug
        self.output = Output(color=color)

    @cached_property
    def settings(self) -> Settings:
        """
        The settings.

        Raises:
            SettingsError: No settings file, or a wrong one.
        """
        return load_settings(self.config)

    def vault(self) -> Vault:
        """
        The vault, the same each time: what opens its key is asked for once.

        Raises:
            SettingsError: As `settings`, or something that its key provider needs is not set.
        """
        return self._vault

    @cached_property
    def _vault(self) -> Vault:
        return open_vault(self.settings, self.ask)

    def key_provider(self, name: str) -> KeyProvider:
        """
        A key provider by its name; that of the vault where it is that one.

        Raises:
            SettingsError: As `settings`, or something that it needs is not set.
        """
        if name == self.settings.vault.key_provider:
            return self.vault().provider
        return make_provider(self.settings, name, self.ask)

    def ask(self, what: str, *, new: bool) -> Secret | None:
        """
        Ask for what opens the vault key; an `Ask` of `sesguard.vault.providers.unlocking`.

        Raises:
            UsageError: A new one was typed in two ways.
        """
        if not is_interactive():
            return None
        if not new:
            return self.output.ask_secret(_QUESTIONS[what])
        secret = self.output.ask_secret(_NEW_QUESTIONS[what])
        if secret != self.output.ask_secret(_("The same again")):
            raise UsageError("the two do not match", hint="run the command again")
        return secret

    def targets(self) -> TargetService:
        """
        What rewires the mail programs of this host.

        Raises:
            SettingsError: As `settings`.
        """
        vault = self.vault()

        def credentials() -> Mapping[str, Credential]:
            return vault.read().credentials

        return TargetService(self.settings, credentials, VaultSealer(vault.provider))

    def rotation(self) -> RotationService:
        """
        What rotates the credentials of this host.

        Raises:
            SettingsError: As `settings`.
        """
        vault = self.vault()
        return RotationService(
            self.settings,
            vault,
            VaultSealer(vault.provider),
            self.targets(),
            lambda name: IamKeys(self.aws(name)),
        )

    def panic(self) -> PanicService:
        """
        What responds to a leak.

        Raises:
            SettingsError: As `settings`.
        """
        vault = self.vault()
        return PanicService(
            self.settings, vault, VaultSealer(vault.provider), self.rotation(), self.aws
        )

    def aws(self, name: str) -> AwsSession:
        """
        The AWS account of a credential, in the region of its calls.

        Raises:
            AwsPermanent: There is no such profile.
        """
        aws, credential = self.settings.aws, self.settings.credentials[name]
        return AwsSession(aws.region or credential.regions[0], aws.profile)

    def credential_settings(self, name: str | None) -> tuple[str, CredentialSettings]:
        """
        The name and settings of a credential.

        Args:
            name: As the user gave it; None means the only one there is.

        Raises:
            UsageError: There is none of that name, or the choice is not clear.
        """
        known = self.settings.credentials
        if name is None and len(known) == 1:
            name = next(iter(known))
        if name is None:
            raise UsageError(
                "there are {count} credentials in {path}, so one must be named",
                hint="name one of: {names}" if known else "run: sesguard init --region REGION",
                count=len(known),
                path=self.config,
                names=", ".join(known),
            )
        if name not in known:
            raise UsageError(
                "there is no credential {name} in {path}",
                hint="name one of: {names}, or add [credentials.{name}] to that file",
                name=name,
                path=self.config,
                names=", ".join(known) or "-",
            )
        return name, known[name]


pass_app = click.make_pass_decorator(App)
"""Hands the `App` to a command as its first argument."""

"""
A whole mail host for tests: a private Exim in one of its layouts, settings, vault, sesguardd.

Everything is below one directory that Exim's user can enter; the sandbox is beside it.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rig.hosts import DAEMON_USER, put_current
from rigs.daemon import Daemon, running_daemon
from rigs.exim import RIGS, CpanelEximRig, DebianEximRig, EximRig
from sesguard.config.load import load_settings
from sesguard.config.schema import Settings
from sesguard.core.credential import Credential
from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.deploy.interface import TargetState
from sesguard.deploy.service import TargetService
from sesguard.sandbox.private_exim import Upstream
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import SeededKey
from sesguard.system.search import search_files
from sesguard.system.sockets import free_port
from sesguard.vault.opening import init_vault, make_provider, open_vault
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.engine import StepReport

DOMAIN = "example.com"
SENDER = f"shop@{DOMAIN}"


def ignore(_report: StepReport) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class MailHost:
    """One host; see the module docstring."""

    directory: Path
    sandbox: Sandbox
    key: SeededKey
    exim: EximRig
    password: Secret
    extra_files: list[Path] = field(default_factory=list)
    canary: bool = True

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    def settings(self) -> Settings:
        """The settings, read from their file."""
        return load_settings(self.settings_path)

    def write_settings(self) -> None:
        """Write the settings file for the present state of this object."""
        info, exim = self.sandbox.info, self.exim
        target = ""
        if isinstance(exim, DebianEximRig):
            target = f'debian_directory = "{exim.debian_directory}"\n'
        elif isinstance(exim, CpanelEximRig):
            target = f'cpanel_local_file = "{exim.local_file}"\n'
        if isinstance(exim, DebianEximRig | CpanelEximRig):
            command = ", ".join(f'"{word}"' for word in exim.rebuild_command)
            target += f"rebuild_command = [{command}]\n"
        extra = ", ".join(f'"{path}"' for path in self.extra_files)
        self.settings_path.write_text(
            f"""\
state_directory = "{self.directory}/state"

[credentials.ses]
regions = ["{info.region}"]
host = "{info.smtp_host}"
port = {info.starttls_port}
ca_file = "{info.ca_file}"
canary_sender = "postmaster@{DOMAIN}"

[vault]
directory = "{self.directory}/state/vault"

[vault.keyfile]
path = "{self.directory}/state/vault.key"

[daemon]
user = "{DAEMON_USER}"
runtime_directory = "{self.directory}/run"

[lookup.exim]
users = ["{exim.user.name}"]

[lookup.postfix]
enabled = false

[target.exim]
layout = "{exim.layout}"
binary = "{exim.binary}"
config_file = "{exim.config}"
pid_file = "{exim.pid_file}"
extra_files = [{extra}]
canary = {str(self.canary).lower()}
{target}"""
        )

    def import_credential(
        self, password: Secret | None = None, username: str | None = None
    ) -> None:
        """Put the host's credential (or another one) into the vault as CURRENT."""
        put_current(
            self.settings(),
            username or self.key.access_key_id,
            password or self.password,
            region=self.sandbox.info.region,
            exposed=True,
        )

    def service(self) -> TargetService:
        """The target service, as the commands make it."""
        settings = self.settings()
        vault = open_vault(settings)

        def credentials() -> Mapping[str, Credential]:
            return vault.read().credentials

        return TargetService(settings, credentials, VaultSealer(make_provider(settings)))

    def apply(self) -> bool:
        """``sesguard target apply exim``."""
        return self.service().apply("exim", ignore)

    def undo(self) -> bool:
        """``sesguard target undo exim``."""
        return self.service().undo("exim", ignore)

    def daemon(self) -> contextlib.AbstractContextManager[Daemon]:
        """Run sesguardd for the time of a block."""
        return running_daemon(self.settings_path)

    def delivered(self) -> list[str]:
        """Recipients that the sandbox has mail for, canaries left out."""
        return [
            recipient
            for mail in self.sandbox.client.inbox()
            for recipient in mail.recipients
            if not recipient.endswith("simulator.amazonses.com")
        ]

    def nothing_unauthenticated(self) -> bool:
        """Whether no client ever tried MAIL without AUTH or TLS, or AUTH in the clear."""
        return not any(
            connection.mail_without_auth
            or connection.mail_without_tls
            or connection.auth_without_tls
            for connection in self.sandbox.client.connections()
        )


def make_host(
    directory: Path,
    sandbox: Sandbox,
    key: SeededKey,
    *,
    layout: str = "monolithic",
    form: str = "login",
    canary: bool = True,
    extra_files: tuple[str, ...] = (),
) -> MailHost:
    """
    Make a host with the plaintext in its Exim and a vault that holds the same credential.

    Args:
        directory: Made; its parents must be open to Exim's user.
        sandbox: The upstream.
        key: The IAM key of the credential.
        layout: A key of `rigs.exim.RIGS`.
        form: A key of `sesguard.sandbox.private_exim.CLIENT_SEND`.
        canary: Whether `apply` sends a test mail.
        extra_files: Names of further files with a copy, below the directory.
    """
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    info = sandbox.info
    password = derive_smtp_password(key.secret_key, info.region)
    upstream = Upstream(
        info.smtp_host, info.starttls_port, info.ca_file, key.access_key_id, password
    )
    exim = RIGS[layout](directory / "exim", upstream, form)
    exim.prepare()
    host = MailHost(directory, sandbox, key, exim, password, canary=canary)
    for name in extra_files:
        path = directory / name
        path.write_text(f"MAIL_USERNAME={key.access_key_id}\nMAIL_PASSWORD={password.reveal()}\n")
        host.extra_files.append(path)
    for name in ("state", "run"):
        (directory / name).mkdir()
    host.write_settings()
    init_vault(host.settings())
    host.import_credential()
    return host


def set_mode(host: MailHost, mode: str, *, app: bool = True, lookup: bool = False) -> None:
    """
    Write the settings for one way of wiring Exim; the relay gets a port of its own, once.

    Args:
        host: Whose settings.
        mode: ``lookup`` or ``relay``.
        app: Whether Exim is an app of the relay.
        lookup: Whether the lookup answers also where Exim does not need it.
    """
    listen = next(
        (line for line in host.settings_path.read_text().splitlines() if "listen =" in line),
        f'listen = ["127.0.0.1:{free_port()}"]',
    )
    host.write_settings()
    is_enabled = str(lookup or mode == "lookup").lower()
    text = host.settings_path.read_text()
    text = text.replace("[target.exim]\n", f'[target.exim]\nmode = "{mode}"\n')
    text = text.replace("[lookup.exim]\n", f"[lookup.exim]\nenabled = {is_enabled}\n")
    text += f'\n[relay]\n{listen}\nspool_directory = "{host.directory}/spool"\n'
    if app:
        text += f'\n[apps.exim]\nusers = ["{host.exim.user.name}"]\n'
        text += 'senders = ["*@example.com"]\ndelivery = "pass"\n'
    host.settings_path.write_text(text)


BACKUPS = {"exim.conf.bak-2024": 0o644, "exim.conf~": 0o600}


def add_backups(host: MailHost) -> None:
    """Copies of the configuration as administrators and editors leave them."""
    for name, mode in BACKUPS.items():
        path = host.exim.config.with_name(name)
        path.write_bytes(host.exim.config.read_bytes() + host.exim.authenticator_text().encode())
        path.chmod(mode)


def copies(host: MailHost) -> list[str]:
    """Every file below the host's directory that holds the secret in any form."""
    needles = encoded_forms(host.password, host.key.access_key_id)
    return sorted({match.place for match in search_files([host.directory], needles)})


def state_of(host: MailHost) -> TargetState:
    """What ``target list`` says."""
    return host.service().targets()[0].state


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """
    A directory that other users can enter, for the time of a block.

    pytest's own temporary directories are private, and every new session of it makes them so again.
    """
    path = Path(tempfile.mkdtemp(prefix="sesguard-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)

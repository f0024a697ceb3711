"""
The mail host of the demo: with a real Exim, or, where that cannot be had, an application alone.

Both hold the credential in plaintext at first, in a backup and in an application's ``.env`` too.
"""

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

from sesguard.cli.i18n import _
from sesguard.config.load import load_settings
from sesguard.core.endpoints import Endpoint
from sesguard.deploy.known import KnownSecrets
from sesguard.deploy.steps import CheckNoPlaintext, ReplaceFile
from sesguard.sandbox.php_mail import php_available, send_by_php, send_by_python
from sesguard.sandbox.private_exim import PrivateExim, Upstream
from sesguard.system.files import ensure_directory, read_file, write_atomic
from sesguard.upstream.smtp import SmtpUpstream
from sesguard.vault.opening import make_provider, open_vault
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.engine import Engine
from sesguard.workflow.journal import Journal

RECIPIENTS = "example.net"
_DELIVERY_TIMEOUT_S = 60.0

FileFacts = tuple[bytes, int, int, int]
Sesguard = Callable[..., None]


class DemoHost(Protocol):
    """What the story does with a host."""

    plaintext_file: Path
    """The file that the credential is imported from."""

    def left_out(self) -> list[str]:
        """Parts of the host that this machine lacks, for people."""
        ...

    def describe(self) -> str:
        """Where the credential lies, for people."""
        ...

    def settings(self) -> str:
        """Tables for the settings file."""
        ...

    def states(self) -> dict[str, FileFacts]:
        """Bytes, owner and mode of every file that holds the credential."""
        ...

    def apply(self, sesguard: Sesguard) -> None:
        """Take the credential out of the host."""
        ...

    def undo(self, sesguard: Sesguard) -> None:
        """Put it back."""
        ...

    def mail_title(self, count: int) -> str:
        """Heading of the step in which mail is sent."""
        ...

    def send(self, count: int, *, sender: str) -> int:
        """Send mails and wait until they are delivered; how many were accepted."""
        ...

    def bounced(self) -> int:
        """How many were given up."""
        ...


class EximHost:
    """A real Exim, private to the demo."""

    def __init__(self, directory: Path, upstream: Upstream, stack: ExitStack) -> None:
        self._exim = PrivateExim(directory, upstream)
        self._exim.write()
        self.plaintext_file = self._exim.config
        self._dotenv = directory / ".env"
        self._files = (self._exim.config, directory / "exim.conf.bak-2024", self._dotenv)
        write_atomic(self._files[1], read_file(self._exim.config).content, mode=0o644)
        write_atomic(self._dotenv, _dotenv(upstream), mode=0o644)
        stack.enter_context(self._exim.running())

    def left_out(self) -> list[str]:
        """See `DemoHost.left_out`."""
        return [] if php_available() else [_("PHP and PHPMailer (Python sends the same mails)")]

    def describe(self) -> str:
        """See `DemoHost.describe`."""
        return _("plaintext in: {files}").format(files=", ".join(path.name for path in self._files))

    def settings(self) -> str:
        """See `DemoHost.settings`."""
        return f"""
[lookup.exim]
users = ["{self._exim.user.name}"]

[lookup.postfix]
enabled = false

[target.exim]
layout = "monolithic"
binary = "{self._exim.binary}"
config_file = "{self._exim.config}"
pid_file = "{self._exim.pid_file}"
extra_files = ["{self._dotenv}"]
"""

    def states(self) -> dict[str, FileFacts]:
        """See `DemoHost.states`."""
        return _facts(self._files)

    def apply(self, sesguard: Sesguard) -> None:
        """See `DemoHost.apply`."""
        sesguard("target", "plan", "exim")
        sesguard("target", "apply", "exim", "--yes")
        sesguard("target", "verify", "exim")

    def undo(self, sesguard: Sesguard) -> None:
        """See `DemoHost.undo`."""
        sesguard("target", "undo", "exim", "--yes")

    def mail_title(self, count: int) -> str:
        """See `DemoHost.mail_title`."""
        return _("PHPMailer sends {count} mails through Exim, which asks at each delivery").format(
            count=count
        )

    def send(self, count: int, *, sender: str) -> int:
        """See `DemoHost.send`."""
        if php_available():
            sent = send_by_php(
                self._exim.directory, self._exim.port, sender=sender, domain=RECIPIENTS, count=count
            )
        else:
            sent = send_by_python(self._exim.port, sender=sender, domain=RECIPIENTS, count=count)
        self._exim.wait_until_delivered(_DELIVERY_TIMEOUT_S)
        return sent

    def bounced(self) -> int:
        """See `DemoHost.bounced`."""
        return self._exim.bounced()


class PlainHost:
    """An application whose ``.env`` holds the credential; our own client sends its mail."""

    def __init__(self, directory: Path, upstream: Upstream, settings_file: Path) -> None:
        ensure_directory(directory, mode=0o755)
        self.plaintext_file = directory / ".env"
        self._upstream = upstream
        self._settings_file = settings_file
        write_atomic(self.plaintext_file, _dotenv(upstream), mode=0o644)

    def left_out(self) -> list[str]:
        """See `DemoHost.left_out`."""
        return []

    def describe(self) -> str:
        """See `DemoHost.describe`."""
        return _("plaintext in: {files}").format(files=self.plaintext_file.name)

    def settings(self) -> str:
        """See `DemoHost.settings`."""
        return f"""
[lookup.exim]
users = ["{os.geteuid()}"]

[lookup.postfix]
enabled = false
"""

    def states(self) -> dict[str, FileFacts]:
        """See `DemoHost.states`."""
        return _facts((self.plaintext_file,))

    def apply(self, sesguard: Sesguard) -> None:
        """See `DemoHost.apply`."""
        del sesguard
        state = read_file(self.plaintext_file)
        with closing(self._journal()) as journal:
            new = self._known().redacted(state.content)
            step = ReplaceFile.of(self.plaintext_file, state, new, "wipe")
            check = CheckNoPlaintext(places=(str(self.plaintext_file),))
            self._engine(journal).run("env", (step, check), "")

    def undo(self, sesguard: Sesguard) -> None:
        """See `DemoHost.undo`."""
        del sesguard
        with closing(self._journal()) as journal:
            engine = self._engine(journal)
            for run in engine.in_effect("env"):
                engine.undo(run)

    def mail_title(self, count: int) -> str:
        """See `DemoHost.mail_title`."""
        return _("Our own client sends {count} mails with the vault's credential").format(
            count=count
        )

    def send(self, count: int, *, sender: str) -> int:
        """See `DemoHost.send`."""
        settings = load_settings(self._settings_file)
        version = open_vault(settings).read().credentials["ses"].current()
        upstream = self._upstream
        sent = 0
        with SmtpUpstream(Endpoint(upstream.host, upstream.port), ca_file=upstream.ca_file) as smtp:
            smtp.login(version.username, version.password_for(upstream.host))
            for number in range(1, count + 1):
                recipient = f"customer{number}@{RECIPIENTS}"
                mail = f"From: {sender}\r\nTo: {recipient}\r\nSubject: Order {number}\r\n\r\nhi\r\n"
                smtp.send(sender, [recipient], mail.encode())
                sent += 1
        return sent

    def bounced(self) -> int:
        """See `DemoHost.bounced`."""
        return 0

    @property
    def needles(self) -> Callable[[], dict[str, bytes]]:
        """See `sesguard.deploy.steps.DeployContext`."""
        return self._known().needles

    @property
    def retired(self) -> Callable[[], list[bytes]]:
        """See `sesguard.deploy.steps.DeployContext`."""
        return self._known().retired

    def _known(self) -> KnownSecrets:
        return KnownSecrets(open_vault(load_settings(self._settings_file)).read().credentials)

    def _journal(self) -> Journal:
        settings = load_settings(self._settings_file)
        sealer = VaultSealer(make_provider(settings.vault))
        return Journal(settings.state_directory / "journal.db", sealer)

    def _engine(self, journal: Journal) -> Engine["PlainHost"]:
        return Engine("demo", journal, (ReplaceFile, CheckNoPlaintext), self)


def _dotenv(upstream: Upstream) -> bytes:
    return (
        "APP_NAME=Shop\n"
        f"MAIL_HOST={upstream.host}\n"
        f"MAIL_PORT={upstream.port}\n"
        f"MAIL_USERNAME={upstream.username}\n"
        f'MAIL_PASSWORD="{upstream.password.reveal()}"\n'
    ).encode()


def _facts(files: tuple[Path, ...]) -> dict[str, FileFacts]:
    facts = {}
    for path in files:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        facts[path.name] = (path.read_bytes(), status.st_uid, status.st_gid, mode)
    return facts

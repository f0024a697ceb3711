"""
The mail host of the demo where there is no Exim: an application, and our own client for its mail.

The application's ``.env`` holds the credential in plaintext at first; the client takes it from the
vault, and keeps a mail that cannot be sent now.
"""

import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sesguard.cli.demo_host import RECIPIENTS, FileFacts, Sesguard, dotenv, file_facts
from sesguard.cli.i18n import _
from sesguard.config.load import load_settings
from sesguard.core.endpoints import Endpoint
from sesguard.deploy.known import KnownSecrets
from sesguard.deploy.steps import CheckNoPlaintext, ReplaceFile
from sesguard.errors import CredentialError, SandboxError, TemporaryFailure
from sesguard.sandbox.mail_load import MailLoad, ThreadLoad
from sesguard.sandbox.private_exim import Upstream
from sesguard.system.files import ensure_directory, read_file, write_atomic
from sesguard.upstream.replies import Outcome
from sesguard.upstream.smtp import LoginRefused, SmtpUpstream
from sesguard.vault.opening import make_provider, open_vault
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.engine import Engine
from sesguard.workflow.journal import Journal

_DELIVERY_TIMEOUT_S: Final = 60.0
_PAUSE_S: Final = 0.1


class PlainHost:
    """An application whose ``.env`` holds the credential; our own client sends its mail."""

    def __init__(self, directory: Path, upstream: Upstream, settings_file: Path) -> None:
        ensure_directory(directory, mode=0o755)
        self.plaintext_file = directory / ".env"
        self._upstream = upstream
        self._settings_file = settings_file
        self._bounced = 0
        self._no_exim = directory / "no-exim.conf"
        write_atomic(self._no_exim, b"", mode=0o644)
        write_atomic(self.plaintext_file, dotenv(upstream), mode=0o644)

    def left_out(self) -> list[str]:
        """See `DemoHost.left_out`."""
        return [_("a mail queue (our own client keeps a mail and tries it again)")]

    def describe(self) -> str:
        """See `DemoHost.describe`."""
        return _("plaintext in: {files}").format(files=self.plaintext_file.name)

    def settings(self) -> str:
        """See `DemoHost.settings`; an Exim that this machine may have is none of the demo's."""
        return f"""
[lookup.exim]
users = ["{os.geteuid()}"]

[lookup.postfix]
enabled = false

[target.exim]
layout = "monolithic"
config_file = "{self._no_exim}"
"""

    def states(self) -> dict[str, FileFacts]:
        """See `DemoHost.states`."""
        return file_facts((self.plaintext_file,))

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

    def apply_again(self, sesguard: Sesguard) -> None:
        """See `DemoHost.apply_again`."""
        self.apply(sesguard)

    def mail_title(self, count: int) -> str:
        """See `DemoHost.mail_title`."""
        return _("Our own client sends {count} mails with the vault's credential").format(
            count=count
        )

    def send(self, count: int, *, sender: str) -> int:
        """See `DemoHost.send`."""
        return sum(self._deliver(number, sender) for number in range(1, count + 1))

    def start_load(self, first: int, *, sender: str) -> MailLoad:
        """See `DemoHost.start_load`."""
        return ThreadLoad(lambda number: self._deliver(number, sender), first=first)

    def wait_until_delivered(self) -> None:
        """Nothing to wait for: each mail is delivered before the next is sent."""

    def bounced(self) -> int:
        """See `DemoHost.bounced`."""
        return self._bounced

    def _deliver(self, number: int, sender: str) -> bool:
        """Try until SES takes the mail or refuses it for good, as a mail program does."""
        recipient = f"customer{number}@{RECIPIENTS}"
        mail = f"From: {sender}\r\nTo: {recipient}\r\nSubject: Order {number}\r\n\r\nhi\r\n"
        deadline = time.monotonic() + _DELIVERY_TIMEOUT_S
        while time.monotonic() < deadline:
            # No CURRENT version means that the mail is held.
            with suppress(CredentialError, LoginRefused, TemporaryFailure):
                outcome = self._try(sender, recipient, mail.encode())
                if not outcome.is_temporary:
                    self._bounced += outcome is not Outcome.ACCEPTED
                    return True
            time.sleep(_PAUSE_S)
        raise SandboxError("the mail to {recipient} could not be delivered", recipient=recipient)

    def _try(self, sender: str, recipient: str, mail: bytes) -> Outcome:
        settings = load_settings(self._settings_file)
        version = open_vault(settings).read().credentials["ses"].current()
        upstream = self._upstream
        with SmtpUpstream(Endpoint(upstream.host, upstream.port), ca_file=upstream.ca_file) as smtp:
            smtp.login(version.username, version.password_for(upstream.host))
            return smtp.send(sender, [recipient], mail).outcome

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
        sealer = VaultSealer(make_provider(settings))
        return Journal(settings.state_directory / "journal.db", sealer)

    def _engine(self, journal: Journal) -> Engine["PlainHost"]:
        return Engine("demo", journal, (ReplaceFile, CheckNoPlaintext), self)

"""
What ``sesguard demo`` tells, step by step.

Everything in it is real: the commands are the ones a user types, run as programs of their own; the
Exim, the PHP application and the TLS connection to the embedded SES are real. Only AWS is ours.
A part that this machine lacks (Exim, root, PHP) is named and replaced by our own client.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sesguard.cli.demo_host import DemoHost, EximHost, PlainHost
from sesguard.cli.i18n import _
from sesguard.cli.output import Output
from sesguard.core.encodings import encoded_forms
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import Error, SandboxError
from sesguard.sandbox.private_exim import Upstream, exim_available
from sesguard.sandbox.process import Sandbox, running_sandbox
from sesguard.sandbox.seed import seed_account
from sesguard.system.files import ensure_directory, read_file, write_atomic
from sesguard.system.privileges import find_user, is_root
from sesguard.system.processes import run_program, start_program, stop_process
from sesguard.system.search import Match, search_files, search_processes

DOMAIN: Final = "example.com"
_START_TIMEOUT_S: Final = 20.0
_PROGRAM: Final = (sys.executable, "-m", "sesguard")


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One step of the story."""

    name: str
    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageCount:
    """What became of the application's mails."""

    sent: int = 0
    delivered: int = 0
    duplicated: int = 0
    bounced: int = 0

    @property
    def lost(self) -> int:
        """Accepted by the host and neither delivered nor bounced."""
        return self.sent - self.delivered - self.bounced


@dataclass(slots=True)
class DemoReport:
    """How the story went."""

    steps: list[StepOutcome] = field(default_factory=list)
    messages: MessageCount = field(default_factory=MessageCount)
    copies_before: int = 0
    copies_after: int = 0
    undo_identical: bool = False
    left_out: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        count = self.messages
        return (
            all(step.ok for step in self.steps)
            and count.sent == count.delivered
            and not (count.duplicated or count.bounced or self.copies_after)
            and self.copies_before > 0
            and self.undo_identical
        )


class Story:
    """
    Tells the story in a directory of its own.

    Args:
        directory: Empty, and removed by the caller afterwards.
        output: Where it is told.
        quiet: Tell nothing.
        mails: How many mails the application sends.
    """

    def __init__(self, directory: Path, output: Output, *, quiet: bool, mails: int) -> None:
        self._directory = directory
        self._output = output
        self._quiet = quiet
        self._mails = mails
        self._report = DemoReport()
        self._settings = directory / "sesguard.toml"
        self._stack = ExitStack()

    def tell(self) -> DemoReport:
        """
        Go through all steps; a step that fails ends the story.

        Raises:
            Error: What went wrong, when the story is told to people.
        """
        with self._stack:
            try:
                self._tell()
            except Error:
                if not self._quiet:
                    raise
        return self._report

    def _tell(self) -> None:
        sandbox, upstream = self._start_sandbox()
        with self._step("plant", _("A mail host with its SES credential in plaintext")):
            host = self._host(upstream)
            before = host.states()
            self._report.copies_before = self._count_copies(upstream)
            self._say(host.describe())
        with self._step("init", _("A vault is made")):
            self._write_settings(sandbox, host)
            self._sesguard("init")
        with self._step("import", _("The credential goes into the vault")):
            self._sesguard("credential", "import", "--from", str(host.plaintext_file))
        with self._step("daemon", _("sesguardd starts: it alone will know the credential")):
            self._start_daemon()
        with self._step("apply", _("The host is rewired: checked, journaled, tried with a mail")):
            host.apply(self._sesguard)
        with self._step("mail", host.mail_title(self._mails)):
            self._send(host, sandbox)
        with self._step("tripwire", _("Every file and process is searched for the secret")):
            self._report.copies_after = self._count_copies(upstream)
            self._say(
                _("{before} copies before, {after} copies now").format(
                    before=self._report.copies_before, after=self._report.copies_after
                )
            )
        with self._step("undo", _("One command puts everything back")):
            host.undo(self._sesguard)
            self._report.undo_identical = host.states() == before
            self._say(
                _("every file is as it was, to the byte")
                if self._report.undo_identical
                else _("the files differ from what they were")
            )

    def _start_sandbox(self) -> tuple[Sandbox, Upstream]:
        with self._step("sandbox", _("An embedded AWS and SES starts on this machine")):
            sandbox = self._stack.enter_context(running_sandbox(self._directory / "sandbox"))
            key = seed_account(sandbox, domain=DOMAIN)
            # Exim's user reads it, and the sandbox's own directory is private.
            ca_file = self._directory / "ca.pem"
            write_atomic(ca_file, read_file(sandbox.info.ca_file).content, mode=0o644)
            self._say(
                _("IAM user {user}, key {key}").format(user=key.user_name, key=key.access_key_id)
            )
        upstream = Upstream(
            sandbox.info.smtp_host,
            sandbox.info.starttls_port,
            ca_file,
            key.access_key_id,
            derive_smtp_password(key.secret_key, sandbox.info.region),
        )
        return sandbox, upstream

    def _host(self, upstream: Upstream) -> DemoHost:
        directory = self._directory / "host"
        if exim_available():
            host: DemoHost = EximHost(directory, upstream, self._stack)
        else:
            self._report.left_out.append(_("Exim (it is not installed, or we are not root)"))
            host = PlainHost(directory, upstream, self._settings)
        self._report.left_out += host.left_out()
        for name in self._report.left_out:
            self._say(_("left out: {name}").format(name=name))
        return host

    def _write_settings(self, sandbox: Sandbox, host: DemoHost) -> None:
        for name in ("state", "run"):
            ensure_directory(self._directory / name, mode=0o755)
        user = "nobody" if is_root() and find_user("nobody") else ""
        text = f"""\
state_directory = "{self._directory}/state"

[credentials.ses]
regions = ["{sandbox.info.region}"]
host = "{sandbox.info.smtp_host}"
port = {sandbox.info.starttls_port}
ca_file = "{self._directory}/ca.pem"
canary_sender = "postmaster@{DOMAIN}"

[vault]
directory = "{self._directory}/state/vault"

[vault.keyfile]
path = "{self._directory}/state/vault.key"

[daemon]
runtime_directory = "{self._directory}/run"
{f'user = "{user}"' if user else ""}
{host.settings()}"""
        write_atomic(self._settings, text.encode(), mode=0o644)

    def _start_daemon(self) -> None:
        log = self._stack.enter_context((self._directory / "sesguardd.log").open("wb"))
        daemon = start_program(
            (*_PROGRAM, "--config", self._settings, "daemon"),
            environment={},
            log=log,
            inherit_environment=True,
        )
        self._stack.callback(stop_process, daemon)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (self._directory / "run" / "control.sock").exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                reason = (self._directory / "sesguardd.log").read_text(errors="replace")
                raise SandboxError("sesguardd did not start: {reason}", reason=reason[-500:])
            time.sleep(0.05)
        self._say("$ sesguard daemon &")

    def _send(self, host: DemoHost, sandbox: Sandbox) -> None:
        sandbox.client.clear_inbox()
        sent = host.send(self._mails, sender=f"shop@{DOMAIN}")
        arrived = Counter(
            recipient
            for mail in sandbox.client.inbox()
            for recipient in mail.recipients
            if recipient.startswith("customer")
        )
        count = MessageCount(
            sent=sent,
            delivered=len(arrived),
            duplicated=sum(arrived.values()) - len(arrived),
            bounced=host.bounced(),
        )
        self._report.messages = count
        self._say(
            _("{sent} sent, {delivered} delivered, {lost} lost, {bounced} bounced").format(
                sent=count.sent,
                delivered=count.delivered,
                lost=count.lost,
                bounced=count.bounced,
            )
        )

    def _count_copies(self, upstream: Upstream) -> int:
        """How many files and processes hold the secret in any form; the sandbox is left out."""
        needles = encoded_forms(upstream.password, upstream.username)
        places = [path for path in self._directory.iterdir() if path.name != "sandbox"]
        matches: list[Match] = [*search_files(places, needles), *search_processes(needles)]
        return len({match.place for match in matches if match.form != "unreadable"})

    def _sesguard(self, *arguments: str) -> None:
        """Run one of our own commands as a user would, and show what it says."""
        self._say("$ sesguard " + " ".join(arguments))
        completed = run_program(
            (*_PROGRAM, "--config", self._settings, *arguments),
            timeout_s=300,
            environment=_language(),
        )
        for line in (completed.output + completed.errors).splitlines():
            self._say("  " + line)
        if not completed.ok:
            raise SandboxError(
                "sesguard {command} failed: {reason}",
                command=arguments[0],
                reason=completed.errors.strip()[-500:],
            )

    @contextmanager
    def _step(self, name: str, title: str) -> Iterator[None]:
        started = time.monotonic()
        if not self._quiet:
            self._output.heading(f"{len(self._report.steps) + 1}  {title}")
        ok = False
        try:
            yield
            ok = True
        finally:
            self._report.steps.append(StepOutcome(name, ok, time.monotonic() - started))

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._output.story(text.replace(str(self._directory), "DEMO"))


def _language() -> dict[str, str]:
    """The user's language for the commands of the story, which otherwise run in the C locale."""
    names = ("LC_ALL", "LC_MESSAGES", "LANGUAGE", "LANG")
    return {name: os.environ.get(name, "") for name in names}

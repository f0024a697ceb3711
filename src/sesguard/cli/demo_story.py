"""
What ``sesguard demo`` tells, step by step, up to undo.

`sesguard.cli.demo_leak` goes on, and `sesguard.cli.demo_relay` ends it.

Everything in it is real: the commands are the ones a user types, run as programs of their own; the
Exim, the PHP application and the TLS connection to the embedded SES are real. Only AWS is ours.
A part that this machine lacks (Exim, root, PHP) is named and replaced by our own client.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sesguard.cli.demo_host import DemoHost, EximHost, count_messages
from sesguard.cli.demo_key import DemoKey, prepare_key
from sesguard.cli.demo_leak import LeakStory
from sesguard.cli.demo_plain_host import PlainHost
from sesguard.cli.demo_relay import RelayStory, make_sites, relay_settings
from sesguard.cli.demo_report import DemoReport
from sesguard.cli.demo_stage import Stage
from sesguard.cli.i18n import _
from sesguard.cli.output import Output
from sesguard.core.encodings import encoded_forms
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import Error
from sesguard.sandbox.private_exim import Upstream, exim_available
from sesguard.sandbox.process import Sandbox, running_sandbox
from sesguard.sandbox.seed import seed_account
from sesguard.system.files import ensure_directory, read_file, write_atomic
from sesguard.system.privileges import find_user, is_root
from sesguard.system.search import Match, search_files, search_processes
from sesguard.system.sockets import free_port

DOMAIN: Final = "example.com"
_SENDER: Final = f"shop@{DOMAIN}"


class Story:
    """
    Tells the story in a directory of its own.

    Args:
        directory: Empty, and removed by the caller afterwards.
        output: Where it is told.
        quiet: Tell nothing.
        mails: How many mails the application sends.
        key_provider: Where the vault key lies.
    """

    def __init__(
        self, directory: Path, output: Output, *, quiet: bool, mails: int, key_provider: str
    ) -> None:
        self._directory = directory
        self._quiet = quiet
        self._mails = mails
        self._stage = Stage(directory, output, quiet=quiet)
        self._report = self._stage.report
        self._report.key_provider = key_provider
        self._stack = ExitStack()
        self._sites = make_sites(DOMAIN)
        self._relay_port = free_port()

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
        with self._stage.step("plant", _("A mail host with its SES credential in plaintext")):
            host = self._host(upstream)
            before = host.states()
            self._report.copies_before = self._count_copies(upstream)
            self._stage.say(host.describe())
        with self._stage.step("init", _("A vault is made")):
            key = prepare_key(self._report.key_provider, self._directory / "state", sandbox)
            self._stage.use_key_environment(key.environment)
            self._write_settings(sandbox, host, key)
            self._stage.sesguard("init")
        with self._stage.step("import", _("The credential goes into the vault")):
            self._stage.sesguard("credential", "import", "--from", str(host.plaintext_file))
        with self._stage.step("daemon", _("sesguardd starts: it alone will know the credential")):
            self._stage.start_daemon(self._stack)
        with self._stage.step(
            "apply", _("The host is rewired: checked, journaled, tried with a mail")
        ):
            host.apply(self._stage.sesguard)
        with self._stage.step("mail", host.mail_title(self._mails)):
            self._send(host, sandbox)
        with self._stage.step("tripwire", _("Every file and process is searched for the secret")):
            self._report.copies_after = self._count_copies(upstream)
            self._stage.say(
                _("{before} copies before, {after} copies now").format(
                    before=self._report.copies_before, after=self._report.copies_after
                )
            )
        with self._stage.step("undo", _("One command puts everything back")):
            host.undo(self._stage.sesguard)
            self._report.undo_identical = host.states() == before
            self._stage.say(
                _("every file is as it was, to the byte")
                if self._report.undo_identical
                else _("the files differ from what they were")
            )
        with self._stage.step("reapply", _("To go on, the credential is taken out again")):
            host.apply_again(self._stage.sesguard)
        LeakStory(self._stage, host, sandbox, _SENDER).tell()
        RelayStory(self._stage, sandbox, self._sites, self._relay_port).tell()

    def _start_sandbox(self) -> tuple[Sandbox, Upstream]:
        with self._stage.step("sandbox", _("An embedded AWS and SES starts on this machine")):
            sandbox = self._stack.enter_context(running_sandbox(self._directory / "sandbox"))
            self._stage.aws = sandbox.environment()
            key = seed_account(sandbox, domain=DOMAIN)
            # Exim's user reads it, and the sandbox's own directory is private.
            ca_file = self._directory / "ca.pem"
            write_atomic(ca_file, read_file(sandbox.info.ca_file).content, mode=0o644)
            self._stage.say(
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
            host = PlainHost(directory, upstream, self._stage.settings)
        self._report.left_out += host.left_out()
        for name in self._report.left_out:
            self._stage.say(_("left out: {name}").format(name=name))
        return host

    def _write_settings(self, sandbox: Sandbox, host: DemoHost, key: DemoKey) -> None:
        ensure_directory(self._directory / "run", mode=0o755)
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
key_provider = "{self._report.key_provider}"

{key.settings}
[daemon]
runtime_directory = "{self._directory}/run"
{f'user = "{user}"' if user else ""}
{host.settings()}
{relay_settings(self._sites, self._relay_port, self._directory)}"""
        write_atomic(self._stage.settings, text.encode(), mode=0o644)

    def _send(self, host: DemoHost, sandbox: Sandbox) -> None:
        sandbox.client.clear_inbox()
        sent = host.send(self._mails, sender=_SENDER)
        count = count_messages(sandbox.client, sent, host.bounced())
        self._report.messages = count
        self._stage.say(count.describe())

    def _count_copies(self, upstream: Upstream) -> int:
        """How many files and processes hold the secret in any form; the sandbox is left out."""
        needles = encoded_forms(upstream.password, upstream.username)
        places = [path for path in self._directory.iterdir() if path.name != "sandbox"]
        matches: list[Match] = [*search_files(places, needles), *search_processes(needles)]
        return len({match.place for match in matches if match.form != "unreadable"})

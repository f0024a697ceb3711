"""The steps that only Exim needs; see `sesguard.deploy.exim.deployer` for their order."""

import secrets
import smtplib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Literal

from sesguard.core.message import Message, message
from sesguard.core.secret import Secret
from sesguard.deploy.exim.program import EximProgram
from sesguard.errors import DeployError
from sesguard.system.files import ensure_directory, remove_tree, write_atomic
from sesguard.system.processes import run_program
from sesguard.workflow.step import Step

_GREETING_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class EximContext:
    """What Exim's steps work on."""

    program: EximProgram
    expected_answer: Callable[[str, str], Secret]
    """What sesguardd must answer for a credential and a host: from the vault, when it is asked."""
    needles: Callable[[], Mapping[str, bytes]]
    """See `sesguard.deploy.steps.DeployContext`."""
    retired: Callable[[], Sequence[bytes]]
    """See `sesguard.deploy.steps.DeployContext`."""
    scratch: Path
    """Directory of ours for a candidate configuration; made, and removed again, by the step."""
    pid_file: Path | None = None


class CheckLookup(Step[EximContext], frozen=True, kw_only=True, tag="check-lookup"):
    """Ask sesguardd as Exim will, before anything depends on it."""

    socket: str
    credential_id: str
    hosts: tuple[str, ...]
    """Upstream hosts that Exim delivers to."""
    sender: str
    """A sender that uses the credential."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "ask sesguardd for credential {credential} as Exim's user",
            credential=self.credential_id,
        )

    def act(self, context: EximContext) -> None:
        """Fail unless the answer is the vault's CURRENT version."""
        user = context.program.user()
        for host in self.hosts:
            answer = context.program.ask_lookup(Path(self.socket), host, self.sender, user)
            if answer != context.expected_answer(self.credential_id, host):
                raise DeployError(
                    "sesguardd does not answer user {user} for {host} on {socket}",
                    hint="start it (systemctl start sesguardd) and look at its log",
                    user=user.name,
                    host=host,
                    socket=self.socket,
                )


class CheckRelay(Step[EximContext], frozen=True, kw_only=True, tag="check-relay"):
    """See that our relay answers where Exim is to send to, before anything depends on it."""

    address: str
    port: int
    app: str
    """The app of the settings that Exim's deliveries are."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "see that the relay answers on {address} port {port}, where Exim is app {app}",
            address=self.address,
            port=self.port,
            app=self.app,
        )

    def act(self, context: EximContext) -> None:  # noqa: ARG002
        """Fail unless there is a greeting."""
        try:
            with smtplib.SMTP(self.address, self.port, "localhost", timeout=_GREETING_TIMEOUT_S):
                pass
        except (OSError, smtplib.SMTPException) as error:
            raise DeployError(
                "the relay does not answer on {address} port {port}",
                hint="start sesguardd (systemctl restart sesguardd) and look at its log",
                address=self.address,
                port=self.port,
            ) from error


class CheckCandidate(Step[EximContext], frozen=True, kw_only=True, tag="check-candidate"):
    """Let Exim judge the new configuration in a private directory."""

    files: dict[str, bytes]
    """Path to the new content of every file of the configuration that is in use."""
    main: str
    """The file that Exim would read, for a layout without a rebuild; empty otherwise."""
    transports: tuple[str, ...] = ()
    """Transports that deliver to SES."""
    rebuild: tuple[str, ...] = ()
    """Debian: the rebuild command; it is pointed at the private directory."""
    directory: str = ""
    """Debian: the directory that `files` are below."""
    relay: str = ""
    """Relay mode: the relay, as the option ``hosts`` names it."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("let Exim check the new configuration (-bV, -bt, -be)")

    def act(self, context: EximContext) -> None:
        """Fail with what Exim says."""
        private = context.scratch
        remove_tree(private)
        ensure_directory(private, mode=0o700)
        try:
            candidate = self._monolithic(private) if self.main else self._debian(private)
            context.program.check(candidate)
            context.program.check_effective(candidate, self.transports, self.relay)
        finally:
            remove_tree(private)

    def _monolithic(self, private: Path) -> Path:
        """Write the files under numbers; an ``.include`` of one of them is pointed at its copy."""
        copies = {path: private / f"candidate-{n}" for n, path in enumerate(self.files)}
        for path, content in self.files.items():
            text = content
            for original, copy in copies.items():
                text = text.replace(f" {original}\n".encode(), f" {copy}\n".encode())
            write_atomic(copies[path], text, mode=0o600)
        return copies[self.main]

    def _debian(self, private: Path) -> Path:
        for path, content in self.files.items():
            copy = private / Path(path).relative_to(self.directory)
            ensure_directory(copy.parent, mode=0o700)
            write_atomic(copy, content, mode=0o600)
        output = private / "candidate"
        completed = run_program(
            (self.rebuild[0], "--confdir", str(private), "--output", str(output))
        )
        if not completed.ok:
            raise DeployError(
                "{command} refuses the new configuration: {reason}",
                command=self.rebuild[0],
                reason=completed.errors.strip()[:300],
            )
        return output


class CheckInstalled(Step[EximContext], frozen=True, kw_only=True, tag="check-installed"):
    """Let Exim judge the configuration that it now reads."""

    config: str
    transports: tuple[str, ...] = ()
    """Transports that deliver to SES."""
    relay: str = ""
    """Relay mode: the relay, as the option ``hosts`` names it."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("let Exim check {path} as it is now", path=self.config)

    def act(self, context: EximContext) -> None:
        """Fail with what Exim says."""
        context.program.check(Path(self.config))
        context.program.check_effective(Path(self.config), self.transports, self.relay)


class ReloadExim(Step[EximContext], frozen=True, kw_only=True, tag="reload-exim"):
    """
    Make the daemon read its configuration.

    There are two of them in a plan: one after the files for going forward, and one before the
    files, which acts only in undo, where the order is reversed.
    """

    when: Literal["apply", "undo"]

    def title(self) -> Message:
        """See `Step.title`."""
        if self.when == "apply":
            return message("make Exim's daemon read its configuration")
        return message("be ready to make Exim's daemon read the old configuration, in undo")

    def capture(self, context: EximContext) -> bytes:
        """Whether a daemon runs at all."""
        return b"running" if context.program.daemon_pid(context.pid_file) else b""

    def act(self, context: EximContext) -> None:
        """Reload, and see that the daemon is still there."""
        if self.when == "apply":
            context.program.reload(context.pid_file)

    def undo(self, context: EximContext, checkpoint: bytes | None) -> None:
        """Reload once the files are back; a daemon that ran before must be there."""
        if self.when == "undo" and not context.program.reload(context.pid_file) and checkpoint:
            raise DeployError(
                "everything is put back, but Exim's daemon is not running any more",
                hint="start it (systemctl start exim4), then run the command again",
            )


class SendCanary(Step[EximContext], frozen=True, kw_only=True, tag="send-canary"):
    """Send one real mail through the new configuration."""

    sender: str
    recipient: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "send a test mail from {sender} to {recipient} through Exim",
            sender=self.sender,
            recipient=self.recipient,
        )

    def act(self, context: EximContext) -> None:
        """Fail unless SES accepts it."""
        token = secrets.token_hex(16)
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = self.recipient
        mail["Subject"] = "sesguard test mail"
        mail["X-Sesguard-Test"] = token
        mail.set_content("This mail shows that Exim sends with sesguard.\n")
        context.program.send_canary(self.sender, self.recipient, mail.as_bytes(), token)

"""
The Exim program: what it says of itself, its checks, a canary mail, its daemon.

Nothing here shows a secret: `exim -v` masks AUTH, and what `-be` answers stays in memory.

Raises `DeployError` when Exim does not answer as expected, `SystemFault` when it cannot be run.
"""

import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.secret import Secret
from sesguard.deploy.exim.relayed import relay_options
from sesguard.deploy.exim.rewire import AUTHENTICATOR, NOT_RELEASED, REQUIRED
from sesguard.errors import DeployError, SystemFault
from sesguard.system.files import find_program, read_if_exists
from sesguard.system.privileges import User, require_user
from sesguard.system.processes import (
    Completed,
    process_alive,
    run_program,
    signal_process,
    start_program,
)

_CANARY_TIMEOUT_S: Final = 180.0
_RELOAD_SETTLE_S: Final = 1.0
_DELIVERING: Final = re.compile(r"^delivering (\S+)", re.MULTILINE)
_BOUNCE: Final = re.compile(r"(\S+) <>[^\n]*\n\s+(\S+)")
"""A bounce in the listing of ``-bp``: message id and first recipient."""
_ACCEPTED: Final = re.compile(r"^\s*=> .*$", re.MULTILINE)
_REPLY: Final = re.compile(r'C="(?P<reply>[^"]*)"')


@dataclass(frozen=True, slots=True)
class EximProgram:
    """One Exim installation."""

    binary: Path
    config: Path | None = None
    """Configuration file to name with ``-C``; None where Exim's own is meant."""

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        config: Path | None = None,
        user: tuple[int, int] | None = None,
    ) -> Completed:
        """Run Exim with `config` or its own configuration."""
        chosen = config or self.config
        options = ("-C", str(chosen)) if chosen else ()
        return run_program(
            (self.binary, *options, *arguments), stdin=stdin, timeout_s=timeout_s, user=user
        )

    def run_queue(self) -> None:
        """Start a queue run that tries every message whose retry time lies ahead, and leave it."""
        options = ("-C", str(self.config)) if self.config else ()
        process = start_program((self.binary, *options, "-qf"), environment={})
        # It is not ours to wait for: without this, Popen complains when it is forgotten.
        process.returncode = 0

    def setting(self, name: str) -> str:
        """
        The value of a main option.

        Raises:
            DeployError: Exim does not tell.
        """
        completed = self.run("-bP", name)
        if not completed.ok:
            raise DeployError(
                "{binary} does not tell its {name}: {reason}",
                hint="run: {binary} -bV and correct what it reports",
                binary=self.binary,
                name=name,
                reason=_first_line(completed.errors or completed.output),
            )
        # The answer is `name = value`, or the bare value of a read-only item.
        return re.sub(rf"^{re.escape(name)} = ", "", completed.output.strip())

    def config_file(self) -> Path:
        """The configuration that is in use."""
        return self.config or Path(self.setting("configure_file"))

    def user(self) -> User:
        """The user that deliveries run as."""
        return require_user(self.setting("exim_user"))

    def check(self, config: Path) -> None:
        """
        Let Exim read a candidate, route an address with it and expand its client_send.

        ``-bV`` finds unknown options and drivers; ``-bt`` named lists and wiring; ``-be``
        unbalanced expansions, which the other two do not see.

        Raises:
            DeployError: With what Exim says.
        """
        for arguments in (("-bV",), ("-bt", "probe@example.net")):
            completed = self.run(*arguments, config=config)
            text = completed.errors + completed.output
            if "configuration error" in text or (arguments == ("-bV",) and not completed.ok):
                raise _rejected(config, text)
        listing = self.run("-bP", "authenticators", config=config).output
        for value in re.findall(r"^client_send = (.*)$", listing, re.MULTILINE):
            completed = self.run("-be", value, config=config)
            failed = re.search(r"^Failed: (.*)$", completed.output, re.MULTILINE)
            if failed and re.search(r"missing|unknown|unbalanced|syntax", failed[1]):
                raise _rejected(config, failed[1])

    def check_effective(self, config: Path, transports: Sequence[str], relay: str = "") -> None:
        """
        See that what Exim makes of a configuration, with its conditionals, is what was written.

        Args:
            config: The configuration.
            transports: Names of the transports that deliver to SES.
            relay: Relay mode: the relay, as the option ``hosts`` names it.

        Raises:
            DeployError: A requirement or the authenticator is not in effect, or the authenticator
                still is in relay mode.
        """
        required = relay_options(relay) if relay else REQUIRED
        problem = None
        for transport in transports:
            listing = self.run("-bP", "transport", transport, config=config).output.splitlines()
            for name, value in required.items():
                if (name if value == "true" else f"{name} = {value}") not in listing:
                    problem = f"{name} of transport {transport}"
        asks = NOT_RELEASED in self.run("-bP", "authenticators", config=config).output
        if asks == bool(relay):
            problem = f"the {'end' if relay else 'presence'} of authenticator {AUTHENTICATOR}"
        if problem is not None:
            raise DeployError(
                "{what} is not in effect in {config}",
                hint="look at the .ifdef lines around it",
                what=problem,
                config=config,
            )

    def ask_lookup(self, socket: Path, host: str, sender: str, user: User) -> Secret:
        """What the lookup answers when Exim asks as `user`: ``^USER^PASSWORD`` or an error text."""
        request = f"plainx {host}|127.0.0.1|check|check|{sender}\\n"
        expression = f"${{readsocket{{{socket}}}{{{request}}}{{5s}}}}"
        completed = self.run("-be", expression, config=Path("/dev/null"), user=(user.uid, user.gid))
        return Secret(completed.output.strip())

    def send_canary(self, sender: str, recipient: str, message: bytes, token: str) -> str:
        """
        Deliver one mail in the foreground.

        Args:
            sender: Envelope sender.
            recipient: The one recipient.
            message: Headers and body, with `token` in the headers.
            token: Tells a bounce of this mail from all others.

        Returns:
            The upstream's reply.

        Raises:
            DeployError: It was not delivered; it is taken out of the queue again.
        """
        completed = self.run(
            "-v", "-odf", "-oi", "-f", sender, recipient, stdin=message,
            timeout_s=_CANARY_TIMEOUT_S,
        )  # fmt: skip
        text = completed.errors + completed.output
        if "retry time not reached" in text:
            # An earlier refusal left a retry record; -M tries all the same, and clears it.
            for message_id in _DELIVERING.findall(text)[:1]:
                again = self.run("-v", "-M", message_id, timeout_s=_CANARY_TIMEOUT_S)
                text += again.errors + again.output
        accepted = _ACCEPTED.search(text)
        if completed.ok and accepted and "Completed" in text:
            reply = _REPLY.search(accepted[0])
            return reply["reply"] if reply else accepted[0].strip()
        self._forget(_DELIVERING.findall(text)[:1], sender, token)
        raise DeployError(
            "the test mail to {recipient} was not delivered: {reason}",
            hint="read Exim's main log; the sender {sender} must be verified in SES",
            recipient=recipient,
            sender=sender,
            reason=_delivery_problem(text),
        )

    def _forget(self, message_ids: list[str], sender: str, token: str) -> None:
        """Take an undelivered canary, or the bounce that Exim made of it, out of the queue."""
        listing = self.run("-bp").output
        for message_id, recipient in _BOUNCE.findall(listing):
            if recipient == sender and token in self.run("-Mvb", message_id).output:
                message_ids.append(message_id)
        for message_id in message_ids:
            self.run("-Mrm", message_id)

    def daemon_pid(self, pid_file: Path | None) -> int | None:
        """The pid of the running daemon, or None."""
        path = pid_file or Path(self.setting("pid_file_path"))
        state = read_if_exists(path, max_bytes=64)
        text = state.content.strip() if state else b""
        pid = int(text) if text.isdigit() else 0
        return pid if pid and process_alive(pid) and _is_exim(pid) else None

    def reload(self, pid_file: Path | None) -> bool:
        """
        Make the daemon read its configuration again.

        Returns:
            False when no daemon runs (deliveries read the file at their start anyway).

        Raises:
            DeployError: The daemon did not survive it.
        """
        pid = self.daemon_pid(pid_file)
        if pid is None:
            return False
        signal_process(pid, signal.SIGHUP)
        deadline = time.monotonic() + _RELOAD_SETTLE_S
        while time.monotonic() < deadline:
            if not process_alive(pid):
                raise DeployError(
                    "Exim's daemon (process {pid}) ended when told to read its configuration",
                    hint="start Exim again once the configuration is back",
                    pid=pid,
                )
            time.sleep(0.05)
        return True


def find_exim(binary: Path | None, config: Path | None) -> EximProgram | None:
    """The Exim of this host, or None."""
    found = binary or find_program("exim4", "exim")
    return None if found is None else EximProgram(found, config)


def _rejected(config: Path, text: str) -> DeployError:
    return DeployError(
        "Exim refuses the new configuration: {reason}",
        hint="correct the configuration by hand, or report this with the masked plan",
        config=config,
        reason=_configuration_error(text),
    )


def _configuration_error(text: str) -> str:
    """``in line N of FILE: what``, from the lines that Exim prints with time stamps."""
    match = re.search(r"configuration error(?P<where>[^\n]*):\s*(?P<what>[^\n]*)", text)
    return f"{match['what']}{match['where']}"[:300] if match else _first_line(text)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no output")[:300]


def _delivery_problem(text: str) -> str:
    for line in text.splitlines():
        if line.strip().startswith(("==", "**")):
            return line.strip()[:300]
    return _first_line(text)


def _is_exim(pid: int) -> bool:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError as error:
        raise SystemFault("cannot look at process {pid}", pid=pid) from error
    return name.startswith("exim")

"""
The stage of ``sesguard demo``: its steps, what it tells, and the commands that it runs.

The commands are programs of their own, started as a user starts them. Those that talk to AWS get
nothing of the user's environment but the language, so that no account but the sandbox's can be
meant.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sesguard.cli.demo_report import DemoReport, StepOutcome
from sesguard.cli.output import Output
from sesguard.errors import SandboxError
from sesguard.system.processes import run_program, start_program, stop_process

_START_TIMEOUT_S: Final = 20.0
_PROGRAM: Final = (sys.executable, "-m", "sesguard")


class Stage:
    """
    Where the story plays.

    Args:
        directory: Of the story; shown as DEMO.
        output: Where it is told.
        quiet: Tell nothing.
    """

    def __init__(self, directory: Path, output: Output, *, quiet: bool) -> None:
        self.directory = directory
        self.settings = directory / "sesguard.toml"
        self.report = DemoReport()
        self.aws: dict[str, str] = {}
        """The environment that leads AWS clients to the sandbox, once there is one."""
        self._key_environment: Mapping[str, str] = {}
        self._output = output
        self._quiet = quiet

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Announce a step, and note how it went."""
        started = time.monotonic()
        if not self._quiet:
            self._output.heading(f"{len(self.report.steps) + 1}  {title}")
        ok = False
        try:
            yield
            ok = True
        finally:
            self.report.steps.append(StepOutcome(name, ok, time.monotonic() - started))

    def say(self, text: str) -> None:
        """Tell a line."""
        if not self._quiet:
            self._output.story(text.replace(str(self.directory), "DEMO"))

    def use_key_environment(self, environment: Mapping[str, str]) -> None:
        """Take over what a process needs to reach the vault key: commands, daemon and ourselves."""
        self._key_environment = environment
        os.environ.update(environment)

    def sesguard(self, *arguments: str) -> None:
        """
        Run one of our own commands as a user would, and show what it says.

        Raises:
            SandboxError: It failed.
        """
        self.say("$ sesguard " + " ".join(arguments))
        completed = run_program(
            (*_PROGRAM, "--config", self.settings, *arguments),
            timeout_s=300,
            environment={**self.aws, **self._key_environment, **_language()},
        )
        # The progress is told on standard error, and the result comes after it.
        for line in (completed.errors + completed.output).splitlines():
            self.say("  " + line)
        if not completed.ok:
            raise SandboxError(
                "sesguard {command} failed: {reason}",
                command=arguments[0],
                reason=completed.errors.strip()[-500:],
            )

    def start_daemon(self, stack: ExitStack) -> None:
        """
        Start sesguardd, which `stack` stops.

        Raises:
            SandboxError: It did not come up.
        """
        path = self.directory / "sesguardd.log"
        log = stack.enter_context(path.open("wb"))
        daemon = start_program(
            (*_PROGRAM, "--config", self.settings, "daemon"),
            environment={},
            log=log,
            inherit_environment=True,
        )
        stack.callback(stop_process, daemon)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (self.directory / "run" / "control.sock").exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                reason = path.read_text(errors="replace")
                raise SandboxError("sesguardd did not start: {reason}", reason=reason[-500:])
            time.sleep(0.05)
        self.say("$ sesguard daemon &")


def _language() -> dict[str, str]:
    """The user's language for the commands of the story, which otherwise run in the C locale."""
    names = ("LC_ALL", "LC_MESSAGES", "LANGUAGE", "LANG")
    return {name: os.environ.get(name, "") for name in names}

"""
The targets of this host: list, plan, apply, verify, undo.

Puts together a deployer, the journal and the engine, under one lock per state directory. An
interrupted change is finished (forward or back, as it was going) before anything new is begun.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, Final

from sesguard.config.schema import Settings
from sesguard.core.interfaces import Sealer
from sesguard.deploy.exim.deployer import EximDeployer
from sesguard.deploy.interface import Check, CredentialReader, Deployer, Plan, Target, TargetState
from sesguard.errors import UsageError
from sesguard.system.files import ensure_directory
from sesguard.system.locks import exclusive_lock
from sesguard.workflow.engine import Engine, Listener
from sesguard.workflow.journal import Journal, Run, RunState, open_journal

WORKFLOW: Final = "target"
LOCK_FILE: Final = "target.lock"
"""In the state directory: held while a target is changed."""

DEPLOYERS: Final[dict[str, Callable[[Settings, CredentialReader], Deployer]]] = {
    EximDeployer.name: EximDeployer,
}
"""Every kind of target: add a new deployer here."""


class TargetService:
    """
    What the commands under ``sesguard target`` do.

    Args:
        settings: The settings file.
        credentials: Reads the vault.
        sealer: Seals what the journal keeps.
    """

    def __init__(self, settings: Settings, credentials: CredentialReader, sealer: Sealer) -> None:
        self._settings = settings
        self._credentials = credentials
        self._sealer = sealer

    def targets(self) -> list[Target]:
        """All targets, also those that are not installed."""
        return [self._deployer(name).find() for name in DEPLOYERS]

    def applied(self) -> list[str]:
        """Names of the targets that ask sesguard for the credential."""
        return [each.name for each in self.targets() if each.state is TargetState.APPLIED]

    def in_plaintext(self) -> list[str]:
        """Names of the targets that hold a credential themselves."""
        return [each.name for each in self.targets() if each.state is TargetState.PLAINTEXT]

    def plan(self, name: str) -> Plan:
        """
        What `apply` would do; changes nothing.

        Raises:
            DeployError: The target cannot be changed safely.
        """
        return self._deployer(name).plan()

    def verify(self, name: str) -> Sequence[Check]:
        """Look whether an applied target works."""
        return self._deployer(name).verify()

    def release(self, name: str) -> None:
        """Start delivering what a target has in its queue."""
        self._deployer(name).release()

    def apply(self, name: str, listener: Listener) -> bool:
        """
        Change a target, or finish a change that was interrupted.

        Returns:
            Whether there was anything to do.

        Raises:
            RolledBack: It failed and everything is as it was.
            Error: It failed and a person must act.
        """
        deployer = self._deployer(name)
        with self._locked(), closing(self._journal()) as journal:
            engine = self._engine(deployer, journal, listener)
            interrupted = engine.unfinished(name)
            if interrupted is not None:
                engine.finish(interrupted)
            plan = deployer.plan()
            if plan.steps:
                engine.run(name, plan.steps, _now())
            return bool(plan.steps) or interrupted is not None

    def undo(self, name: str, listener: Listener, *, force: bool = False) -> bool:
        """
        Put everything back that `apply` changed, newest change first.

        Returns:
            Whether there was anything to undo.

        Raises:
            Error: A later change would be lost, or something could not be put back.
        """
        with self._locked(), closing(self._journal()) as journal:
            engine = self._engine(self._deployer(name), journal, listener)
            interrupted = engine.unfinished(name)
            if interrupted is not None:
                engine.abandon(interrupted)
            runs = engine.in_effect(name)
            for run in runs:
                # Only now: what an older run left is as it was once the newer one is undone.
                if not force:
                    engine.check_undo(run)
                engine.undo(run)
            return bool(runs) or interrupted is not None

    def history(self, name: str) -> list[Run]:
        """All runs of a target, newest first."""
        with closing(self._journal()) as journal:
            return journal.runs(WORKFLOW, name)

    def interrupted(self, name: str) -> bool:
        """Whether a change of the target was begun and neither finished nor put back."""
        unfinished = {RunState.RUNNING, RunState.ROLLING_BACK, RunState.UNDOING}
        return any(run.state in unfinished for run in self.history(name))

    def _deployer(self, name: str) -> Deployer:
        make = DEPLOYERS.get(name)
        if make is None:
            raise UsageError(
                "there is no target {name}",
                hint="choose one of: {known}",
                name=name,
                known=", ".join(DEPLOYERS),
            )
        return make(self._settings, self._credentials)

    def _engine(self, deployer: Deployer, journal: Journal, listener: Listener) -> Engine[Any]:
        return Engine(WORKFLOW, journal, deployer.step_types, deployer.context(), listener)

    def _journal(self) -> Journal:
        return open_journal(self._settings.state_directory, self._sealer)

    def _locked(self) -> AbstractContextManager[None]:
        ensure_directory(self._settings.state_directory, mode=0o755)
        return exclusive_lock(self._settings.state_directory / LOCK_FILE)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

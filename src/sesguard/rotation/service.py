"""
Rotate, resume, retire: what ``sesguard rotate`` and ``credential issue`` do.

One process at a time rotates on a host: a lock in the state directory. A run that a crash
interrupted is brought to its end before anything new is begun, forward or back, as it was going.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from sesguard.aws.iam import IamKeys
from sesguard.config.schema import Settings
from sesguard.core.credential import StagingLabel
from sesguard.core.interfaces import Sealer
from sesguard.deploy.service import TargetService
from sesguard.errors import AwsError, CheckFailed, Error
from sesguard.rotation.context import Pace, RotationContext
from sesguard.rotation.plan import (
    RotationPlan,
    plan_first_key,
    plan_retirement,
    plan_rotation,
)
from sesguard.rotation.status import RotationStatus, describe_rotation
from sesguard.rotation.steps import STEP_TYPES, RotationAct
from sesguard.system.files import ensure_directory
from sesguard.system.locks import exclusive_lock
from sesguard.vault.vault import Vault
from sesguard.workflow.engine import Engine, Listener, OnFailure
from sesguard.workflow.journal import Journal, Run, open_journal

WORKFLOW: Final = "rotation"
RETIREMENT: Final = "retirement"
LOCK_FILE: Final = "rotation.lock"

Planner = Callable[[RotationContext], RotationPlan]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation came to."""

    number: int
    """The version that is CURRENT now."""
    username: str
    """Its access key id."""


class RotationService:
    """
    Rotates the credentials of one host.

    Args:
        settings: The settings file.
        vault: Where the versions are.
        sealer: Seals what the journal keeps.
        targets: The mail programs of the host.
        keys: IAM, for a credential's name: the account may differ by profile only.
        pace: Clock and waiting.
    """

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        sealer: Sealer,
        targets: TargetService,
        keys: Callable[[str], IamKeys],
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._sealer = sealer
        self._targets = targets
        self._keys = keys
        self._pace = pace or Pace()

    def context(self, name: str) -> RotationContext:
        """What the steps for a credential work on; also for `sesguard.respond`."""
        return RotationContext(
            credential_id=name,
            credential=self._settings.credentials[name],
            rotation=self._settings.rotation,
            vault=self._vault,
            keys=self._keys(name),
            targets=self._targets,
            control_socket=self._settings.daemon.runtime_directory / "control.sock",
            pace=self._pace,
        )

    def plan(self, name: str, *, send_mail: bool = False) -> RotationPlan:
        """
        What `rotate` would do; changes nothing.

        Raises:
            CheckFailed: It would be refused.
        """
        return plan_rotation(self.context(name), send_mail=send_mail)

    def effects(self, name: str, plan: RotationPlan) -> list[tuple[RotationAct, list[str]]]:
        """Each step of a plan with every AWS call and file change that it makes."""
        context = self.context(name)
        steps = (*plan.retirement, *plan.steps)
        return [(step, step.effects(context)) for step in steps]

    def rotate(self, name: str, listener: Listener, *, send_mail: bool = False) -> Rotated:
        """
        Give a credential a new key.

        Raises:
            LockBusyError: Another process rotates.
            CheckFailed: It cannot be rotated now, or it was and the old key is still in use.
            RolledBack: A step failed; the old version is CURRENT as before.
            Error: A step failed and could not be taken back: a person must act.
        """
        return self._run(name, lambda each: plan_rotation(each, send_mail=send_mail), listener)

    def issue(self, name: str, listener: Listener, *, send_mail: bool = False) -> Rotated:
        """Make the first key of a credential; raises as `rotate` does."""
        return self._run(name, lambda each: plan_first_key(each, send_mail=send_mail), listener)

    def resume(self, name: str, listener: Listener) -> bool:
        """
        Bring an interrupted run to its end.

        Returns:
            Whether there was one.

        Raises:
            As `rotate`.
        """
        with self._begun(name) as journal:
            context = self.context(name)
            resumed = self._finish(context, journal, listener)
            if resumed:
                _require_not_in_use(context)
            return resumed

    def retire(self, name: str, listener: Listener) -> bool:
        """
        Deactivate or delete the replaced keys whose time has come.

        Returns:
            Whether there was anything to do.

        Raises:
            CheckFailed: Somebody activated a replaced key again.
            Error: AWS or the vault refused; the next pass tries again.
        """
        with self._begun(name) as journal:
            context = self.context(name)
            self._finish(context, journal, listener)
            steps = plan_retirement(context)
            self._retire(context, journal, steps, listener)
            _require_not_in_use(context)
            return bool(steps)

    def status(self, name: str) -> RotationStatus:
        """
        How old a credential is and when it is due; asks nothing of AWS.

        Raises:
            VaultError: The vault does not open.
        """
        contents = self._vault.read_last_good()
        return describe_rotation(
            contents.credential(name),
            self._settings.rotation,
            self.history(name),
            seed=contents.vault_id,
            now=self._pace.now(),
        )

    def history(self, name: str) -> list[Run]:
        """All runs of a credential, newest first, the retirements too."""
        with self._journal() as journal:
            runs = [*journal.runs(WORKFLOW, name), *journal.runs(RETIREMENT, name)]
        return sorted(runs, key=lambda run: run.run_id, reverse=True)

    def _run(self, name: str, planner: Planner, listener: Listener) -> Rotated:
        with self._begun(name) as journal:
            context = self.context(name)
            self._refuse_unfinished(name, journal)
            plan = planner(context)
            if plan.retirement:
                self._retire(context, journal, plan.retirement, listener)
            engine = self._engine(context, journal, listener)
            engine.run(name, plan.steps, self._pace.timestamp())
            _require_not_in_use(context)
            version = self._vault.read().credentials[name].current()
            return Rotated(version.number, version.username)

    @staticmethod
    def _refuse_unfinished(name: str, journal: Journal) -> None:
        if _is_unfinished(name, journal):
            raise CheckFailed(
                "an earlier rotation of {name} was interrupted",
                hint="run: sesguard rotate --resume --credential {name}",
                name=name,
            )

    def _refuse_held(self, name: str) -> None:
        """Whatever a rotation would put back or make CURRENT belongs to a user whose key leaked."""
        if self._vault.read().credential(name).labelled(StagingLabel.HELD) is not None:
            raise CheckFailed(
                "the mail of credential {name} is held, because its key leaked",
                hint="run: sesguard panic --credential {name}",
                name=name,
            )

    def _finish(self, context: RotationContext, journal: Journal, listener: Listener) -> bool:
        found = False
        for engine in (
            self._engine(context, journal, listener),
            self._engine(context, journal, listener, RETIREMENT),
        ):
            run = engine.unfinished(context.credential_id)
            if run is not None:
                found = True
                engine.finish(run)
        return found

    def _retire(
        self,
        context: RotationContext,
        journal: Journal,
        steps: Sequence[RotationAct],
        listener: Listener,
    ) -> None:
        if steps:
            engine = self._engine(context, journal, listener, RETIREMENT)
            engine.run(context.credential_id, steps, self._pace.timestamp())
            _require_not_in_use(context)

    @staticmethod
    def _engine(
        context: RotationContext, journal: Journal, listener: Listener, workflow: str = WORKFLOW
    ) -> Engine[RotationContext]:
        policy = OnFailure.STOP if workflow == RETIREMENT else OnFailure.ROLL_BACK
        return Engine(workflow, journal, STEP_TYPES, context, listener, policy)

    @contextmanager
    def _begun(self, name: str) -> Iterator[Journal]:
        """Lock and journal; an error that leaves a run unfinished says how to finish it."""
        with self._locked(), self._journal() as journal:
            self._refuse_held(name)
            try:
                yield journal
            except Error as error:
                says_how = error.hint_template is not None and not isinstance(error, AwsError)
                if says_how or not _is_unfinished(name, journal):
                    raise
                raise Error(
                    "the rotation of {name} is interrupted: {reason}",
                    hint="mend that, then run: sesguard rotate --resume --credential {name}",
                    name=name,
                    reason=error,
                ) from error

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        with closing(open_journal(self._settings.state_directory, self._sealer)) as journal:
            yield journal

    @contextmanager
    def _locked(self) -> Iterator[None]:
        ensure_directory(self._settings.state_directory, mode=0o755)
        with exclusive_lock(self._settings.state_directory / LOCK_FILE):
            yield


def _is_unfinished(name: str, journal: Journal) -> bool:
    runs = (run for workflow in (WORKFLOW, RETIREMENT) for run in journal.runs(workflow, name))
    return any(not run.state.finished for run in runs)


def _require_not_in_use(context: RotationContext) -> None:
    """
    Tell when FINISH had to leave the old key active.

    Raises:
        CheckFailed: It did; the message says where the key was seen.
    """
    if context.sightings:
        raise CheckFailed(
            "the new key is in use, and the old one stays active, because {sighting}",
            hint="it is deactivated once nobody uses it: sesguard rotate --if-due does that",
            sighting=context.sightings[0],
        )

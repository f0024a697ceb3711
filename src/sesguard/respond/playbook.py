"""
``sesguard panic``: contain, recover, keep the evidence.

    containment   `sesguard.respond.containment`; planned from the vault and the settings alone, so
                  that its local steps do not wait for AWS
    recovery      `sesguard.respond.recovery`; only once the key was proved dead, and for each
                  credential whose mail is held
    evidence      `sesguard.respond.evidence`

Each run plans all of it anew from what the vault and AWS hold, so it may be repeated at any time:
what is done already is looked at again, and done again where it is not. The journal is the record
of what was tried, not what decides.

Promises: nothing that cuts the leak is ever taken back by a failure, or put off by one: without a
vault, a journal or disk space the key is still deactivated. The mail of the host is held from the
first step until SES has taken mail with the new key.

It may be run with the leaked key itself, or by its user. The leak is cut all the same, and first:
refusing would leave it open. What is left to do then needs another identity, and the error says so.
"""

import contextlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from sesguard.aws.cloudtrail import TrailEvents
from sesguard.aws.iam import IamKeys
from sesguard.aws.identity import caller_user
from sesguard.aws.ses import SesSending
from sesguard.aws.session import AwsSession
from sesguard.aws.users import IamUsers
from sesguard.config.schema import Settings
from sesguard.core.credential import CredentialVersion, StagingLabel
from sesguard.core.interfaces import Sealer
from sesguard.core.message import Message
from sesguard.errors import AwsDenied, AwsError, CheckFailed, Error, SystemFault, VaultError
from sesguard.respond import containment, evidence, recovery
from sesguard.respond.context import ResponseContext
from sesguard.respond.incident import (
    Incident,
    IncidentRecord,
    IncidentState,
    list_incidents,
    open_incident,
)
from sesguard.rotation.service import LOCK_FILE, RotationService
from sesguard.system.files import ensure_directory
from sesguard.system.locks import LockBusyError, exclusive_lock
from sesguard.vault.vault import Vault
from sesguard.workflow.engine import Engine, Listener, OnFailure
from sesguard.workflow.journal import Journal, open_journal
from sesguard.workflow.step import Step

CONTAINMENT: Final = "containment"
RECOVERY: Final = "recovery"
EVIDENCE: Final = "evidence"

_FIRST_WAIT_S: Final = 1.0
_LOCK_TIMEOUT_S: Final = 900.0
"""Longer than a rotation may take: its test, its mail and its drain."""
_GLOBAL_REGION: Final = "us-east-1"
_ISSUED: Final = "issued by panic"


@dataclass(frozen=True, slots=True)
class Response:
    """What panic came to."""

    incident: Incident
    recovered: bool
    """Whether mail that was held flows again, with a new key."""
    held: bool
    """Whether mail still waits."""
    problems: tuple[Error, ...]
    """Steps that failed although the leak is cut; a person must do them."""
    warnings: tuple[Message, ...]
    """What a person should know although nothing failed."""


@dataclass(frozen=True, slots=True)
class PanicOptions:
    """What the user asked for."""

    contain_only: bool = False
    pause_account: bool = False


class PanicService:
    """
    Responds to the leak of a credential of this host.

    Args:
        settings: The settings file.
        vault: Where the versions are.
        sealer: Seals what the journal keeps.
        rotation: Gives the context that rotation's steps need.
        session: The AWS account of a credential, by name.
    """

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        sealer: Sealer,
        rotation: RotationService,
        session: Callable[[str], AwsSession],
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._sealer = sealer
        self._rotation = rotation
        self._session = session

    def leaked_key(self, name: str, access_key_id: str | None) -> str:
        """
        Choose the key: the named one, that whose response is not at its end, or the one in use.

        Raises:
            CheckFailed: The key in use was issued by the last panic, so that it must be named.
            CredentialError: There is none in use.
            VaultError: The vault does not open, so that the key must be named.
        """
        if access_key_id is not None:
            return access_key_id
        stored = self._vault.read_last_good().credential(name)
        held = stored.labelled(StagingLabel.HELD)
        if held is not None:
            return held.username
        current = stored.current()
        if current.origin.startswith(_ISSUED):
            unfinished = self._unfinished(current)
            if unfinished is not None:
                return unfinished.access_key_id
            raise CheckFailed(
                "the key in use, {key}, was issued by panic at {at}: the leak of before is cut",
                hint="if {key} has leaked as well, name it: sesguard panic --key {key}",
                at=current.created_at,
                key=current.username,
            )
        return current.username

    def calls_with(self, name: str, access_key_id: str) -> bool:
        """Whether our own calls to AWS are signed with that key; asks nothing of AWS."""
        with contextlib.suppress(AwsError):
            return self._session(name).static_key == access_key_id
        return False

    def respond(
        self, name: str, access_key_id: str, listener: Listener, options: PanicOptions
    ) -> Response:
        """
        Cut the leak of a key, and recover from it unless only that was asked for.

        Raises:
            CheckFailed: Nobody knows such a key; nothing was done.
            UpstreamError: The key still works; the mail stays held.
            Error: It could not go on; run it again, as another identity where it says so.
        """
        with contextlib.ExitStack() as stack:
            context = self._context(stack, name, access_key_id)
            self._lock(stack, context)
            # Only now: somebody who held the lock may have written it.
            incident = self._incident(name, access_key_id, context.pace.timestamp())
            context = replace(context, incident=incident)
            problems = self._contain(context, listener, options)
            for problem in problems:
                self._require_not_cut_off(context, problem)
            waited = recovery.waiting(context)
            if not options.contain_only:
                self._recover(context, listener)
                self._keep_evidence(context, listener)
            held = bool(context.held())
            recovered = bool(waited) and not held
            return Response(incident, recovered, held, problems, tuple(context.warnings))

    def _contain(
        self, context: ResponseContext, listener: Listener, options: PanicOptions
    ) -> tuple[Error, ...]:
        """Run the containment; an error that the proof has made harmless is only reported."""
        containment.require_known(context)
        problems: tuple[Error, ...] = ()
        proved_before = context.forget_proof()
        try:
            steps = self._containment_steps(context, options)
            self._run(context, CONTAINMENT, containment.STEP_TYPES, steps, listener)
        except BaseException as error:
            if not isinstance(error, Error) or not context.was_proved():
                cut_at_once(context)
                context.incident.record.proved_at = proved_before
                raise
            problems = (error,)
        context.note("contained", state=IncidentState.CONTAINED)
        return problems

    def _containment_steps(
        self, context: ResponseContext, options: PanicOptions
    ) -> list[Step[ResponseContext]]:
        key, drain_s = context.access_key_id, self._settings.panic.drain_timeout_s
        try:
            names = context.senders()
        except (VaultError, SystemFault):
            names = []
        steps: list[Step[ResponseContext]] = []
        if names:
            steps += [containment.HoldMail(credential_id=name) for name in names]
            steps.append(containment.WaitForSessions(timeout_s=min(_FIRST_WAIT_S, drain_s)))
        steps.append(containment.CutKey(access_key_id=key))
        if names:
            ours = recovery.origin_of(context.incident.record)
            steps += [containment.DiscardRotations(credential_id=name, ours=ours) for name in names]
            steps.append(containment.WaitForSessions(timeout_s=drain_s))
        steps.append(containment.DenyUser())
        for name in names:
            steps += self._pauses(name, options)
        return [*steps, containment.ProveDead(access_key_id=key)]

    def _pauses(self, name: str, options: PanicOptions) -> list[Step[ResponseContext]]:
        credential = self._settings.credentials.get(name)
        if credential is None:
            return []
        steps: list[Step[ResponseContext]] = []
        for region in credential.regions:
            if credential.configuration_set is not None:
                set_name = credential.configuration_set
                steps.append(containment.PauseSet(region=region, name=set_name))
            if options.pause_account:
                steps.append(containment.PauseAccount(region=region))
        return steps

    def _recover(self, context: ResponseContext, listener: Listener) -> None:
        """Give each credential whose mail is held a new key, and release its mail."""
        for name in recovery.waiting(context):
            try:
                each = self._for_credential(context, name)
                steps = recovery.plan_recovery(each)
                self._run(each, RECOVERY, recovery.STEP_TYPES, steps, listener)
            except Error as error:
                self._require_not_cut_off(context, error)
                raise Error(
                    "the leak is cut, but the mail of {name} stays held: {reason}",
                    hint="mend that, then run: sesguard panic --key {key}",
                    name=name,
                    reason=error,
                    key=context.access_key_id,
                ) from error

    def _require_not_cut_off(self, context: ResponseContext, problem: Error) -> None:
        """
        Tell when AWS denied something because the containment struck its own caller.

        Raises:
            Error: It did; somebody else has to go on.
        """
        if isinstance(problem, AwsDenied) and self._acts_as_leaked_user(context):
            raise Error(
                "the leak is cut, and so is this command: it called AWS as the user of {key}",
                hint="go on as another identity: AWS_PROFILE=NAME sesguard panic --key {key}",
                key=context.access_key_id,
            ) from problem

    def _acts_as_leaked_user(self, context: ResponseContext) -> bool:
        """Asked last: a key that is cut does not even learn who it is."""
        name, user = context.credential_id, context.incident.record.user_name
        if self.calls_with(name, context.access_key_id):
            return True
        with contextlib.suppress(AwsError):
            return user is not None and user == caller_user(self._session(name))
        return False

    def _for_credential(self, context: ResponseContext, name: str) -> ResponseContext:
        if name not in self._settings.credentials:
            raise Error("there is no credential {name} in the settings", name=name)
        rotation = self._rotation.context(name)
        return replace(context, credential_id=name, credential=rotation.credential)

    def _keep_evidence(self, context: ResponseContext, listener: Listener) -> None:
        released = bool(context.incident.record.new_versions)
        state = IncidentState.RECOVERED if released else IncidentState.CONTAINED
        steps: list[Step[ResponseContext]] = [
            evidence.CollectEvidence(),
            evidence.CloseIncident(state=state),
        ]
        self._run(context, EVIDENCE, evidence.STEP_TYPES, steps, listener)

    @staticmethod
    def _run(
        context: ResponseContext,
        workflow: str,
        types: tuple[type[Step[Any]], ...],
        steps: list[Step[Any]],
        listener: Listener,
    ) -> None:
        """Carry a plan out; what an earlier run left unfinished is in it, or needed no more."""
        if context.journal is None:
            raise SystemFault(
                "the journal cannot be opened, so nothing but the containment is done",
                hint="mend the vault or free disk space, then run: sesguard panic --key {key}",
                key=context.access_key_id,
            )
        engine: Engine[ResponseContext] = Engine(
            workflow, context.journal, types, context, listener, OnFailure.STOP
        )
        subject = context.incident.record.id
        unfinished = engine.unfinished(subject)
        if unfinished is not None:
            engine.supersede(unfinished, "planned anew")
        engine.run(subject, steps, context.pace.timestamp())

    def _lock(self, stack: contextlib.ExitStack, context: ResponseContext) -> None:
        """
        Keep rotations and other responses away.

        One that is running is waited for, with the leaked key deactivated already. Nothing else is
        done until then: a rotation may be about to make a key of the same user CURRENT.
        """
        path = self._settings.state_directory / LOCK_FILE
        try:
            stack.enter_context(exclusive_lock(path))
        except LockBusyError:
            cut_at_once(context)
            stack.enter_context(exclusive_lock(path, timeout_s=_LOCK_TIMEOUT_S))
        except SystemFault:
            return

    def _context(
        self, stack: contextlib.ExitStack, name: str, access_key_id: str
    ) -> ResponseContext:
        session = self._session(name)
        rotation = self._rotation.context(name)
        regions = dict.fromkeys([_GLOBAL_REGION, *rotation.credential.regions])
        return ResponseContext(
            credential_id=name,
            credential=rotation.credential,
            rotation=rotation.rotation,
            vault=self._vault,
            keys=IamKeys(session),
            targets=rotation.targets,
            control_socket=rotation.control_socket,
            pace=rotation.pace,
            panic=self._settings.panic,
            incident=_in_memory(name, access_key_id, rotation.pace.timestamp()),
            users=IamUsers(session),
            sending=lambda region: SesSending(session.in_region(region)),
            trails=tuple(TrailEvents(session.in_region(region)) for region in regions),
            journal=self._journal(stack),
            holders={
                "lookup_users": {
                    "exim": list(self._settings.lookup.exim.users),
                    "postfix": list(self._settings.lookup.postfix.users),
                },
                "daemon_user": self._settings.daemon.user,
            },
        )

    def _journal(self, stack: contextlib.ExitStack) -> Journal | None:
        with contextlib.suppress(SystemFault):
            return stack.enter_context(
                closing(open_journal(self._settings.state_directory, self._sealer))
            )
        return None

    def _incident(self, name: str, access_key_id: str, now: str) -> Incident:
        """The incident of the key that is on record, or a new one."""
        state_directory = self._settings.state_directory
        for known in list_incidents(state_directory):
            if known.record.access_key_id == access_key_id:
                return known
        with contextlib.suppress(SystemFault):
            ensure_directory(state_directory, mode=0o755)
        return open_incident(state_directory, name, access_key_id, now)

    def _unfinished(self, issued: CredentialVersion) -> IncidentRecord | None:
        """The incident that a version was issued for, while its response is not at its end."""
        for known in list_incidents(self._settings.state_directory):
            if issued.origin == recovery.origin_of(known.record):
                return None if known.record.state is IncidentState.RECOVERED else known.record
        return None


def _in_memory(name: str, access_key_id: str, now: str) -> Incident:
    record = IncidentRecord(id="", credential=name, access_key_id=access_key_id, opened_at=now)
    return Incident(None, record)


def cut_at_once(context: ResponseContext) -> None:
    """
    Deactivate a key whatever state this host is in: no vault, journal or disk space is needed.

    Errors are noted where that is possible, and else ignored: the caller has one already.
    """
    try:
        containment.CutKey(access_key_id=context.access_key_id).act(context)
    except Error as error:
        context.note("could not deactivate the key", str(error))

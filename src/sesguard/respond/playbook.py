"""
``sesguard panic``: contain, recover, keep the evidence.

Three journaled runs, each taken up again where it stopped:

    containment   `sesguard.respond.containment`; planned from the vault and the settings alone, so
                  that its local steps do not wait for AWS
    recovery      `sesguard.respond.recovery`; only once the key was proved dead
    evidence      `sesguard.respond.evidence`

Promises: nothing that cuts the leak is ever taken back by a failure, or put off by one: without a
vault, a journal or disk space the key is still deactivated and its user denied. The mail of the
host is held from the first step until SES has taken a mail with the new key. A run that is repeated
changes nothing that is done already.
"""

import contextlib
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from sesguard.aws.cloudtrail import TrailEvents
from sesguard.aws.iam import IamKeys
from sesguard.aws.ses import SesSending
from sesguard.aws.session import AwsSession
from sesguard.aws.users import IamUsers
from sesguard.config.schema import Settings
from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.interfaces import Sealer
from sesguard.errors import CheckFailed, Error, SystemFault, VaultError
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
from sesguard.rotation.steps import CreateKey, RefreshTargets, SwitchCurrent, TestLogin
from sesguard.system.files import ensure_directory
from sesguard.system.locks import LockBusyError, exclusive_lock
from sesguard.vault.vault import Vault
from sesguard.workflow.engine import Engine, Listener, OnFailure
from sesguard.workflow.journal import Journal, open_journal
from sesguard.workflow.step import Step

CONTAINMENT: Final = "containment"
RECOVERY: Final = "recovery"
EVIDENCE: Final = "evidence"
WORKFLOWS: Final = (CONTAINMENT, RECOVERY, EVIDENCE)

_FIRST_WAIT_S: Final = 1.0
_LOCK_TIMEOUT_S: Final = 300.0
_GLOBAL_REGION: Final = "us-east-1"
_MAX_USER_NAME: Final = 64
_GENERATION: Final = re.compile(r"-r\d+$")


@dataclass(frozen=True, slots=True)
class Response:
    """What panic came to."""

    incident: Incident
    recovered: bool
    """Whether mail flows with a new key; else only the containment was asked for, or possible."""
    problems: tuple[Error, ...]
    """Steps that failed although the leak is cut; a person must do them."""


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
        Choose the key: the named one, that of an incident that is not over, or the one in use.

        Raises:
            CheckFailed: The key in use was issued by the last panic, so that it must be named.
            CredentialError: There is none in use.
        """
        if access_key_id is not None:
            return access_key_id
        last = next((i.record for i in self._incidents() if _held(i.record, name)), None)
        if last is not None and not self._is_over_now(last):
            return last.access_key_id
        current = self._stored(name).current()
        if last is not None and last.new_version == current.number:
            raise CheckFailed(
                "the leak of {old} was cut at {at}, and {key} was issued then",
                hint="if {key} has leaked as well, name it: sesguard panic --key {key}",
                old=last.access_key_id,
                at=last.opened_at,
                key=current.username,
            )
        return current.username

    def respond(
        self, name: str, access_key_id: str, listener: Listener, options: PanicOptions
    ) -> Response:
        """
        Cut the leak of a key, and recover from it unless only that was asked for.

        Raises:
            UpstreamError: The key still works; the mail stays held.
            Error: It could not go on; run it again.
        """
        with contextlib.ExitStack() as stack:
            context = self._context(stack, name, access_key_id)
            if self._is_over(context.journal, context.incident.record):
                return Response(context.incident, True, ())
            self._lock(stack, context)
            problems = self._contain(context, listener, options)
            if options.contain_only:
                return Response(context.incident, False, problems)
            recovered = self._recover(context, listener)
            self._keep_evidence(context, listener, recovered=recovered)
            return Response(context.incident, recovered, problems)

    def _contain(
        self, context: ResponseContext, listener: Listener, options: PanicOptions
    ) -> tuple[Error, ...]:
        """Run the containment; an error that the proof has made harmless is only reported."""
        if context.was_proved() and not _unfinished(
            context.journal, context.incident.record, CONTAINMENT
        ):
            return ()
        problems: tuple[Error, ...] = ()
        try:
            self._run(
                context,
                CONTAINMENT,
                containment.STEP_TYPES,
                lambda: self._containment_steps(context, options),
                listener,
            )
        except Error as error:
            problems = (error,)
            if not context.was_proved():
                cut_without_journal(context)
                raise
        if context.incident.record.state is IncidentState.OPEN:
            context.note("contained", state=IncidentState.CONTAINED)
        return problems

    def _containment_steps(
        self, context: ResponseContext, options: PanicOptions
    ) -> list[Step[ResponseContext]]:
        key, panic = context.access_key_id, self._settings.panic
        steps: list[Step[ResponseContext]] = []
        if self._may_be_ours(context):
            steps += [
                containment.HoldMail(),
                containment.WaitForSessions(timeout_s=min(_FIRST_WAIT_S, panic.drain_timeout_s)),
                containment.CutKey(access_key_id=key),
                containment.WaitForSessions(timeout_s=panic.drain_timeout_s),
            ]
        else:
            steps.append(containment.CutKey(access_key_id=key))
        steps.append(containment.DenyUser())
        if self._is_ours(context) and context.credential.configuration_set is not None:
            steps.append(containment.PauseSet(name=context.credential.configuration_set))
        if options.pause_account:
            steps.append(containment.PauseAccount(region=context.credential.regions[0]))
        return [*steps, containment.ProveDead(access_key_id=key)]

    def _recover(self, context: ResponseContext, listener: Listener) -> bool:
        """Give the host a new key, if the leaked one was its own."""
        if not context.holds_mail():
            return False
        record = context.incident.record
        if record.new_version is None or _unfinished(context.journal, record, RECOVERY):
            self._run(
                context,
                RECOVERY,
                recovery.STEP_TYPES,
                lambda: self._recovery_steps(context),
                listener,
            )
        return True

    def _recovery_steps(self, context: ResponseContext) -> list[Step[Any]]:
        stored = context.stored()
        user = context.leaked_user()
        number = stored.next_number
        new_user = _free_name(context.users, user, number)
        send_mail = context.credential.canary_sender is not None
        origin = f"issued by panic, incident {context.incident.record.id}"
        return [
            recovery.DiscardRotation(user_name=user),
            recovery.CloneUser(old=user, new=new_user),
            CreateKey(number=number, user_name=new_user, known=(), origin=origin),
            recovery.ResumeSending(),
            TestLogin(number=number, send_mail=send_mail),
            SwitchCurrent(number=number),
            RefreshTargets(number=number),
            recovery.ReleaseMail(number=number),
        ]

    def _keep_evidence(
        self, context: ResponseContext, listener: Listener, *, recovered: bool
    ) -> None:
        state = IncidentState.RECOVERED if recovered else IncidentState.CONTAINED
        steps = [evidence.CollectEvidence(), evidence.CloseIncident(state=state)]
        self._run(context, EVIDENCE, evidence.STEP_TYPES, lambda: steps, listener)

    @staticmethod
    def _run(
        context: ResponseContext,
        workflow: str,
        types: tuple[type[Step[ResponseContext]], ...],
        plan: Callable[[], list[Step[ResponseContext]]],
        listener: Listener,
    ) -> None:
        """Take an interrupted run of the same incident up again, or begin one."""
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
            engine.finish(unfinished)
        else:
            engine.run(subject, plan(), context.pace.timestamp())

    def _is_ours(self, context: ResponseContext) -> bool:
        """Whether the leaked key is the one that this host sends with, or did until now."""
        with contextlib.suppress(VaultError, SystemFault):
            version = context.leaked_version()
            current = context.stored().labelled(StagingLabel.CURRENT)
            is_in_use = version is not None and current in (None, version)
            return context.holds_mail() or is_in_use
        return context.holds_mail()

    def _may_be_ours(self, context: ResponseContext) -> bool:
        """As `_is_ours`; of a vault that does not open HoldMail finds out once it does."""
        try:
            context.stored()
        except (VaultError, SystemFault):
            return True
        return self._is_ours(context)

    def _lock(self, stack: contextlib.ExitStack, context: ResponseContext) -> None:
        """
        Keep rotations away.

        One that is running is waited for, with the leaked key deactivated already: it may be about
        to make a key CURRENT that the Deny would hit.
        """
        path = self._settings.state_directory / LOCK_FILE
        try:
            stack.enter_context(exclusive_lock(path))
        except LockBusyError:
            cut_without_journal(context)
            stack.enter_context(exclusive_lock(path, timeout_s=_LOCK_TIMEOUT_S))
        except SystemFault:
            return

    def _context(
        self, stack: contextlib.ExitStack, name: str, access_key_id: str
    ) -> ResponseContext:
        session = self._session(name)
        rotation = self._rotation.context(name)
        regions = dict.fromkeys([_GLOBAL_REGION, *self._settings.credentials[name].regions])
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
            incident=self._incident(name, access_key_id, rotation.pace.timestamp()),
            users=IamUsers(session),
            sending=SesSending(session.in_region(rotation.credential.regions[0])),
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
        """The incident of the key that is on record, or a new one; unsaved on a full disk."""
        state_directory = self._settings.state_directory
        for known in self._incidents():
            if known.record.access_key_id == access_key_id:
                return known
        try:
            ensure_directory(state_directory, mode=0o755)
            return open_incident(state_directory, name, access_key_id, now)
        except SystemFault:
            record = IncidentRecord(
                id="unsaved", credential=name, access_key_id=access_key_id, opened_at=now
            )
            return Incident(state_directory, record)

    def _incidents(self) -> list[Incident]:
        return list_incidents(self._settings.state_directory)

    def _is_over_now(self, record: IncidentRecord) -> bool:
        with contextlib.ExitStack() as stack:
            return self._is_over(self._journal(stack), record)

    @staticmethod
    def _is_over(journal: Journal | None, record: IncidentRecord) -> bool:
        return record.state is IncidentState.RECOVERED and not _unfinished(
            journal, record, *WORKFLOWS
        )

    def _stored(self, name: str) -> Credential:
        return self._vault.read_last_good().credentials.get(name, Credential(name))


def _unfinished(journal: Journal | None, record: IncidentRecord, *workflows: str) -> bool:
    """Whether one of those runs of the incident was begun and not brought to its end."""
    if journal is None:
        return False
    runs = [run for each in workflows for run in journal.runs(each, record.id)]
    return any(not run.state.finished for run in runs)


def _held(record: IncidentRecord, name: str) -> bool:
    """Whether an incident held the mail of this credential: only such a one goes on by itself."""
    return record.credential == name and record.held_version is not None


def _free_name(users: IamUsers, user: str, number: int) -> str:
    """A name that no IAM user has: a user that is there already may have keys of somebody."""
    stem = _GENERATION.sub("", user)
    while True:
        suffix = f"-r{number}"
        name = stem[: _MAX_USER_NAME - len(suffix)] + suffix
        if not users.user_exists(name):
            return name
        number += 1


def cut_without_journal(context: ResponseContext) -> None:
    """
    Cut a key whatever state this host is in: no vault, no journal and no disk space is needed.

    Errors are noted where that is possible, and else ignored: the caller has one already.
    """
    for step in (
        containment.CutKey(access_key_id=context.access_key_id),
        containment.DenyUser(),
    ):
        try:
            step.act(context)
        except Error as error:
            context.note("could not be done", f"{step.title()}: {error}")

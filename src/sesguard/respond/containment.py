"""
The steps that make a leaked key useless, and prove it.

    HoldMail          nothing is handed out: the MTA defers, and keeps the mail
    WaitForSessions   a moment for our own sessions, which SES may cut with the key
    CutKey            the key is deactivated: no new login
    DiscardRotations  what a rotation left unfinished is of the same user
    WaitForSessions   longer: from the next step on, SES answers 554, which an MTA bounces
    DenyUser          an explicit Deny on its user, which also ends the thief's open sessions
    PauseSet          its configuration set
    PauseAccount      when asked for
    ProveDead         SES refuses the key, three times in a row

None is ever taken back by a failure, and each may be done again. All but the last keep going: what
failed is told, and ProveDead says whether the rest was enough.
"""

import contextlib
from typing import Any, ClassVar, Final, Union

import msgspec

from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.message import Message, message
from sesguard.errors import (
    CheckFailed,
    Error,
    SystemFault,
    TemporaryFailure,
    UpstreamError,
    VaultError,
)
from sesguard.respond.context import ResponseContext
from sesguard.respond.incident import PausedSet
from sesguard.rotation.keys import delete_orphans, locate
from sesguard.rotation.login import probe_sender, send_test_mail
from sesguard.rotation.service import RETIREMENT
from sesguard.rotation.service import WORKFLOW as ROTATION
from sesguard.rotation.sessions import describe_sessions, sessions_to, wait_until_over
from sesguard.rotation.steps import STEP_TYPES as ROTATION_STEPS
from sesguard.rotation.steps import CreateKey, mark_deactivated
from sesguard.rotation.targets import served_version
from sesguard.upstream.replies import Outcome
from sesguard.upstream.smtp import LoginRefused
from sesguard.workflow.journal import EntryState, JournalEntry, RunState
from sesguard.workflow.step import Step

DENY_POLICY: Final = "sesguard-panic-deny"
REFUSALS: Final = 3

_DAEMON_TIMEOUT_S: Final = 2.0
_PROOF_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
_ROTATION_STEP: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(
    Union[ROTATION_STEPS]  # noqa: UP007
)


class ContainmentStep(Step[ResponseContext], frozen=True, kw_only=True):
    """What all have in common: each is tried, whatever became of the one before."""

    keeps_going: ClassVar[bool] = True


class HoldMail(ContainmentStep, frozen=True, kw_only=True, tag="hold-mail"):
    """Make CURRENT the HELD version, so that every lookup is refused and the mail is deferred."""

    credential_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "hold the mail of {name}: it is deferred, not bounced", name=self.credential_id
        )

    def is_done(self, context: ResponseContext) -> bool:
        """Whether it is held."""
        return self.credential_id in context.held()

    def act(self, context: ResponseContext) -> None:
        """One write of the vault; then the daemon has to have seen it."""
        context.vault.update(self.credential_id, Credential.hold)
        context.note("held the mail", self.credential_id)
        deadline = context.pace.monotonic() + _DAEMON_TIMEOUT_S
        while self._is_served(context):
            if context.pace.monotonic() >= deadline:
                raise SystemFault(
                    "sesguardd still hands {credential} out",
                    hint="stop it: systemctl stop sesguardd",
                    credential=self.credential_id,
                )
            context.pace.sleep(_POLL_S)

    def _is_served(self, context: ResponseContext) -> bool:
        """Whether the daemon hands it out; one that does not answer hands nothing out."""
        try:
            return served_version(context.control_socket, self.credential_id) is not None
        except SystemFault:
            return False


class WaitForSessions(ContainmentStep, frozen=True, kw_only=True, tag="wait-for-sessions"):
    """Give the SMTP sessions of this host time to end by themselves."""

    timeout_s: float

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "wait up to {seconds:g} s for this host's SMTP sessions to end", seconds=self.timeout_s
        )

    def act(self, context: ResponseContext) -> None:
        """What is left then is noted, and not waited for."""
        port = context.credential.port
        left = wait_until_over(sessions_to(port), port, self.timeout_s, context.pace)
        for session in describe_sessions(left):
            context.note("did not wait longer", str(session))


class CutKey(ContainmentStep, frozen=True, kw_only=True, tag="cut-key"):
    """Deactivate the leaked key."""

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("deactivate the leaked key {key}", key=self.access_key_id)

    def act(self, context: ResponseContext) -> None:
        """A key that is gone is as good as deactivated."""
        found = locate(context.keys, self.access_key_id)
        if found is None:
            context.note("the key is not there any more", self.access_key_id)
        else:
            context.leaked_user()
            context.keys.set_key_status(found[0], self.access_key_id, KeyStatus.INACTIVE)
            context.note("deactivated the key", self.access_key_id)
        self._mark(context)

    @staticmethod
    def _mark(context: ResponseContext) -> None:
        """For the retirement of later; a vault that cannot be written must not look like a leak."""
        with contextlib.suppress(VaultError, SystemFault):
            version = context.stored().of_key(context.access_key_id)
            if version is not None and version.deactivated_at is None:
                mark_deactivated(context, version.number, context.pace.timestamp())


class DiscardRotations(ContainmentStep, frozen=True, kw_only=True, tag="discard-rotations"):
    """Give up the rotations of a credential that were cut short, with their PENDING version."""

    credential_id: str
    ours: str
    """Origin of the PENDING version that an earlier try of this response made: it is kept."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("give up the rotations that were interrupted")

    def act(self, context: ResponseContext) -> None:
        """The key goes first, then the version, then the run."""
        stored = context.vault.read().credentials[self.credential_id]
        pending = stored.labelled(StagingLabel.PENDING)
        if pending is not None:
            found = locate(context.keys, pending.username)
            if pending.origin != self.ours or found is None or found[1] is KeyStatus.INACTIVE:
                if found is not None:
                    context.keys.ensure_key_deleted(found[0], pending.username)
                context.vault.update(
                    self.credential_id, lambda known: _without(known, pending.number)
                )
        assert context.journal is not None
        for workflow in (ROTATION, RETIREMENT):
            for run in context.journal.runs(workflow, self.credential_id):
                if not run.state.finished:
                    self._delete_orphans(context, context.journal.entries(run.run_id))
                    context.journal.set_run_state(run.run_id, RunState.SUPERSEDED, "panic")

    def _delete_orphans(self, context: ResponseContext, entries: list[JournalEntry]) -> None:
        """A key that was made and never stored would keep the user from being denied."""
        stored = context.vault.read().credentials[self.credential_id]
        for entry in entries:
            step = _ROTATION_STEP.decode(entry.step)
            if isinstance(step, CreateKey) and entry.state is not EntryState.PLANNED:
                known = {*step.known, *(version.username for version in stored.versions)}
                delete_orphans(context.keys, step.user_name, known)


class DenyUser(ContainmentStep, frozen=True, kw_only=True, tag="deny-user"):
    """
    Deny everything to the IAM user of the leaked key.

    Not while another key of that user is active: SES would answer 554 to whoever sends with it, and
    that mail would bounce. The leaked key is cut off by CutKey then; that a session which the thief
    holds open may go on is told.
    """

    def title(self) -> Message:
        """See `Step.title`."""
        return message("deny everything to the IAM user of the leaked key")

    def act(self, context: ResponseContext) -> None:
        """One policy; putting it again changes nothing."""
        if locate(context.keys, context.access_key_id) is None:
            return
        user = context.leaked_user()
        other = self._other_key(context, user)
        if other is not None:
            context.warnings.append(
                message(
                    "IAM user {user} is not denied, because its key {key} is active: a session "
                    "that the thief holds open may go on for a while",
                    user=user,
                    key=other,
                )
            )
            context.note("did not deny the user", f"{user} has another active key, {other}")
            return
        context.users.ensure_denied(user, DENY_POLICY)
        context.note("denied everything", user)

    @staticmethod
    def _other_key(context: ResponseContext, user: str) -> str | None:
        active = [
            key.access_key_id
            for key in context.keys.list_access_keys(user)
            if key.status is KeyStatus.ACTIVE and key.access_key_id != context.access_key_id
        ]
        return active[0] if active else None


class PauseSet(ContainmentStep, frozen=True, kw_only=True, tag="pause-set"):
    """Pause the configuration set of the credential in one region."""

    region: str
    name: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "pause the configuration set {name} in {region}", name=self.name, region=self.region
        )

    def act(self, context: ResponseContext) -> None:
        """One that was paused before is left alone, and is not resumed by us."""
        sending = context.sending(self.region)
        if sending.configuration_set_sending(self.name):
            # What we paused must be known even when the answer gets lost: else it stays paused.
            paused = [
                *context.incident.record.paused_configuration_sets,
                PausedSet(self.region, self.name),
            ]
            context.note_first(
                "pausing the configuration set", self.name, paused_configuration_sets=paused
            )
            sending.set_configuration_set_sending(self.name, False)


class PauseAccount(ContainmentStep, frozen=True, kw_only=True, tag="pause-account"):
    """Pause the whole account in one region."""

    region: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("pause all sending of the AWS account in {region}", region=self.region)

    def act(self, context: ResponseContext) -> None:
        """As PauseSet."""
        sending = context.sending(self.region)
        if sending.account_sending():
            paused = [*context.incident.record.paused_accounts, self.region]
            context.note_first("pausing the account", self.region, paused_accounts=paused)
            sending.set_account_sending(False)


class ProveDead(Step[ResponseContext], frozen=True, kw_only=True, tag="prove-dead"):
    """
    See SES refuse the leaked key three times in a row.

    A refused login counts. A refused mail counts only where we know why: our Deny, or our pause of
    the account. Anything else (a policy on the From address, a paused configuration set) does not
    stop a thief who sends differently.
    """

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("prove that SES refuses the leaked key, three times in a row")

    def act(self, context: ResponseContext) -> None:
        """Fail when it is not refused in time: then it is still alive."""
        with contextlib.suppress(VaultError, SystemFault):
            if context.leaked_version() is not None:
                self._ask_ses(context)
                self._noted(context)
                return
        self._ask_iam(context)
        self._noted(context)

    def _noted(self, context: ResponseContext) -> None:
        at = context.pace.timestamp()
        context.note("the key is dead", self.access_key_id, proved_at=at)

    def _ask_ses(self, context: ResponseContext) -> None:
        deadline = context.pace.monotonic() + context.panic.proof_timeout_s
        in_a_row = 0
        while in_a_row < REFUSALS:
            unknown = None
            try:
                refusal = self._refusal(context)
            except TemporaryFailure as error:
                refusal, unknown = None, error
            in_a_row = in_a_row + 1 if refusal else 0
            context.note("tried the leaked key", refusal or str(unknown or "it is not refused"))
            if refusal is None:
                if context.pace.monotonic() >= deadline:
                    raise _still_alive(self.access_key_id, unknown) from unknown
                context.pace.sleep(_POLL_S)

    @staticmethod
    def _refusal(context: ResponseContext) -> str | None:
        """What SES said when it refused, or None when the key may still be of use to a thief."""
        version = context.leaked_version()
        assert version is not None
        # Without the header of the set: a thief leaves it out.
        probe = msgspec.structs.replace(
            context.credential,
            configuration_set=None,
            canary_sender=probe_sender(context.credential) or "sesguard@example.com",
        )
        try:
            reply = send_test_mail(version, probe, timeout_s=_PROOF_TIMEOUT_S)
        except LoginRefused as error:
            return str(error)
        if reply.outcome is Outcome.DENIED:
            return (
                str(reply) if context.users.is_denied(context.leaked_user(), DENY_POLICY) else None
            )
        if reply.outcome is Outcome.PAUSED and context.incident.record.paused_accounts:
            return str(reply)
        return None

    def _ask_iam(self, context: ResponseContext) -> None:
        """The vault does not know the password, so nobody can try it: IAM has to do."""
        for _ in range(REFUSALS):
            found = locate(context.keys, self.access_key_id)
            if found is not None and found[1] is KeyStatus.ACTIVE:
                raise _still_alive(self.access_key_id, None)
            context.note("asked IAM for the key", found[1].value if found else "it is gone")


def require_known(context: ResponseContext) -> None:
    """
    Refuse a key that neither the vault nor AWS knows: a typing error must not be "proved dead".

    Raises:
        CheckFailed: It is unknown.
        AwsError: AWS cannot be asked.
    """
    with contextlib.suppress(VaultError, SystemFault):
        if context.leaked_version() is not None:
            return
    if locate(context.keys, context.access_key_id) is None:
        raise CheckFailed(
            "neither the vault nor AWS knows an access key {key}",
            hint="check the key id and the AWS account",
            key=context.access_key_id,
        )


def _still_alive(access_key_id: str, unknown: Error | None) -> UpstreamError:
    if unknown is not None:
        return UpstreamError(
            "it cannot be told whether the leaked key {key} is dead: {reason}",
            hint="the mail stays held; run again once SES answers: sesguard panic --key {key}",
            key=access_key_id,
            reason=unknown,
        )
    return UpstreamError(
        "the leaked key {key} still works; the mail of this host stays held",
        hint="deactivate {key} in the IAM console, then run: sesguard panic --key {key}",
        key=access_key_id,
    )


def _without(credential: Credential, number: int) -> Credential:
    return credential.drop(number) if credential.find(number) else credential


STEP_TYPES: Final[tuple[type[Step[ResponseContext]], ...]] = (
    HoldMail,
    WaitForSessions,
    CutKey,
    DiscardRotations,
    DenyUser,
    PauseSet,
    PauseAccount,
    ProveDead,
)
"""Every kind of step that a journal of containments may hold."""

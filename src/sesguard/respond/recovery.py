"""
The steps that give the host a new credential after a leak, and let its mail go.

    DiscardRotation  a rotation that was cut short is of the burned user: it is given up
    CloneUser        a new IAM user with the same rights, because the old one stays denied
    CreateKey        of `sesguard.rotation.steps`, for the new user
    ResumeSending    what the containment paused
    TestLogin        and a test mail: mail is released only when SES takes one
    SwitchCurrent, RefreshTargets
    ReleaseMail      every target delivers what it has kept

The Deny on the old user is never lifted: a session that the thief holds open would live again.
"""

from typing import Final

from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.message import Message, message
from sesguard.respond.containment import DENY_POLICY
from sesguard.respond.context import ResponseContext
from sesguard.rotation.service import RETIREMENT
from sesguard.rotation.service import WORKFLOW as ROTATION
from sesguard.rotation.steps import CreateKey, RefreshTargets, SwitchCurrent, TestLogin
from sesguard.workflow.journal import RunState
from sesguard.workflow.step import Step

_SUPERSEDED: Final = "given up for panic"


class DiscardRotation(Step[ResponseContext], frozen=True, kw_only=True, tag="discard-rotation"):
    """Give up a rotation of the same credential that was cut short, with its PENDING version."""

    user_name: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("give up the rotations that were interrupted")

    def act(self, context: ResponseContext) -> None:
        """The key goes first, then the version, then the run."""
        pending = context.stored().labelled(StagingLabel.PENDING)
        if pending is not None:
            context.keys.ensure_key_deleted(self.user_name, pending.username)
            context.vault.update(
                context.credential_id, lambda known: _without(known, pending.number)
            )
        assert context.journal is not None
        for workflow in (ROTATION, RETIREMENT):
            for run in context.journal.runs(workflow, context.credential_id):
                if not run.state.finished:
                    context.journal.set_run_state(run.run_id, RunState.ROLLED_BACK, _SUPERSEDED)


class CloneUser(Step[ResponseContext], frozen=True, kw_only=True, tag="clone-user"):
    """Make the new IAM user."""

    old: str
    new: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("make IAM user {new} with the rights of {old}", new=self.new, old=self.old)

    def act(self, context: ResponseContext) -> None:
        """May be called again."""
        context.users.ensure_user(self.new, like=self.old, skip_policies=(DENY_POLICY,))
        context.note("made the new IAM user", self.new, new_user_name=self.new)


class ResumeSending(Step[ResponseContext], frozen=True, kw_only=True, tag="resume-sending"):
    """Resume what this incident paused."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("resume what was paused")

    def act(self, context: ResponseContext) -> None:
        """What somebody else had paused before stays paused."""
        for name in context.incident.record.paused_configuration_sets:
            context.sending.set_configuration_set_sending(name, True)
            context.note("resumed the configuration set", name)
        if context.incident.record.paused_accounts:
            context.sending.set_account_sending(True)
            context.note("resumed the account")


class ReleaseMail(Step[ResponseContext], frozen=True, kw_only=True, tag="release-mail"):
    """Let every target deliver what it kept."""

    number: int

    def title(self) -> Message:
        """See `Step.title`."""
        return message("release the mail that was held")

    def act(self, context: ResponseContext) -> None:
        """Start the queue runs; they go on by themselves."""
        for name in context.targets.applied():
            context.targets.release(name)
        context.note("released the mail", f"version {self.number}", new_version=self.number)


STEP_TYPES: Final[tuple[type[Step[ResponseContext]], ...]] = (
    DiscardRotation,
    CloneUser,
    CreateKey,  # type: ignore[assignment]
    ResumeSending,
    TestLogin,
    SwitchCurrent,
    RefreshTargets,
    ReleaseMail,
)
"""Every kind of step that a journal of recoveries may hold."""


def _without(credential: Credential, number: int) -> Credential:
    return credential.drop(number) if credential.label_of(number) else credential

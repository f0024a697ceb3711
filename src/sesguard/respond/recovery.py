"""
The steps that give a credential a new key after a leak, and let its mail go.

    CloneUser        a new IAM user with the same rights, because the old one stays denied
    CreateKey        of `sesguard.rotation.steps`, for the new user
    ResumeSending    what the containment paused
    TestLogin        and test mails: mail is released only when SES takes some in a row
    SwitchCurrent, RefreshTargets
    ReleaseMail      every target delivers what it has kept

The plan is made anew by each run, from what the vault and AWS hold. The Deny on the old user is
never lifted: a session that the thief holds open would live again.
"""

import re
from typing import Any, Final

from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.message import Message, message
from sesguard.errors import Error
from sesguard.respond.containment import DENY_POLICY
from sesguard.respond.context import ResponseContext
from sesguard.respond.incident import IncidentRecord
from sesguard.rotation.keys import locate
from sesguard.rotation.login import SUCCESSES, probe_sender
from sesguard.rotation.steps import CreateKey, RefreshTargets, SwitchCurrent, TestLogin
from sesguard.workflow.step import Step

_MAX_USER_NAME: Final = 64
_GENERATION: Final = re.compile(r"-r\d+$")


class CloneUser(Step[ResponseContext], frozen=True, kw_only=True, tag="clone-user"):
    """Make the new IAM user."""

    old: str
    new: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("make IAM user {new} with the rights of {old}", new=self.new, old=self.old)

    def act(self, context: ResponseContext) -> None:
        """May be called again; the name is noted first, so that a further run takes the same."""
        new_users = {**context.incident.record.new_users, context.credential_id: self.new}
        context.note_first("making the new IAM user", self.new, new_users=new_users)
        context.users.ensure_user(self.new, like=self.old, skip_policies=(DENY_POLICY,))


class ResumeSending(Step[ResponseContext], frozen=True, kw_only=True, tag="resume-sending"):
    """Resume what this incident paused."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("resume what was paused")

    def act(self, context: ResponseContext) -> None:
        """What somebody else had paused before stays paused."""
        for paused in context.incident.record.paused_configuration_sets:
            context.sending(paused.region).set_configuration_set_sending(paused.name, True)
            context.note("resumed the configuration set", paused.name)
        for region in context.incident.record.paused_accounts:
            context.sending(region).set_account_sending(True)
            context.note("resumed the account", region)


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
        new_versions = {**context.incident.record.new_versions, context.credential_id: self.number}
        context.note("released the mail", f"version {self.number}", new_versions=new_versions)


STEP_TYPES: Final[tuple[type[Step[Any]], ...]] = (
    CloneUser,
    CreateKey,
    ResumeSending,
    TestLogin,
    SwitchCurrent,
    RefreshTargets,
    ReleaseMail,
)
"""Every kind of step that a journal of recoveries may hold."""


def origin_of(record: IncidentRecord) -> str:
    """What a version that the response to an incident makes says of itself."""
    return f"issued by panic, incident {record.id}"


def waiting(context: ResponseContext) -> list[str]:
    """
    The credentials whose mail waits: held, or not released yet although the new key is CURRENT.

    Raises:
        VaultError: The vault does not open.
    """
    switched = [
        name
        for name, credential in context.vault.read().credentials.items()
        if name not in context.incident.record.new_versions and _own_current(context, credential)
    ]
    return [*context.held(), *switched]


def plan_recovery(context: ResponseContext) -> list[Step[Any]]:
    """
    Plan what is left to do for the credential of `context`.

    Raises:
        CheckFailed: AWS does not know the leaked key, nor the settings its user.
        Error: No test mail can be sent, so that releasing the mail might bounce it.
        AwsError: IAM cannot be asked.
    """
    stored = context.stored()
    current = _own_current(context, stored)
    if current is not None:
        return [RefreshTargets(number=current.number), ReleaseMail(number=current.number)]
    if probe_sender(context.credential) is None:
        raise Error(
            "no test mail can be sent for {name}, so its mail is not released",
            hint="set credentials.{name}.canary_sender, then run: sesguard panic",
            name=context.credential_id,
        )
    pending = _own_pending(context, stored)
    number = pending[0].number if pending else stored.next_number
    steps: list[Step[Any]] = []
    if pending is None:
        old = context.leaked_user()
        known = context.incident.record.new_users.get(context.credential_id)
        new, ours = known or _free_name(context, old, number), origin_of(context.incident.record)
        steps = [
            CloneUser(old=old, new=new),
            CreateKey(number=number, user_name=new, known=(), origin=ours),
        ]
    return [
        *steps,
        ResumeSending(),
        TestLogin(number=number, send_mail=True, mails=SUCCESSES),
        SwitchCurrent(number=number),
        RefreshTargets(number=number),
        ReleaseMail(number=number),
    ]


def _own_current(context: ResponseContext, stored: Credential) -> CredentialVersion | None:
    """The version that this response made, once it is CURRENT."""
    current, ours = stored.labelled(StagingLabel.CURRENT), origin_of(context.incident.record)
    return current if current is not None and current.origin == ours else None


def _own_pending(
    context: ResponseContext, stored: Credential
) -> tuple[CredentialVersion, str] | None:
    """The version that an earlier try of this response made, and its user, if its key is alive."""
    pending = stored.labelled(StagingLabel.PENDING)
    if pending is None or pending.origin != origin_of(context.incident.record):
        return None
    found = locate(context.keys, pending.username)
    return (pending, found[0]) if found and found[1] is KeyStatus.ACTIVE else None


def _free_name(context: ResponseContext, user: str, number: int) -> str:
    """A name that no IAM user has: a user that is there already may have keys of somebody."""
    stem = _GENERATION.sub("", user)
    while True:
        suffix = f"-r{number}"
        name = stem[: _MAX_USER_NAME - len(suffix)] + suffix
        if not context.users.user_exists(name):
            return name
        number += 1

"""
The plan of a rotation: reads the vault, IAM and the targets, and changes nothing.

It refuses (`CheckFailed`, exit 1) rather than guess: while a target still holds the credential in
plaintext, since its mail would stop with the old key; and while a second key fills the slot that is
not in the vault, or is in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sesguard.aws.iam import AccessKey, KeyFacts, KeyStatus
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.errors import CheckFailed, UsageError
from sesguard.rotation.context import RotationContext
from sesguard.rotation.keys import (
    KEYS_OF_A_USER,
    find_facts,
    foreign_keys,
    no_slot,
    owner_of,
)
from sesguard.rotation.schedule import parse_time
from sesguard.rotation.steps import (
    CreateKey,
    DeactivateKey,
    DeleteKey,
    RefreshTargets,
    RotationAct,
    SwitchCurrent,
    TestLogin,
)
from sesguard.rotation.targets import last_grant


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is to be done; two runs, because a deleted key cannot be brought back."""

    retirement: Sequence[RotationAct]
    """First: frees the second slot."""
    steps: Sequence[RotationAct]
    """Then: the rotation itself."""


def plan_rotation(context: RotationContext, *, send_mail: bool = False) -> RotationPlan:
    """
    Plan the rotation of a credential that has a CURRENT version.

    Raises:
        CheckFailed: It cannot be rotated now.
        CredentialError: Nothing is CURRENT.
        AwsError: IAM cannot be asked.
    """
    credential = context.stored()
    old = credential.current()
    _require_no_plaintext(context)
    owner = owner_of(context.keys, old.username)
    user = owner or context.credential.iam_user
    if user is None:
        raise CheckFailed(
            "AWS knows no access key {key}",
            hint="check the AWS account, or set iam_user of the credential",
            key=old.username,
        )
    # What another user than before may send has to be tried.
    send_mail = send_mail or (owner is None and context.credential.canary_sender is not None)
    listed = context.keys.list_access_keys(user)
    pending = _usable_pending(credential, listed)
    retirement = _free_slot(credential, listed, user, old, pending)
    staying = {key.access_key_id for key in listed} - {
        step.access_key_id for step in retirement if isinstance(step, DeleteKey)
    }
    number = pending.number if pending else credential.next_number
    known = staying - ({pending.username} if pending else set())
    steps = [
        *_creation(number, user, known, "issued by rotate", send_mail=send_mail),
        DeactivateKey(number=old.number, access_key_id=old.username),
    ]
    return RotationPlan(retirement, steps)


def plan_first_key(context: RotationContext, *, send_mail: bool = False) -> RotationPlan:
    """
    Plan the first version of a credential, for ``credential issue``.

    Raises:
        CheckFailed: It has a version already, or the IAM user has two keys.
        UsageError: The settings do not say which IAM user.
        AwsError: IAM cannot be asked.
    """
    credential = context.stored()
    if credential.versions:
        raise CheckFailed(
            "credential {id} has a version already",
            hint="run: sesguard rotate --credential {id}",
            id=context.credential_id,
        )
    user = context.credential.iam_user
    if user is None:
        raise UsageError(
            "the settings do not say which IAM user the key is for",
            hint="set iam_user of the credential",
        )
    listed = context.keys.list_access_keys(user)
    if len(listed) >= KEYS_OF_A_USER:
        raise no_slot(user, listed[0])
    known = {key.access_key_id for key in listed}
    number = credential.next_number
    return RotationPlan((), _creation(number, user, known, "issued", send_mail=send_mail))


def plan_retirement(context: RotationContext) -> list[RotationAct]:
    """
    What is to be done about replaced versions now; empty when nothing is.

    A key that FINISH had to leave active is deactivated after a time of grace without a use; one
    that was deactivated so long ago is deleted.

    Raises:
        AwsError: IAM cannot be asked.
    """
    credential = context.stored()
    current = credential.labelled(StagingLabel.CURRENT)
    if current is not None and owner_of(context.keys, current.username) is None:
        raise CheckFailed(
            "AWS knows no access key {key}, which is in use",
            hint="check the AWS account and profile",
            key=current.username,
        )
    now, grace = context.pace.now(), timedelta(hours=context.rotation.grace_hours)
    steps: list[RotationAct] = []
    for version in _replaced(credential):
        if version.deactivated_at and now - parse_time(version.deactivated_at) < grace:
            continue
        facts = find_facts(context.keys, version.username)
        is_shared = current is not None and version.username == current.username
        if facts is None or is_shared or version.deactivated_at is not None:
            steps.append(DeleteKey(number=version.number, access_key_id=version.username))
        elif all(now - use >= grace for use in _uses(context, version, facts)):
            steps.append(DeactivateKey(number=version.number, access_key_id=version.username))
    return steps


def _creation(
    number: int, user: str, known: set[str], origin: str, *, send_mail: bool
) -> list[RotationAct]:
    return [
        CreateKey(number=number, user_name=user, known=tuple(sorted(known)), origin=origin),
        TestLogin(number=number, send_mail=send_mail),
        SwitchCurrent(number=number),
        RefreshTargets(number=number),
    ]


def _uses(context: RotationContext, version: CredentialVersion, facts: KeyFacts) -> list[datetime]:
    """When a key was seen in use last: by IAM, and by the daemon of this host."""
    by_iam = facts.last_use.at if facts.last_use else None
    by_daemon = last_grant(context, version.number)
    return [at for at in (by_iam, by_daemon) if at is not None]


def _require_no_plaintext(context: RotationContext) -> None:
    for name in context.targets.in_plaintext():
        raise CheckFailed(
            "target {target} still holds the credential in plaintext: its mail would stop",
            hint="run: sesguard target apply {target}",
            target=name,
        )


def _usable_pending(
    credential: Credential, listed: Sequence[AccessKey]
) -> CredentialVersion | None:
    """The PENDING version that an attempt left behind whose journal is gone, if its key lives."""
    pending = credential.labelled(StagingLabel.PENDING)
    active = {key.access_key_id for key in listed if key.status is KeyStatus.ACTIVE}
    return pending if pending is not None and pending.username in active else None


def _free_slot(
    credential: Credential,
    listed: Sequence[AccessKey],
    user: str,
    old: CredentialVersion,
    pending: CredentialVersion | None,
) -> list[RotationAct]:
    """Delete what is ours and idle; refuse while another key fills the slot."""
    staying = {old.username} | ({pending.username} if pending else set())
    status = {key.access_key_id: key.status for key in listed}
    steps: list[RotationAct] = []
    for version in credential.versions:
        dead = credential.label_of(version.number) is StagingLabel.PENDING
        if version.username in staying or (version.username not in status and not dead):
            continue
        if status.get(version.username) is KeyStatus.ACTIVE:
            raise CheckFailed(
                "the key {key} of version {number} is still active: it was seen in use",
                hint="it is deactivated once nobody uses it: sesguard rotate --if-due does that",
                key=version.username,
                number=version.number,
            )
        steps.append(DeleteKey(number=version.number, access_key_id=version.username))
    foreign = foreign_keys(listed, credential)
    if len(foreign) + len(staying) > KEYS_OF_A_USER - (1 if pending is None else 0):
        raise no_slot(user, foreign[0])
    return steps


def _replaced(credential: Credential) -> list[CredentialVersion]:
    """The versions that came before the CURRENT one; while nothing is CURRENT, none."""
    current = credential.labelled(StagingLabel.CURRENT)
    if current is None:
        return []
    return [version for version in credential.versions if version.number < current.number]

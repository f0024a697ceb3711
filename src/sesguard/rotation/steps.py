"""
The journaled steps of a rotation.

    CREATE   CreateKey        a second key, sealed as PENDING
    TEST     TestLogin        SES takes it, several times in a row
    DEPLOY   SwitchCurrent    PENDING becomes CURRENT, for the next message
             RefreshTargets   targets and daemon use it
    FINISH   DeactivateKey    the old key, once no session of before is left and nobody else uses it
    RETIRE   DeleteKey        the old key, in a run of its own, after the time of grace

Up to SwitchCurrent the old version is CURRENT and works; from then on the new one is, and the old
key stays active. So there is a working credential at every moment, forwards and backwards.
"""

from dataclasses import replace
from typing import ClassVar

from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.message import Message, message
from sesguard.core.rotation import RotationStep
from sesguard.core.smtp_password import derive_for_regions
from sesguard.errors import UpstreamError
from sesguard.rotation.context import RotationContext
from sesguard.rotation.keys import delete_orphans, locate, make_key
from sesguard.rotation.login import wait_until_sent, wait_until_valid
from sesguard.rotation.sessions import describe_sessions, sessions_to, wait_until_over
from sesguard.rotation.targets import last_grant, require_targets_use
from sesguard.workflow.step import Step

_SETTLE_S = 1.0
"""Between the two looks at when IAM saw the old key last."""


class RotationAct(Step[RotationContext], frozen=True, kw_only=True):
    """What all have in common."""

    part_of: ClassVar[RotationStep]

    number: int
    """Number of the credential version that it is about."""

    def effects(self, context: RotationContext) -> list[str]:  # noqa: ARG002
        """Every AWS call and every file that it changes, for ``--dry-run``."""
        return []


class CreateKey(RotationAct, frozen=True, kw_only=True, tag="create-key"):
    """Make the new key and seal it as PENDING; the secret key is dropped at once."""

    part_of = RotationStep.CREATE

    user_name: str
    known: tuple[str, ...]
    """Ids of the keys that the user had before."""
    origin: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("make a new access key for IAM user {user}", user=self.user_name)

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        return [
            f"iam:ListAccessKeys {self.user_name}",
            f"iam:CreateAccessKey {self.user_name}",
            "iam:GetAccessKeyLastUsed and iam:DeleteAccessKey for keys whose making was cut short",
            f"{context.vault.directory}/vault: version {self.number}, PENDING",
        ]

    def is_done(self, context: RotationContext) -> bool:
        """Whether the version is in the vault."""
        return context.stored().find(self.number) is not None

    def act(self, context: RotationContext) -> None:
        """Make it, and take it back when it cannot be kept."""
        made = make_key(context.keys, self.user_name, self._known(context), context.pace)
        version = CredentialVersion(
            number=self.number,
            username=made.access_key_id,
            passwords=derive_for_regions(made.secret_key, context.credential.regions),
            created_at=context.pace.timestamp(),
            origin=self.origin,
        )
        try:
            context.vault.update(context.credential_id, lambda known: known.add_pending(version))
        except BaseException:
            context.keys.ensure_key_deleted(self.user_name, made.access_key_id)
            raise

    def undo(self, context: RotationContext, checkpoint: bytes | None) -> None:  # noqa: ARG002
        """Delete the key at AWS first, then forget the version."""
        version = context.stored().find(self.number)
        if version is not None:
            context.keys.ensure_key_deleted(self.user_name, version.username)
        delete_orphans(context.keys, self.user_name, self._known(context))
        if version is not None:
            context.vault.update(context.credential_id, lambda known: known.drop(self.number))

    def _known(self, context: RotationContext) -> set[str]:
        """The keys that are no orphans: those of before, and every key in the vault."""
        credentials = context.vault.read().credentials.values()
        return {*self.known, *(v.username for each in credentials for v in each.versions)}


class TestLogin(RotationAct, frozen=True, kw_only=True, tag="test-login"):
    """Log in with the new version, and send a mail to the mailbox simulator when asked to."""

    part_of = RotationStep.TEST
    __test__: ClassVar[bool] = False

    send_mail: bool = False
    mails: int = 1
    """How many in a row, if any."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("wait until SES takes the new key three times in a row")

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        place = f"{context.credential.smtp_host}:{context.credential.port}"
        mail = [f"SMTP mail to {context.credential.canary_recipient}"] if self.send_mail else []
        return [f"SMTP AUTH at {place}", *mail]

    def act(self, context: RotationContext) -> None:
        """Fail when SES does not take it in time."""
        version = context.stored().version(self.number)
        timeout_s = context.rotation.test_timeout_s
        wait_until_valid(version, context.credential, timeout_s, context.pace)
        if self.send_mail:
            wait_until_sent(
                version, context.credential, timeout_s, context.pace, in_a_row=self.mails
            )


class SwitchCurrent(RotationAct, frozen=True, kw_only=True, tag="switch-current"):
    """Make the new version CURRENT."""

    part_of = RotationStep.DEPLOY

    def title(self) -> Message:
        """See `Step.title`."""
        return message("make version {number} CURRENT", number=self.number)

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        return [f"{context.vault.directory}/vault: version {self.number}, CURRENT"]

    def is_done(self, context: RotationContext) -> bool:
        """Whether it is CURRENT."""
        return context.stored().label_of(self.number) is StagingLabel.CURRENT

    def act(self, context: RotationContext) -> None:
        """One write of the vault, once more after a login: time may have passed since TEST."""
        require_login(context, self.number)
        context.vault.update(context.credential_id, lambda known: known.promote())
        # From here on nobody is given the old key, so what is open now is all that can use it.
        context.begun_before.append(sessions_to(context.credential.port))

    def undo(self, context: RotationContext, checkpoint: bytes | None) -> None:  # noqa: ARG002
        """Make the old version CURRENT again, and wait until no session uses the new one."""
        context.vault.update(context.credential_id, self._back)
        port = context.credential.port
        timeout_s = context.rotation.drain_timeout_s
        left = wait_until_over(sessions_to(port), port, timeout_s, context.pace)
        if left:
            raise UpstreamError(
                "mail flows with the old key again, but {session}",
                hint="wait for its end, then run: sesguard rotate --resume --credential {name}",
                session=describe_sessions(left)[0],
                name=context.credential_id,
            )

    def _back(self, credential: Credential) -> Credential:
        if credential.label_of(self.number) is not StagingLabel.CURRENT:
            return credential
        if StagingLabel.PREVIOUS in credential.labels:
            return credential.demote()
        return credential.withdraw()


class RefreshTargets(RotationAct, frozen=True, kw_only=True, tag="refresh-targets"):
    """
    Rewrite the targets that need a file, and check that all of them use the new version.

    There is nothing to undo: SwitchCurrent is undone after it, and who asks gets the old version.
    """

    part_of = RotationStep.DEPLOY

    def title(self) -> Message:
        """See `Step.title`."""
        return message("check that the daemon and every target use version {n}", n=self.number)

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        names = context.targets.applied()
        return [
            f"{context.control_socket}: status",
            *(f"target {name}: apply, verify" for name in names),
        ]

    def act(self, context: RotationContext) -> None:
        """Fail when one does not."""
        require_targets_use(context, self.number)


class DeactivateKey(RotationAct, frozen=True, kw_only=True, tag="deactivate-key"):
    """
    Deactivate the old key.

    Sessions that began before are waited for. When one outlives the time-out, or the key is used by
    somebody else, it stays active and the sighting goes to the context: nothing failed then, and a
    later pass tries again. The CURRENT version has to log in before the old key is touched. The new
    version is in use by then, so a failure takes nothing back: `resume` tries again.
    """

    part_of = RotationStep.FINISH
    rolls_back = False

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("deactivate the old key {key}", key=self.access_key_id)

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        return [
            f"iam:GetAccessKeyLastUsed {self.access_key_id}",
            "iam:ListAccessKeys of its user",
            f"iam:UpdateAccessKey {self.access_key_id} Inactive",
            f"{context.vault.directory}/vault: version {self.number}, deactivated_at",
        ]

    def is_done(self, context: RotationContext) -> bool:
        """Whether the vault says so, which is written last."""
        version = context.stored().find(self.number)
        return version is None or version.deactivated_at is not None

    def act(self, context: RotationContext) -> None:
        """See the class."""
        found = locate(context.keys, self.access_key_id)
        if found is not None and found[1] is KeyStatus.ACTIVE:
            require_login(context, context.stored().current().number)
            sightings = shared_use(context, self.access_key_id) or self._sightings(context)
            if sightings:
                context.sightings.extend(sightings)
                return
            context.keys.set_key_status(found[0], self.access_key_id, KeyStatus.INACTIVE)
        mark_deactivated(context, self.number, context.pace.timestamp())

    def undo(self, context: RotationContext, checkpoint: bytes | None) -> None:  # noqa: ARG002
        """Activate it again."""
        found = locate(context.keys, self.access_key_id)
        if found is not None:
            context.keys.set_key_status(found[0], self.access_key_id, KeyStatus.ACTIVE)
        mark_deactivated(context, self.number, None)

    def _sightings(self, context: RotationContext) -> list[Message]:
        port = context.credential.port
        timeout_s = context.rotation.drain_timeout_s
        begun = context.begun_before[-1] if context.begun_before else sessions_to(port)
        left = wait_until_over(begun, port, timeout_s, context.pace)
        if left:
            return describe_sessions(left)
        quiet_since = context.pace.now()
        before = context.keys.key_last_used(self.access_key_id)
        context.pace.sleep(_SETTLE_S)
        granted_at = last_grant(context, self.number)
        if granted_at is not None and granted_at >= quiet_since:
            return [message("sesguardd handed version {number} out", number=self.number)]
        after = context.keys.key_last_used(self.access_key_id)
        # IAM tells whole seconds.
        if after is None or after == before or after.at < quiet_since.replace(microsecond=0):
            return []
        return [
            message(
                "IAM saw {key} used by {service} in {region} at {at}, not by this host's mail",
                key=self.access_key_id,
                service=after.service,
                region=after.region,
                at=after.at.isoformat(timespec="seconds"),
            )
        ]


class DeleteKey(RotationAct, frozen=True, kw_only=True, tag="delete-key"):
    """
    Delete an old key for good, and forget its version. It cannot be undone.

    A key that somebody has activated again is in use: it stays, counts as not deactivated from then
    on, and the sighting goes to the context.
    """

    part_of = RotationStep.RETIRE

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("delete the old key {key}", key=self.access_key_id)

    def effects(self, context: RotationContext) -> list[str]:
        """See `RotationAct.effects`."""
        return [
            f"iam:GetAccessKeyLastUsed {self.access_key_id}",
            "iam:ListAccessKeys of its user",
            f"iam:DeleteAccessKey {self.access_key_id}",
            f"{context.vault.directory}/vault: version {self.number} is dropped",
        ]

    def is_done(self, context: RotationContext) -> bool:
        """Whether the version is forgotten, which comes last."""
        return context.stored().find(self.number) is None

    def act(self, context: RotationContext) -> None:
        """See the class."""
        found = locate(context.keys, self.access_key_id)
        if shared_use(context, self.access_key_id):
            # Another version holds the same key: only this one is forgotten.
            found = None
        if found is not None and found[1] is KeyStatus.ACTIVE:
            context.sightings.append(
                message("somebody activated {key} again", key=self.access_key_id)
            )
            mark_deactivated(context, self.number, None)
            return
        if found is not None:
            context.keys.ensure_key_deleted(found[0], self.access_key_id)
        context.vault.update(context.credential_id, lambda known: known.drop(self.number))


def require_login(context: RotationContext, number: int) -> None:
    """
    See a version log in.

    Raises:
        UpstreamError: SES does not take it.
        CredentialError: There is no such version.
    """
    version = context.stored().version(number)
    timeout_s = context.rotation.test_timeout_s
    wait_until_valid(version, context.credential, timeout_s, context.pace, in_a_row=1)


def shared_use(context: RotationContext, access_key_id: str) -> list[Message]:
    """The versions, of whichever credential, that are in use with that key."""
    used = {StagingLabel.CURRENT, StagingLabel.PENDING, StagingLabel.HELD}
    return [
        message("credential {name} uses {key} too", name=name, key=access_key_id)
        for name, credential in context.vault.read().credentials.items()
        for version in credential.versions
        if version.username == access_key_id and credential.label_of(version.number) in used
    ]


def mark_deactivated(context: RotationContext, number: int, at: str | None) -> None:
    """Write down since when the key of a version is deactivated; None: it is not."""

    def change(credential: Credential) -> Credential:
        version = credential.find(number)
        if version is None:
            return credential
        return credential.with_version(replace(version, deactivated_at=at))

    context.vault.update(context.credential_id, change)


STEP_TYPES: tuple[type[RotationAct], ...] = (
    CreateKey,
    TestLogin,
    SwitchCurrent,
    RefreshTargets,
    DeactivateKey,
    DeleteKey,
)
"""Every kind of step that a journal of rotations may hold."""

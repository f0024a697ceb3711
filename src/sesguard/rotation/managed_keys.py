"""
The access keys of the IAM user of a managed secret: which are ours, and how the old ones go.

A rotation function has no state of its own. What it must remember from one call to the next it
writes to tags of the IAM user:

    sesguard:rotation   TIME KEY...   a key is about to be made; these were there before
    sesguard:retired    KEY TIME      the old key that was deactivated, and when

A call that is killed, or whose answer is lost, leaves a key that nobody has the secret of. The next
attempt knows it: it is not in the list, was made within `ATTEMPT` of the time, and was never used.
It is deleted. Every other key that no stage of the secret names is foreign, and never touched.

An old key is idle when it was replaced at least the time of grace ago and IAM saw no use of it
since, and the current key is active. `ManagedKeys.retire` deactivates it, and deletes it a time of
grace later; one that somebody activates again is in use, and stays. Where nothing calls that, the
next rotation deletes an idle key at once.

Known faults: it is not documented that, or how soon, IAM sees a use by SMTP; hosts must take the
new value within the time of grace (docs/formats/managed-secret.md). A key that somebody else makes
for the same user within `ATTEMPT` of an attempt that failed, and does not use, is taken for ours.

Raises the classes of `sesguard.aws.errors`, and `CheckFailed` where a person has to decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sesguard.aws.iam import AccessKey, IamKeys, KeyStatus
from sesguard.aws.users import IamUsers
from sesguard.errors import CheckFailed
from sesguard.rotation.context import Pace
from sesguard.rotation.keys import KEYS_OF_A_USER, delete_orphans, find_status, no_slot
from sesguard.rotation.managed_value import ManagedValue
from sesguard.rotation.schedule import parse_time

ROTATION_TAG: Final = "sesguard:rotation"
RETIRED_TAG: Final = "sesguard:retired"
ATTEMPT: Final = timedelta(minutes=15)
"""The longest time that a Lambda function may run."""

_SKEW: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Intent:
    """What was written down before a key was made."""

    at: datetime
    known: frozenset[str]
    """Ids of the keys that were there."""

    def covers(self, key: AccessKey) -> bool:
        """Whether `key` came out of that attempt."""
        made_then = self.at - _SKEW <= key.created_at <= self.at + ATTEMPT + _SKEW
        return made_then and key.access_key_id not in self.known


@dataclass(frozen=True, slots=True)
class ManagedKeys:
    """What is done with the keys."""

    keys: IamKeys
    users: IamUsers
    grace: timedelta
    pace: Pace

    def free_slot(self, current: ManagedValue, previous: ManagedValue | None) -> frozenset[str]:
        """
        See to it that the user has room for another key.

        Returns:
            Ids of the keys that are there now.

        Raises:
            CheckFailed: A key fills the slot that is foreign, or in use.
        """
        user = current.iam_user
        tags = self.users.read_tags(user)
        intent = _read_intent(tags)
        old = previous.username if previous else None
        left = self._without_orphans(user, intent, {current.username, old})
        if len(left) >= KEYS_OF_A_USER:
            others = [key for key in left if key.access_key_id != current.username]
            ours = [
                key
                for key in others
                if (key.access_key_id == old and current.username is not None)
                or (intent is not None and intent.covers(key))
            ]
            if not ours:
                raise no_slot(user, others[0])
            self._delete(user, ours[0], current, tags)
            left.remove(ours[0])
        return frozenset(key.access_key_id for key in left)

    def write_intent(self, user: str, known: frozenset[str]) -> None:
        """Write down that a key is about to be made, and which keys are there."""
        value = " ".join([self.pace.timestamp(), *sorted(known)])
        self.users.set_tag(user, ROTATION_TAG, value)

    def forget_intent(self, user: str) -> None:
        """The key that was made is CURRENT: nothing is under way."""
        self.users.remove_tag(user, ROTATION_TAG)

    def retire(self, current: ManagedValue, previous: ManagedValue | None) -> str:
        """
        Go one step towards the end of the old key: deactivate it, or later delete it.

        Returns:
            What was done: ``nothing``, ``deactivated``, ``waiting`` or ``deleted``.

        Raises:
            CheckFailed: It is in use, or the current key does not work.
        """
        if previous is None or previous.username in {None, current.username}:
            return "nothing"
        if current.username is None:
            return "nothing"  # A first value was written over one that hosts may use.
        user = previous.iam_user
        key = self._find(user, previous.username)
        if key is None:
            return "nothing"
        if self._is_fresh(current):
            return "waiting"
        self._require_active(current)
        tags = self.users.read_tags(user)
        retired_at = _retired_at(tags, key)
        if key.status is KeyStatus.ACTIVE:
            if retired_at is not None:
                raise _activated_again(key)
            self._require_unused(key)
            self.keys.set_key_status(user, key.access_key_id, KeyStatus.INACTIVE)
        elif retired_at is not None:
            if self.pace.now() - retired_at < self.grace:
                return "waiting"
            self._delete(user, key, current, tags)
            return "deleted"
        # Also for one that was found inactive: the time to notice begins now.
        self.users.set_tag(user, RETIRED_TAG, f"{key.access_key_id} {self.pace.timestamp()}")
        return "deactivated"

    def _without_orphans(
        self, user: str, intent: Intent | None, staged: set[str | None]
    ) -> list[AccessKey]:
        if intent is None:
            return list(self.keys.list_access_keys(user))
        return delete_orphans(self.keys, user, staged, may_be_ours=intent.covers)

    def _delete(
        self, user: str, key: AccessKey, current: ManagedValue, tags: Mapping[str, str]
    ) -> None:
        if key.status is KeyStatus.ACTIVE and _retired_at(tags, key) is not None:
            raise _activated_again(key)
        if self._is_fresh(current):
            raise CheckFailed(
                "the old key {key} was replaced less than {hours:g} h ago",
                hint="let hosts take the new value first, or set SESGUARD_GRACE_HOURS lower",
                key=key.access_key_id,
                hours=self.grace / timedelta(hours=1),
            )
        self._require_active(current)
        self._require_unused(key)
        self.keys.ensure_key_deleted(user, key.access_key_id)
        if RETIRED_TAG in tags:
            self.users.remove_tag(user, RETIRED_TAG)

    def _is_fresh(self, current: ManagedValue) -> bool:
        """Whether hosts may not have taken the current value yet."""
        made_at = current.created_at
        return made_at is not None and self.pace.now() - made_at < self.grace

    def _require_active(self, current: ManagedValue) -> None:
        """Whoever uses the old key must have another one to go to."""
        user, access_key_id = current.iam_user, current.username
        if access_key_id is None:
            return
        if find_status(self.keys, user, access_key_id) is not KeyStatus.ACTIVE:
            raise CheckFailed(
                "the current key {key} is not active, so the old one stays",
                hint="activate {key}, or delete it and rotate",
                key=access_key_id,
            )

    def _require_unused(self, key: AccessKey) -> None:
        use = self.keys.key_last_used(key.access_key_id)
        if use is not None and self.pace.now() - use.at < self.grace:
            raise CheckFailed(
                "IAM saw the old key {key} used by {service} in {region} at {at}",
                hint="give whoever uses it the new value, then rotate again",
                key=key.access_key_id,
                service=use.service,
                region=use.region,
                at=use.at.isoformat(timespec="seconds"),
            )

    def _find(self, user: str, access_key_id: str | None) -> AccessKey | None:
        listed = self.keys.list_access_keys(user)
        return next((key for key in listed if key.access_key_id == access_key_id), None)


def _read_intent(tags: Mapping[str, str]) -> Intent | None:
    """What the tag says; a tag that does not fit is not ours, and proves nothing."""
    at, *known = tags.get(ROTATION_TAG, "").split(" ")
    try:
        return Intent(parse_time(at), frozenset(known))
    except ValueError:
        return None


def _retired_at(tags: Mapping[str, str], key: AccessKey) -> datetime | None:
    """When `key` was deactivated by us, or None."""
    access_key_id, _, at = tags.get(RETIRED_TAG, "").partition(" ")
    try:
        return parse_time(at) if access_key_id == key.access_key_id else None
    except ValueError:
        return None


def _activated_again(key: AccessKey) -> CheckFailed:
    return CheckFailed(
        "the old key {key} was activated again, so somebody uses it",
        hint="find who, give it the new value, and deactivate {key}",
        key=key.access_key_id,
    )

"""
The two slots that IAM gives a user for access keys.

A call that makes a key and whose answer got lost leaves a key that nobody has the secret of: an
orphan. Left alone, orphans fill the second slot, and every later rotation fails. So the keys that
were there before are written down first. A key that is there afterwards, that was never used and
that is in no vault is such an orphan, and is deleted; a key that was there before, or was used, is
never touched here.

There is no limit of time to that rule, unlike in `sesguard.rotation.managed_keys`. There an attempt
ends within minutes, and what it left may be found months later, so only a key from those minutes is
ours. Here a run that was cut short keeps all others back, the timer takes it up within a day, and
each further attempt may lose a key of its own: all the time until its end is the run's. A limit
would leave orphans behind, and so a full slot.

Known fault: a key that somebody else makes for the same user in that time, and has not used yet,
cannot be told from an orphan. sesguard expects to be the only one that makes keys for it.

Raises the classes of `sesguard.aws.errors`, and `CheckFailed` for a slot that cannot be had.
"""

from collections.abc import Callable, Collection
from typing import Final

from sesguard.aws.errors import AwsMissing
from sesguard.aws.iam import AccessKey, IamKeys, KeyFacts, KeyStatus, NewAccessKey
from sesguard.core.credential import Credential
from sesguard.errors import AwsPermanent, AwsThrottled, AwsTransient, CheckFailed
from sesguard.rotation.backoff import Backoff
from sesguard.rotation.context import Pace

ATTEMPTS: Final = 6
KEYS_OF_A_USER: Final = 2
_FIRST_PAUSE_S: Final = 0.5
_LIMIT_EXCEEDED: Final = "LimitExceeded"


def make_key(keys: IamKeys, user_name: str, known: Collection[str], pace: Pace) -> NewAccessKey:
    """
    Make an access key; afterwards the user has that one and those of `known`, and no orphan.

    Args:
        keys: IAM.
        user_name: Whose key.
        known: Ids of the keys that were there before.
        pace: For the pauses between attempts.

    Raises:
        AwsError: It could not be made; what was made of it is gone, or IAM cannot be asked.
    """
    backoff = Backoff(pace, _FIRST_PAUSE_S, attempts=ATTEMPTS)
    while True:
        try:
            delete_orphans(keys, user_name, known)
            made = keys.create_access_key(user_name)
        except (AwsThrottled, AwsTransient):
            if not backoff.wait():
                raise
        except AwsPermanent as error:
            # A lost key of ours may fill the slot before it shows up in the list.
            if error.parameters.get("code") != _LIMIT_EXCEEDED or not backoff.wait():
                raise
        else:
            delete_orphans(keys, user_name, {*known, made.access_key_id})
            return made


def delete_orphans(
    keys: IamKeys,
    user_name: str,
    known: Collection[str | None],
    *,
    may_be_ours: Callable[[AccessKey], bool] = lambda _key: True,
) -> list[AccessKey]:
    """
    Delete every key that is an orphan.

    Args:
        keys: IAM.
        user_name: Whose keys.
        known: Ids of the keys that are none.
        may_be_ours: Whether a key can come out of an attempt of ours, where that can be told.

    Returns:
        The keys that are left.
    """
    listed = keys.list_access_keys(user_name)
    orphans = [
        key
        for key in listed
        if key.access_key_id not in known
        and may_be_ours(key)
        and keys.key_last_used(key.access_key_id) is None
    ]
    for key in orphans:
        keys.ensure_key_deleted(user_name, key.access_key_id)
    return [key for key in listed if key not in orphans]


def owner_of(keys: IamKeys, access_key_id: str) -> str | None:
    """
    The IAM user that a key belongs to, whatever the settings say: panic gives it another user.

    Returns:
        None when AWS knows no such key.

    Raises:
        AwsError: IAM cannot be asked.
    """
    facts = find_facts(keys, access_key_id)
    return None if facts is None else facts.user_name


def locate(keys: IamKeys, access_key_id: str) -> tuple[str, KeyStatus] | None:
    """The IAM user and the status of a key; None when there is no such key (any more)."""
    user_name = owner_of(keys, access_key_id)
    status = None if user_name is None else find_status(keys, user_name, access_key_id)
    return None if user_name is None or status is None else (user_name, status)


def find_facts(keys: IamKeys, access_key_id: str) -> KeyFacts | None:
    """What IAM knows of a key; None when there is no such key (any more)."""
    try:
        return keys.key_facts(access_key_id)
    except AwsMissing:
        return None


def find_status(keys: IamKeys, user_name: str, access_key_id: str) -> KeyStatus | None:
    """Whether a key is active; None when the user does not have it (any more)."""
    return next(
        (k.status for k in keys.list_access_keys(user_name) if k.access_key_id == access_key_id),
        None,
    )


def no_slot(user_name: str, foreign: AccessKey) -> CheckFailed:
    """The refusal of a rotation whose slot a key fills that is not ours."""
    return CheckFailed(
        "IAM user {user} has two keys, and {key} ({status}, made {at}) is not of this credential",
        hint="delete that key once you know that nobody needs it, then rotate again",
        user=user_name,
        key=foreign.access_key_id,
        status=foreign.status.value,
        at=foreign.created_at.date().isoformat(),
    )


def foreign_keys(listed: Collection[AccessKey], credential: Credential) -> list[AccessKey]:
    """The keys of the user that the vault does not know."""
    return [key for key in listed if credential.of_key(key.access_key_id) is None]

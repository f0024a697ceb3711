"""
The two slots that IAM gives a user for access keys.

A call that makes a key and whose answer got lost leaves a key that nobody has the secret of: an
orphan. Left alone, orphans fill the second slot, and every later rotation fails. So the keys that
were there before are written down first. A key that is there afterwards, that was never used and
that is in no vault is such an orphan, and is deleted; a key that was there before, or was used, is
never touched here.

Known fault: a key that somebody else makes for the same user while ours is being made, and has not
used yet, cannot be told from an orphan. sesguard expects to be the only one that makes keys for it.

Raises the classes of `sesguard.aws.errors`, and `CheckFailed` for a slot that cannot be had.
"""

from collections.abc import Collection
from typing import Final

from sesguard.aws.errors import AwsMissing
from sesguard.aws.iam import AccessKey, IamKeys, KeyFacts, KeyStatus, NewAccessKey
from sesguard.core.credential import Credential
from sesguard.errors import AwsPermanent, AwsThrottled, AwsTransient
from sesguard.rotation.context import Pace

ATTEMPTS: Final = 6
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
    pause = _FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            delete_orphans(keys, user_name, known)
            made = keys.create_access_key(user_name)
        except (AwsThrottled, AwsTransient):
            if attempt == ATTEMPTS:
                raise
        except AwsPermanent as error:
            # A lost key of ours may fill the slot before it shows up in the list.
            if error.parameters.get("code") != _LIMIT_EXCEEDED or attempt == ATTEMPTS:
                raise
        else:
            delete_orphans(keys, user_name, {*known, made.access_key_id})
            return made
        pace.sleep(pause)
        pause *= 2
    raise AssertionError


def delete_orphans(keys: IamKeys, user_name: str, known: Collection[str]) -> list[str]:
    """Delete every key that is not in `known` and was never used; gives their ids."""
    orphans = [
        key.access_key_id
        for key in keys.list_access_keys(user_name)
        if key.access_key_id not in known and keys.key_last_used(key.access_key_id) is None
    ]
    for access_key_id in orphans:
        keys.ensure_key_deleted(user_name, access_key_id)
    return orphans


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


def foreign_keys(listed: Collection[AccessKey], credential: Credential) -> list[AccessKey]:
    """The keys of the user that the vault does not know."""
    return [key for key in listed if credential.of_key(key.access_key_id) is None]

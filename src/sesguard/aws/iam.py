"""
IAM users and their access keys.

An IAM user has at most two access keys, inactive ones included. IAM is eventually consistent: a key
that was just made may not work for some seconds, and one that was deactivated may still work.
Everything raises the classes of `sesguard.aws.errors`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sesguard.aws.errors import AwsMissing, aws_errors
from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret


class KeyStatus(StrEnum):
    """Whether AWS takes a key."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of a user, without its secret: AWS shows that only once."""

    access_key_id: str
    status: KeyStatus
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """An access key that was just made."""

    access_key_id: str
    secret_key: Secret


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The last use of a key, as far as IAM knows; sends by SMTP may be missing or late."""

    at: datetime
    service: str
    region: str


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What IAM knows of a key by its id alone."""

    user_name: str
    """Whose key it is."""
    last_use: KeyUse | None
    """None when it was never used, as far as IAM knows."""


class IamKeys:
    """The calls."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def create_user(self, user_name: str) -> None:
        """Make a user without any right."""
        with aws_errors("iam:CreateUser"):
            self._session.iam.create_user(UserName=user_name)

    def put_user_policy(
        self, user_name: str, policy_name: str, document: Mapping[str, Any]
    ) -> None:
        """Give a user an inline policy, or replace it."""
        with aws_errors("iam:PutUserPolicy"):
            self._session.iam.put_user_policy(
                UserName=user_name, PolicyName=policy_name, PolicyDocument=json.dumps(document)
            )

    def list_access_keys(self, user_name: str) -> tuple[AccessKey, ...]:
        """The keys of a user, oldest first."""
        keys = []
        with aws_errors("iam:ListAccessKeys"):
            pages = self._session.iam.get_paginator("list_access_keys")
            for page in pages.paginate(UserName=user_name):
                keys += page["AccessKeyMetadata"]
        found = [
            AccessKey(key["AccessKeyId"], KeyStatus(key["Status"]), key["CreateDate"])
            for key in keys
        ]
        return tuple(sorted(found, key=lambda key: (key.created_at, key.access_key_id)))

    def create_access_key(self, user_name: str) -> NewAccessKey:
        """
        Make a key; never repeated by itself, because a lost answer may mean a key without an owner.

        Raises:
            AwsTransient: It may have been made: look at `list_access_keys`.
            AwsPermanent: The user has two keys already (code ``LimitExceeded``).
        """
        with aws_errors("iam:CreateAccessKey"):
            key = self._session.iam_once.create_access_key(UserName=user_name)["AccessKey"]
        return NewAccessKey(key["AccessKeyId"], Secret(key["SecretAccessKey"]))

    def set_key_status(self, user_name: str, access_key_id: str, status: KeyStatus) -> None:
        """Activate or deactivate a key."""
        with aws_errors("iam:UpdateAccessKey"):
            self._session.iam.update_access_key(
                UserName=user_name, AccessKeyId=access_key_id, Status=status.value
            )

    def ensure_key_deleted(self, user_name: str, access_key_id: str) -> bool:
        """Delete a key for good. False when it was not there."""
        try:
            with aws_errors("iam:DeleteAccessKey"):
                self._session.iam.delete_access_key(UserName=user_name, AccessKeyId=access_key_id)
        except AwsMissing:
            return False
        return True

    def key_facts(self, access_key_id: str) -> KeyFacts:
        """
        Whose key it is, and its last use.

        Raises:
            AwsMissing: There is no such key.
            AwsDenied: The caller lacks the right; AWS may also answer this (``AccessDenied``)
                for a key that does not exist or is of another account.
        """
        with aws_errors("iam:GetAccessKeyLastUsed"):
            answer = self._session.iam.get_access_key_last_used(AccessKeyId=access_key_id)
        use = answer["AccessKeyLastUsed"]
        at = use.get("LastUsedDate")
        last_use = None if at is None else KeyUse(at, use["ServiceName"], use["Region"])
        return KeyFacts(answer["UserName"], last_use)

    def key_last_used(self, access_key_id: str) -> KeyUse | None:
        """The last use that IAM knows of, or None; see `key_facts`."""
        return self.key_facts(access_key_id).last_use

"""
IAM users: what they may do, copies of them, and the deny that stops one.

IAM is eventually consistent: a policy or a user may take some seconds to be seen everywhere.
Everything raises the classes of `sesguard.aws.errors`. Every call may be repeated.

Limits: a user has at most 2,048 characters of inline policies (white space is free), 10 attached
policies, 10 groups and 50 tags, unless AWS raised its quotas; more are refused with the code
``LimitExceeded``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sesguard.aws.errors import AwsMissing, aws_errors
from sesguard.aws.iam import IamKeys
from sesguard.aws.session import AwsSession
from sesguard.errors import AwsPermanent

DENY_EVERYTHING: Final[Mapping[str, Any]] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}],
}
QUARANTINE_PREFIX: Final = "AWSCompromisedKeyQuarantine"
"""Managed policies that AWS attaches to a user whose key it found in public."""


@dataclass(frozen=True, slots=True)
class UserSnapshot:
    """What a user is and may do; its keys are told by `sesguard.aws.iam`."""

    name: str
    arn: str
    path: str
    created_at: datetime
    tags: Mapping[str, str]
    boundary: str | None
    """ARN of the permissions boundary."""
    inline_policies: Mapping[str, Mapping[str, Any]]
    """The documents, by name."""
    attached_policies: tuple[str, ...]
    """ARNs of the managed policies."""
    groups: tuple[str, ...]


class IamUsers:
    """The calls."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        self._keys = IamKeys(session)

    def user_exists(self, name: str) -> bool:
        """Whether there is such a user."""
        try:
            self._get_user(name)
        except AwsMissing:
            return False
        return True

    def describe(self, name: str) -> UserSnapshot:
        """
        What the user is and may do.

        Raises:
            AwsMissing: There is no such user.
        """
        user = self._get_user(name)
        return UserSnapshot(
            user["UserName"],
            user["Arn"],
            user["Path"],
            user["CreateDate"],
            _tags(user),
            user.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
            self._inline_policies(name),
            self._attached_policies(name),
            self._groups(name),
        )

    def ensure_user(
        self,
        name: str,
        *,
        like: str,
        skip_policies: Collection[str] = (),
        skip_tags: Collection[str] = (),
    ) -> bool:
        """
        Make a user that may do what another may, or complete one.

        Copied are path, permissions boundary, tags, attached and inline policies and groups; not
        copied are keys, passwords, AWS's own tags, and the policies by which AWS quarantines a user
        whose key leaked. What the user has beyond that stays. The boundary is there from the start,
        and before any policy.

        Args:
            name: User to make; one that exists is completed, except for its path.
            like: User to copy.
            skip_policies: Names of inline policies that are not copied.
            skip_tags: Keys of tags that are not copied.

        Returns:
            Whether anything was done.

        Raises:
            AwsMissing: There is no user `like`.
        """
        source = self.describe(like)
        tags = {
            key: value
            for key, value in source.tags.items()
            if key not in skip_tags and not key.startswith("aws:")
        }
        created = self._create(name, source, tags)
        found = self.describe(name)
        completed = [
            self._complete_boundary(found, source),
            self._complete_tags(found, tags),
            self._complete_inline_policies(found, source, skip_policies),
            self._complete_attached_policies(found, source),
            self._complete_groups(found, source),
        ]
        return created or any(completed)

    def ensure_denied(self, name: str, policy_name: str) -> None:
        """
        Forbid a user everything, whatever else allows it, by an inline policy of that name.

        Raises:
            AwsMissing: There is no such user.
            AwsPermanent: There is no room for another inline policy (code ``LimitExceeded``).
        """
        self._keys.put_user_policy(name, policy_name, DENY_EVERYTHING)

    def is_denied(self, name: str, policy_name: str) -> bool:
        """Whether the user has the inline policy of `ensure_denied`, unchanged."""
        try:
            return self._policy(name, policy_name) == DENY_EVERYTHING
        except AwsMissing:
            return False

    def read_tags(self, name: str) -> Mapping[str, str]:
        """The tags of a user."""
        return _tags(self._get_user(name))

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Give a user a tag, or change it."""
        self._set_tags(name, {key: value})

    def remove_tag(self, name: str, key: str) -> None:
        """Take a tag from a user; one that is not there is fine."""
        with aws_errors("iam:UntagUser"):
            self._session.iam.untag_user(UserName=name, TagKeys=[key])

    def _create(self, name: str, source: UserSnapshot, tags: Mapping[str, str]) -> bool:
        boundary = {"PermissionsBoundary": source.boundary} if source.boundary else {}
        try:
            with aws_errors("iam:CreateUser"):
                self._session.iam.create_user(
                    UserName=name, Path=source.path, Tags=_tag_list(tags), **boundary
                )
        except AwsPermanent as error:
            if error.parameters["code"] != "EntityAlreadyExists":
                raise
            return False
        with aws_errors("iam:GetUser"):
            self._session.iam.get_waiter("user_exists").wait(UserName=name)
        return True

    def _complete_boundary(self, found: UserSnapshot, source: UserSnapshot) -> bool:
        if source.boundary is None or found.boundary == source.boundary:
            return False
        with aws_errors("iam:PutUserPermissionsBoundary"):
            self._session.iam.put_user_permissions_boundary(
                UserName=found.name, PermissionsBoundary=source.boundary
            )
        return True

    def _complete_tags(self, found: UserSnapshot, tags: Mapping[str, str]) -> bool:
        missing = {key: value for key, value in tags.items() if found.tags.get(key) != value}
        if missing:
            self._set_tags(found.name, missing)
        return bool(missing)

    def _complete_inline_policies(
        self, found: UserSnapshot, source: UserSnapshot, skip: Collection[str]
    ) -> bool:
        missing = {
            policy_name: document
            for policy_name, document in source.inline_policies.items()
            if policy_name not in skip and found.inline_policies.get(policy_name) != document
        }
        for policy_name, document in missing.items():
            self._keys.put_user_policy(found.name, policy_name, document)
        return bool(missing)

    def _complete_attached_policies(self, found: UserSnapshot, source: UserSnapshot) -> bool:
        missing = [
            arn
            for arn in source.attached_policies
            if arn not in found.attached_policies
            and not arn.rpartition("/")[2].startswith(QUARANTINE_PREFIX)
        ]
        for arn in missing:
            with aws_errors("iam:AttachUserPolicy"):
                self._session.iam.attach_user_policy(UserName=found.name, PolicyArn=arn)
        return bool(missing)

    def _complete_groups(self, found: UserSnapshot, source: UserSnapshot) -> bool:
        missing = [group for group in source.groups if group not in found.groups]
        for group in missing:
            with aws_errors("iam:AddUserToGroup"):
                self._session.iam.add_user_to_group(UserName=found.name, GroupName=group)
        return bool(missing)

    def _get_user(self, name: str) -> Mapping[str, Any]:
        with aws_errors("iam:GetUser"):
            return self._session.iam.get_user(UserName=name)["User"]

    def _policy(self, name: str, policy_name: str) -> Mapping[str, Any]:
        with aws_errors("iam:GetUserPolicy"):
            answer = self._session.iam.get_user_policy(UserName=name, PolicyName=policy_name)
        # botocore has decoded it, whatever the stubs say.
        return cast("Mapping[str, Any]", answer["PolicyDocument"])

    def _set_tags(self, name: str, tags: Mapping[str, str]) -> None:
        with aws_errors("iam:TagUser"):
            self._session.iam.tag_user(UserName=name, Tags=_tag_list(tags))

    def _inline_policies(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        with aws_errors("iam:ListUserPolicies"):
            pages = self._session.iam.get_paginator("list_user_policies").paginate(UserName=name)
            names = [found for page in pages for found in page["PolicyNames"]]
        return {policy_name: self._policy(name, policy_name) for policy_name in names}

    def _attached_policies(self, name: str) -> tuple[str, ...]:
        with aws_errors("iam:ListAttachedUserPolicies"):
            pages = self._session.iam.get_paginator("list_attached_user_policies")
            return tuple(
                policy["PolicyArn"]
                for page in pages.paginate(UserName=name)
                for policy in page["AttachedPolicies"]
            )

    def _groups(self, name: str) -> tuple[str, ...]:
        with aws_errors("iam:ListGroupsForUser"):
            pages = self._session.iam.get_paginator("list_groups_for_user").paginate(UserName=name)
            return tuple(group["GroupName"] for page in pages for group in page["Groups"])


def _tags(user: Mapping[str, Any]) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in user.get("Tags", [])}


def _tag_list(tags: Mapping[str, str]) -> Any:
    return [{"Key": key, "Value": value} for key, value in tags.items()]

"""
An AWS account in the sandbox as a mail host's owner has it.

A verified domain, an IAM user with the console's inline policy (``AmazonSesSendingAccess``: send
anything as anybody, which is what the SES console makes), and one access key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sesguard.aws.iam import IamKeys
from sesguard.aws.ses import SesAccount
from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret
from sesguard.sandbox.process import ADMIN_ACCESS_KEY, Sandbox

POLICY_NAME: Final = "AmazonSesSendingAccess"
CONSOLE_POLICY: Final[Mapping[str, Any]] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*"}],
}


@dataclass(frozen=True, slots=True)
class SeededKey:
    """The access key of the user that was made."""

    user_name: str
    access_key_id: str
    secret_key: Secret


def admin_session(sandbox: Sandbox) -> AwsSession:
    """A session with all rights in the sandbox, whatever the environment says."""
    return AwsSession(
        sandbox.info.region,
        endpoint_url=sandbox.info.endpoint_url,
        access_key=(ADMIN_ACCESS_KEY, Secret(ADMIN_ACCESS_KEY)),
    )


def seed_account(
    sandbox: Sandbox,
    *,
    user_name: str = "ses-smtp-user.20240101-101010",
    domain: str = "example.com",
    policy: Mapping[str, Any] | None = None,
    session: AwsSession | None = None,
) -> SeededKey:
    """
    Make the domain, the user, its policy and its key.

    Args:
        sandbox: A running one.
        user_name: Must not exist yet.
        domain: May exist already.
        policy: Instead of the console's policy.
        session: Instead of a new one; a session that is used again saves time.

    Raises:
        AwsError: The sandbox refused something.
    """
    session = session or admin_session(sandbox)
    SesAccount(session).verify_domain(domain)
    keys = IamKeys(session)
    keys.create_user(user_name)
    keys.put_user_policy(user_name, POLICY_NAME, policy or CONSOLE_POLICY)
    key = keys.create_access_key(user_name)
    return SeededKey(user_name, key.access_key_id, key.secret_key)

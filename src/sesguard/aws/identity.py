"""
As whom the calls of a session are made.

Neither question needs a right: AWS answers GetCallerIdentity to whoever signs with a valid key,
also to a user that is denied everything. Raises the classes of `sesguard.aws.errors`.
"""

from typing import Final

from sesguard.aws.errors import aws_errors
from sesguard.aws.session import AwsSession

_USER: Final = "user/"


def caller_user(session: AwsSession) -> str | None:
    """The IAM user that calls; None for a role and for the root user of the account."""
    with aws_errors("sts:GetCallerIdentity"):
        arn = session.sts.get_caller_identity()["Arn"]
    # arn:aws:iam::123456789012:user/PATH/NAME
    kind_and_name = arn.rpartition(":")[2]
    return kind_and_name.rpartition("/")[2] if kind_and_name.startswith(_USER) else None

"""
SES identities and quotas, in the region of the session.

Everything raises the classes of `sesguard.aws.errors`.
"""

from dataclasses import dataclass

from sesguard.aws.errors import aws_errors
from sesguard.aws.session import AwsSession


@dataclass(frozen=True, slots=True)
class SendQuota:
    """What the account may send, in recipients."""

    max_24_hour_send: float
    """-1 means no limit."""
    max_send_rate: float
    """A second."""
    sent_last_24_hours: float


class SesAccount:
    """The calls."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def verify_domain(self, domain: str) -> str:
        """
        Make a domain an identity.

        Returns:
            The token for its DNS record; SES verifies the domain once the record is there.
        """
        with aws_errors("ses:VerifyDomainIdentity"):
            answer = self._session.ses.verify_domain_identity(Domain=domain)
        return str(answer["VerificationToken"])

    def send_quota(self) -> SendQuota:
        """The quota and what is used of it."""
        with aws_errors("ses:GetSendQuota"):
            answer = self._session.ses.get_send_quota()
        return SendQuota(answer["Max24HourSend"], answer["MaxSendRate"], answer["SentLast24Hours"])

"""
SES identities, quotas and pauses, in the region of the session.

AWS allows one call a second to most of these; more are repeated with back-off.
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


class SesSending:
    """
    Whether mail may be sent: of the account in the region, and of a configuration set.

    A pause is not a delay: SES refuses the mail with a permanent reply (554), and a mail server
    bounces what it was refused for good.
    """

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def account_sending(self) -> bool:
        """Whether the account may send in this region."""
        with aws_errors("ses:GetAccount"):
            return self._session.sesv2.get_account()["SendingEnabled"]

    def set_account_sending(self, enabled: bool) -> None:
        """Pause the account in this region, or let it send again."""
        with aws_errors("ses:PutAccountSendingAttributes"):
            self._session.sesv2.put_account_sending_attributes(SendingEnabled=enabled)

    def configuration_set_sending(self, name: str) -> bool:
        """
        Whether mail with this configuration set may be sent.

        Raises:
            AwsMissing: There is no such set.
        """
        with aws_errors("ses:GetConfigurationSet"):
            answer = self._session.sesv2.get_configuration_set(ConfigurationSetName=name)
        return answer.get("SendingOptions", {}).get("SendingEnabled", True)

    def set_configuration_set_sending(self, name: str, enabled: bool) -> None:
        """
        Pause mail with this configuration set, or let it be sent again.

        It stops only mail that names the set, or has it by default of its identity.

        Raises:
            AwsMissing: There is no such set.
        """
        with aws_errors("ses:PutConfigurationSetSendingOptions"):
            self._session.sesv2.put_configuration_set_sending_options(
                ConfigurationSetName=name, SendingEnabled=enabled
            )

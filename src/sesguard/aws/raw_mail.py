"""
Sending whole messages by the SES API (version 2), with the identity that the host has.

One attempt a call: botocore's own repeats would send a message twice when only the answer was lost.
Who may try again, and where, is for the caller to say.

Raises `TemporaryFailure` when the region could not be reached, so that nothing was sent, and else
the classes of `sesguard.aws.errors`. SES takes up to 40 MB and 50 recipients; a call has
`ANSWER_TIMEOUT_S` for its answer. May be used by several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from botocore.config import Config
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError

from sesguard import __version__
from sesguard.aws.errors import aws_errors
from sesguard.aws.session import COMMAND, AwsSession
from sesguard.core.secret import Secret
from sesguard.errors import AwsTransient, TemporaryFailure

if TYPE_CHECKING:
    from mypy_boto3_sesv2 import SESV2Client
    from mypy_boto3_sesv2.type_defs import SendEmailRequestTypeDef

ANSWER_TIMEOUT_S: Final = 60
MAX_CONNECTIONS: Final = 32
"""HTTP connections kept for each region."""

_UNREACHABLE: Final = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)


class RawMailSender:
    """
    Sends messages; a `sesguard.core.interfaces.RawSender`.

    Args:
        profile: Named profile of the AWS configuration; None for the default search.
        endpoint_url: Instead of AWS_ENDPOINT_URL.
        access_key: Access key id and secret key, instead of the default search.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        endpoint_url: str | None = None,
        access_key: tuple[str, Secret] | None = None,
    ) -> None:
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._access_key = access_key
        self._lock = threading.Lock()
        self._clients: dict[str, SESV2Client] = {}

    def send(
        self, region: str, envelope_sender: str, recipients: Sequence[str], message: bytes
    ) -> str:
        """See `RawSender`."""
        request: SendEmailRequestTypeDef = {
            "Destination": {"ToAddresses": list(recipients)},
            "Content": {"Raw": {"Data": message}},
        }
        if envelope_sender:
            request["FromEmailAddress"] = envelope_sender
        client = self._client(region)
        try:
            with aws_errors("ses:SendEmail"):
                return client.send_email(**request)["MessageId"]
        except AwsTransient as error:
            if isinstance(error.__cause__, _UNREACHABLE):
                raise TemporaryFailure(
                    "cannot reach the SES API in {region}", region=region
                ) from error
            raise

    def _client(self, region: str) -> SESV2Client:
        # A boto3 session is not for several threads; its clients are.
        with self._lock:
            if region not in self._clients:
                session = _MailSession(
                    region,
                    self._profile,
                    endpoint_url=self._endpoint_url,
                    access_key=self._access_key,
                )
                self._clients[region] = session.mail
            return self._clients[region]


class _MailSession(AwsSession):
    """An identity with a client for what must not be repeated."""

    @cached_property
    def mail(self) -> SESV2Client:
        """SES, version 2 of its API; one attempt."""
        config = Config(
            connect_timeout=COMMAND.connect_s,
            read_timeout=ANSWER_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=MAX_CONNECTIONS,
            user_agent_extra=f"sesguard/{__version__}",
        )
        with aws_errors("sesv2"):
            return self._session.client("sesv2", config=config, **self._place)

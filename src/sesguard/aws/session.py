"""
One AWS identity in one region, and its clients.

Endpoints and credentials are found by the standard ways (AWS_ENDPOINT_URL*, environment, profile,
instance role). Time-outs: 5 s to connect, 20 s for an answer; up to four attempts with back-off for
what botocore holds to be temporary. Clients are made once and may be used by several threads.

A client for calls that must not be repeated blindly has one attempt: an answer that got lost may
mean that the call took effect, and the caller has to look.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

from sesguard import __version__
from sesguard.aws.errors import aws_errors
from sesguard.core.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_ses import SESClient

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 20
ATTEMPTS: Final = 4


class AwsSession:
    """
    Makes clients.

    Args:
        region: AWS region of the calls.
        profile: Named profile of the AWS configuration; None for the default search.
        endpoint_url: Instead of AWS_ENDPOINT_URL.
        access_key: Access key id and secret key, instead of the default search.

    Raises:
        AwsPermanent: There is no such profile.
    """

    def __init__(
        self,
        region: str,
        profile: str | None = None,
        *,
        endpoint_url: str | None = None,
        access_key: tuple[str, Secret] | None = None,
    ) -> None:
        self.region: Final = region
        self._endpoint_url = endpoint_url
        key_id, secret_key = access_key if access_key is not None else (None, None)
        with aws_errors("a session"):
            self._session = boto3.Session(
                aws_access_key_id=key_id,
                aws_secret_access_key=None if secret_key is None else secret_key.reveal(),
                profile_name=profile,
                region_name=region,
            )

    @cached_property
    def iam(self) -> IAMClient:
        """IAM."""
        with aws_errors("iam"):
            return self._session.client(
                "iam", endpoint_url=self._endpoint_url, config=_config(ATTEMPTS)
            )

    @cached_property
    def iam_once(self) -> IAMClient:
        """IAM, for calls that must not be repeated blindly."""
        with aws_errors("iam"):
            return self._session.client("iam", endpoint_url=self._endpoint_url, config=_config(1))

    @cached_property
    def ses(self) -> SESClient:
        """SES, version 1 of its API."""
        with aws_errors("ses"):
            return self._session.client(
                "ses", endpoint_url=self._endpoint_url, config=_config(ATTEMPTS)
            )


def _config(attempts: int) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra=f"sesguard/{__version__}",
    )

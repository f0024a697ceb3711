"""
One AWS identity in one region, and its clients.

`AwsSession.in_region` gives the same identity in another region: the events of IAM, for one, are
found in us-east-1 only.

Endpoints and credentials are found by the standard ways (AWS_ENDPOINT_URL*, environment, profile,
instance role). Time-outs: 5 s to connect to an address, 20 s for an answer; up to four attempts
with back-off for what botocore holds to be temporary. Where somebody waits for the start of a
daemon (`START`) a call that nobody answers is given up within 45 s. Clients are made once and may
be used by several threads.

A client for calls that must not be repeated blindly has one attempt: an answer that got lost may
mean that the call took effect, and the caller has to look.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.credentials import RefreshableCredentials

from sesguard import __version__
from sesguard.aws.errors import aws_errors
from sesguard.core.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sesv2 import SESV2Client
    from mypy_boto3_sts import STSClient


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is waited for."""

    connect_s: float
    """For each address of the endpoint."""
    read_s: float
    attempts: int


COMMAND: Final = Patience(connect_s=5, read_s=20, attempts=4)
"""A command, which a person can stop."""
START: Final = Patience(connect_s=4, read_s=10, attempts=3)
"""The start of a daemon, which systemd gives 90 s and tries again."""


class AwsSession:
    """
    Makes clients.

    Args:
        region: AWS region of the calls.
        profile: Named profile of the AWS configuration; None for the default search.
        endpoint_url: Instead of AWS_ENDPOINT_URL.
        access_key: Access key id and secret key, instead of the default search.
        shared: Credentials of another session, instead of `profile` and `access_key`.
        patience: Of the calls that may be repeated.

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
        shared: boto3.Session | None = None,
        patience: Patience = COMMAND,
    ) -> None:
        self.region: Final = region
        self._endpoint_url = endpoint_url
        self._patience = patience
        self._session = shared or _boto_session(profile, access_key)

    def in_region(self, region: str) -> AwsSession:
        """The same identity in another region; it shares the credentials, not the clients."""
        if region == self.region:
            return self
        return AwsSession(
            region,
            endpoint_url=self._endpoint_url,
            shared=self._session,
            patience=self._patience,
        )

    @property
    def static_key(self) -> str | None:
        """Id of the long-lived access key that calls are signed with; None when none is."""
        with aws_errors("the credentials"):
            found = self._session.get_credentials()
        # Those that are fetched anew now and then are temporary; to look would fetch them.
        if found is None or isinstance(found, RefreshableCredentials):
            return None
        return found.access_key

    @cached_property
    def iam(self) -> IAMClient:
        """IAM."""
        with aws_errors("iam"):
            return self._session.client("iam", config=self._config(), **self._place)

    @cached_property
    def iam_once(self) -> IAMClient:
        """IAM, for calls that must not be repeated blindly."""
        with aws_errors("iam"):
            return self._session.client("iam", config=self._config(attempts=1), **self._place)

    @cached_property
    def ses(self) -> SESClient:
        """SES, version 1 of its API."""
        with aws_errors("ses"):
            return self._session.client("ses", config=self._config(), **self._place)

    @cached_property
    def sesv2(self) -> SESV2Client:
        """SES, version 2 of its API."""
        with aws_errors("sesv2"):
            return self._session.client("sesv2", config=self._config(), **self._place)

    @cached_property
    def cloudtrail(self) -> Any:
        """CloudTrail; untyped, because its stubs are not worth a package for one call."""
        with aws_errors("cloudtrail"):
            return self._session.client("cloudtrail", config=self._config(), **self._place)

    @cached_property
    def kms(self) -> KMSClient:
        """KMS."""
        with aws_errors("kms"):
            return self._session.client("kms", config=self._config(), **self._place)

    @cached_property
    def secretsmanager(self) -> SecretsManagerClient:
        """Secrets Manager."""
        with aws_errors("secretsmanager"):
            return self._session.client("secretsmanager", config=self._config(), **self._place)

    @cached_property
    def sts(self) -> STSClient:
        """STS, which tells who calls; one attempt, because that is asked when something failed."""
        with aws_errors("sts"):
            return self._session.client("sts", config=self._config(attempts=1), **self._place)

    @property
    def _place(self) -> dict[str, Any]:
        return {"region_name": self.region, "endpoint_url": self._endpoint_url}

    def _config(self, *, attempts: int | None = None) -> Config:
        wanted = attempts or self._patience.attempts
        return Config(
            connect_timeout=self._patience.connect_s,
            read_timeout=self._patience.read_s,
            retries={"mode": "standard", "total_max_attempts": wanted},
            user_agent_extra=f"sesguard/{__version__}",
        )


def _boto_session(profile: str | None, access_key: tuple[str, Secret] | None) -> boto3.Session:
    key_id, secret_key = access_key if access_key is not None else (None, None)
    with aws_errors("a session"):
        return boto3.Session(
            aws_access_key_id=key_id,
            aws_secret_access_key=None if secret_key is None else secret_key.reveal(),
            profile_name=profile,
        )

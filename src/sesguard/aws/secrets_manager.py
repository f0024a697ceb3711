"""
One secret in AWS Secrets Manager.

A secret has versions, and stages (labels) that point at them: AWSCURRENT is what everybody reads,
AWSPENDING what a rotation is making, AWSPREVIOUS what was current before. A rotation's token is the
id of the version it makes. A version may be pending and have no value yet. One without a stage is
deprecated: AWS deletes it some time, and until then gives it to whoever knows its id.

Every read names its stage, so that a reader never gets another version by default. Everything
raises the classes of `sesguard.aws.errors`.

Limits: a value has at most 65,536 bytes; AWS asks for no more than one new value in ten minutes.

Source: the AWS Secrets Manager guide, "Rotation by Lambda function".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sesguard.aws.errors import AwsMissing, aws_errors
from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret
from sesguard.errors import AwsPermanent

CURRENT: Final = "AWSCURRENT"
PENDING: Final = "AWSPENDING"
PREVIOUS: Final = "AWSPREVIOUS"


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """What is known of a secret without its values."""

    arn: str
    rotation_enabled: bool
    stages: Mapping[str, tuple[str, ...]]
    """Stages of each version, by its id. A version without a stage may be missing."""
    deletion_scheduled: bool = False
    """Nothing can be read or changed until the secret is restored."""

    def version_in(self, stage: str) -> str | None:
        """The version that the stage points at, or None."""
        return next((version for version, found in self.stages.items() if stage in found), None)


class ManagedSecret:
    """
    The calls.

    Args:
        session: Its region is the secret's.
        secret_id: Name or ARN.
    """

    def __init__(self, session: AwsSession, secret_id: str) -> None:
        self._session = session
        self.secret_id: Final = secret_id

    def describe(self) -> SecretFacts:
        """
        What is known of it.

        Raises:
            AwsMissing: There is no such secret.
        """
        with aws_errors("secretsmanager:DescribeSecret"):
            answer = self._session.secretsmanager.describe_secret(SecretId=self.secret_id)
        stages = answer.get("VersionIdsToStages", {})
        return SecretFacts(
            answer["ARN"],
            answer.get("RotationEnabled", False),
            {version: tuple(found) for version, found in stages.items()},
            answer.get("DeletedDate") is not None,
        )

    def ensure_exists(self, description: str) -> None:
        """Make the secret, under its name and without a version, if there is none."""
        try:
            with aws_errors("secretsmanager:CreateSecret"):
                self._session.secretsmanager.create_secret(
                    Name=self.secret_id, Description=description
                )
        except AwsPermanent as error:
            if error.parameters["code"] != "ResourceExistsException":
                raise

    def read(self, *, stage: str, version_id: str | None = None) -> Secret | None:
        """
        Read a value.

        Args:
            stage: The version must have it.
            version_id: The version must be this one; None for whichever has the stage.

        Returns:
            None when there is no such version, or it has no value yet.

        Raises:
            AwsMissing: There is no such secret.
            AwsPermanent: The value is not text, or the secret is about to be deleted.
        """
        wanted: dict[str, Any] = {} if version_id is None else {"VersionId": version_id}
        try:
            with aws_errors("secretsmanager:GetSecretValue"):
                answer = self._session.secretsmanager.get_secret_value(
                    SecretId=self.secret_id, VersionStage=stage, **wanted
                )
        except AwsPermanent as error:
            if self._is_no_such_version(error, stage, version_id):
                return None
            raise
        if "SecretString" not in answer:
            raise AwsPermanent(
                "the value of {secret} is not text",
                secret=self.secret_id,
                operation="secretsmanager:GetSecretValue",
                code="SecretBinary",
            )
        return Secret(answer["SecretString"])

    def put_pending(self, token: str, value: Secret) -> None:
        """
        Give the version `token` its value, and make it the pending one. May be repeated.

        The first version of a secret becomes the current one as well.

        Raises:
            AwsPermanent: The version has another value already (``ResourceExistsException``).
        """
        self._put(token, value, PENDING)

    def put_current(self, token: str, value: Secret) -> None:
        """
        Give the version `token` its value, and make it the current one. May be repeated.

        Raises:
            AwsPermanent: The version has another value already (``ResourceExistsException``).
        """
        self._put(token, value, CURRENT)

    def move_current(self, *, to: str, away_from: str | None) -> None:
        """
        Make a version the current one; the one before becomes AWSPREVIOUS. May be repeated.

        Args:
            to: Id of the version.
            away_from: Id of the version that is current now; None when none is.

        Raises:
            AwsPermanent: Another version is current, or there is no version `to`.
        """
        wanted: dict[str, Any] = {} if away_from is None else {"RemoveFromVersionId": away_from}
        try:
            with aws_errors("secretsmanager:UpdateSecretVersionStage"):
                self._session.secretsmanager.update_secret_version_stage(
                    SecretId=self.secret_id, VersionStage=CURRENT, MoveToVersionId=to, **wanted
                )
        except AwsPermanent:
            # A repeated call is refused, also botocore's own repetition after a lost answer.
            if self.describe().version_in(CURRENT) != to:
                raise

    def remove_stage(self, stage: str, *, away_from: str) -> None:
        """
        Take a stage from a version, which keeps its value.

        Raises:
            AwsPermanent: The version has not that stage.
        """
        with aws_errors("secretsmanager:UpdateSecretVersionStage"):
            self._session.secretsmanager.update_secret_version_stage(
                SecretId=self.secret_id, VersionStage=stage, RemoveFromVersionId=away_from
            )

    def _put(self, token: str, value: Secret, stage: str) -> None:
        with aws_errors("secretsmanager:PutSecretValue"):
            self._session.secretsmanager.put_secret_value(
                SecretId=self.secret_id,
                ClientRequestToken=token,
                SecretString=value.reveal(),
                VersionStages=[stage],
            )

    def _is_no_such_version(self, error: AwsPermanent, stage: str, version_id: str | None) -> bool:
        """
        Whether it was the version that is missing.

        A missing secret has the same code as a missing version, and a secret about to be deleted
        the same as a version without the stage. A pending version may have no value.
        """
        if isinstance(error, AwsMissing):
            self.describe()
            return True
        if version_id is None or error.parameters["code"] != "InvalidRequestException":
            return False
        return stage not in self.describe().stages.get(version_id, ())

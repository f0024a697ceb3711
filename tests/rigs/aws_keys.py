"""AWS as the key providers ``kms`` and ``secretsmanager`` meet it in a sandbox."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.session import AwsSession, Patience
from sesguard.core.secret import Secret
from sesguard.errors import Error
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.process import ADMIN_ACCESS_KEY

SECRET = "sesguard/mail1"
ONCE = Patience(connect_s=4, read_s=10, attempts=1)
"""To repeat a call takes time."""
Connect = Callable[[], AwsSession]


def as_root(rig: SandboxRig, region: str = "us-east-1") -> Connect:
    """The root user, who may everything."""
    return _as_key(rig, ADMIN_ACCESS_KEY, Secret(ADMIN_ACCESS_KEY), region)


def as_user(rig: SandboxRig, *statements: Mapping[str, Any]) -> Connect:
    """A new user with these statements as its policy."""
    iam = rig.aws("iam")
    name = f"host{len(iam.list_users()['Users'])}"
    whole = [{"Effect": "Allow", "Resource": "*", **each} for each in statements]
    document = {"Version": "2012-10-17", "Statement": whole}
    iam.create_user(UserName=name)
    if whole:
        iam.put_user_policy(
            UserName=name, PolicyName="vault-key", PolicyDocument=json.dumps(document)
        )
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return _as_key(rig, key["AccessKeyId"], Secret(key["SecretAccessKey"]))


def _as_key(rig: SandboxRig, key_id: str, secret_key: Secret, region: str = "us-east-1") -> Connect:
    return lambda: AwsSession(
        region,
        endpoint_url=rig.info.endpoint_url,
        access_key=(key_id, secret_key),
        patience=ONCE,
    )


@contextmanager
def outage(
    rig: SandboxRig, operation: str = "*", kind: ApiFaultKind = ApiFaultKind.UNREACHABLE
) -> Iterator[None]:
    """For the length of a block that call fails."""
    rig.client.set_api_faults(ApiFault(operation, kind, count=None))
    try:
        yield
    finally:
        rig.client.clear_api_faults()


def failure(kind: type[Error], act: Callable[[], object]) -> str:
    """Error and hint of what fails."""
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.hint
    return f"{caught.value}\n{caught.value.hint}"


def stages(secrets: Any) -> list[list[str]]:
    """The stages of all versions that have any."""
    versions = secrets.describe_secret(SecretId=SECRET)["VersionIdsToStages"]
    return sorted(sorted(each) for each in versions.values() if each)


def value(secrets: Any, stage: str = "AWSCURRENT") -> str:
    """What the secret holds."""
    return str(secrets.get_secret_value(SecretId=SECRET, VersionStage=stage)["SecretString"])

"""The Secrets Manager provider: the policies of its page, and the region of its secret."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from rigs.aws_keys import SECRET as NAME
from rigs.aws_keys import Connect, as_root, as_user, failure, stages, value
from rigs.sandbox import SandboxRig
from sesguard.config.schema import AwsSettings, SecretsManagerSettings, Settings, VaultSettings
from sesguard.errors import KeyProviderDenied, SettingsError
from sesguard.testing.key_provider_suite import CONTEXT
from sesguard.vault.opening import make_provider
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.secretsmanager import SecretsManagerProvider

PAGE: Final = Path(__file__).parents[3] / "docs" / "reference" / "aws-key.md"
LINE: Final = re.compile(r"sesguard-key/1 [A-Za-z0-9+/]{43}=")
Make = Callable[..., SecretsManagerProvider]


@pytest.fixture
def secrets(rig: SandboxRig) -> Any:
    """Secrets Manager, as root."""
    return rig.aws("secretsmanager")


@pytest.fixture
def make(rig: SandboxRig) -> Make:
    """Makes a provider, as another process has it."""

    def make(connect: Connect | None = None) -> SecretsManagerProvider:
        return SecretsManagerProvider(NAME, connect or as_root(rig))

    return make


class TestPolicies:
    """The policies of the documentation are enough, and no more than that."""

    @pytest.fixture
    def policies(self) -> list[dict[str, Any]]:
        """To read, and to make or change the key."""
        text = PAGE.read_text().partition("## secretsmanager")[2]
        found = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
        return [json.loads(each)["Statement"][0] for each in found]

    def test_reading(
        self, rig: SandboxRig, make: Make, policies: list[dict[str, Any]], wrapped: bytes
    ) -> None:
        """The first one opens the vault and cannot change its key."""
        host = make(connect=as_user(rig, policies[0]))

        assert bytes(32) == host.unwrap(wrapped, CONTEXT)
        assert f"allow secretsmanager:PutSecretValue on {NAME}" in failure(
            KeyProviderDenied, host.prepare_next
        )

    def test_changing(
        self, secrets: Any, rig: SandboxRig, make: Make, policies: list[dict[str, Any]]
    ) -> None:
        """The second one fills an empty secret, and changes the key."""
        secrets.create_secret(Name=NAME)
        host = make(connect=as_user(rig, policies[1]))

        assert host.ensure_key()
        host.prepare_next()
        host.promote_next()

        assert [["AWSCURRENT"]] == stages(secrets)

    def test_missing_secret(
        self, rig: SandboxRig, make: Make, policies: list[dict[str, Any]]
    ) -> None:
        """AWS does not tell it from one that is not allowed; the hint says so."""
        host = make(connect=as_user(rig, policies[1]))

        text = failure(KeyProviderDenied, host.ensure_key)

        assert f"allow secretsmanager:DescribeSecret on {NAME}" in text
        assert "see that it exists" in text

    def test_secret_that_may_not_be_made(self, rig: SandboxRig, make: Make) -> None:
        """The right that is missing is named."""
        host = make(connect=as_user(rig, {"Action": "secretsmanager:DescribeSecret"}))

        assert f"allow secretsmanager:CreateSecret on {NAME}" in failure(
            KeyProviderDenied, host.ensure_key
        )


def provider_of(own: SecretsManagerSettings, aws: AwsSettings | None = None) -> KeyProvider:
    """What the settings give."""
    vault = VaultSettings(key_provider="secretsmanager", secretsmanager=own)
    return make_provider(Settings(vault=vault, aws=aws or AwsSettings()))


def test_region_is_needed() -> None:
    """Where neither the settings nor an ARN have it."""
    with pytest.raises(SettingsError, match=r"vault\.secretsmanager\.region is not set"):
        provider_of(SecretsManagerSettings())


@pytest.mark.parametrize(
    ("secret_id", "own", "of_aws"),
    [
        (NAME, None, "eu-west-1"),
        (NAME, "eu-west-1", "us-east-1"),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:x", None, "us-east-1"),
    ],
)
def test_region_is_found(
    rig: SandboxRig,
    monkeypatch: pytest.MonkeyPatch,
    secret_id: str,
    own: str | None,
    of_aws: str,
) -> None:
    """Its own setting, then the ARN, then that of the table for AWS."""
    for name, setting in rig.sandbox.environment().items():
        monkeypatch.setenv(name, setting)
    secrets = rig.aws("secretsmanager", region_name="eu-west-1")
    arn = secrets.create_secret(Name=NAME)["ARN"]

    provider = provider_of(
        SecretsManagerSettings(secret_id=arn if "arn" in secret_id else secret_id, region=own),
        AwsSettings(region=of_aws),
    )

    assert provider.ensure_key()
    assert LINE.fullmatch(value(secrets))

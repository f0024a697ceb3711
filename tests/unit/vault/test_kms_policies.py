"""The KMS provider: the policies of its page, and the way from the settings to it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from rigs.aws_keys import Connect, as_root, as_user
from rigs.sandbox import SandboxRig
from sesguard.config.schema import AwsSettings, KmsSettings, Settings, VaultSettings
from sesguard.errors import KeyProviderDenied, SettingsError
from sesguard.testing.key_provider_suite import CONTEXT
from sesguard.vault.opening import make_provider
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.kms import KmsProvider

PAGE: Final = Path(__file__).parents[3] / "docs" / "reference" / "aws-key.md"
Make = Callable[..., KmsProvider]


@pytest.fixture
def key_arn(rig: SandboxRig) -> str:
    """A KMS key."""
    return str(rig.aws("kms").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "vault-key.kms"


@pytest.fixture
def make(rig: SandboxRig, key_arn: str, path: Path) -> Make:
    """Makes a provider, as another process has it."""

    def make(connect: Connect | None = None) -> KmsProvider:
        return KmsProvider(path, key_arn, connect or as_root(rig))

    return make


def first_line(path: Path) -> list[str]:
    """Format, ARN and id in the file."""
    return path.read_text().partition("\n")[0].split(" ")


class TestPolicies:
    """The policies of the documentation are enough, and no more than that."""

    @pytest.fixture
    def policies(self, key_arn: str) -> list[dict[str, Any]]:
        """To read, and to make or change the key."""
        text = PAGE.read_text().partition("## secretsmanager")[0]
        found = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
        statements: list[dict[str, Any]] = [json.loads(each)["Statement"][0] for each in found]
        return [{**each, "Resource": key_arn} for each in statements]

    def test_reading(
        self, rig: SandboxRig, make: Make, policies: list[dict[str, Any]], wrapped: bytes
    ) -> None:
        """The first one opens the vault and cannot change its key."""
        host = make(connect=as_user(rig, policies[0]))

        assert bytes(32) == host.unwrap(wrapped, CONTEXT)
        with pytest.raises(KeyProviderDenied) as caught:
            host.prepare_next()
        assert "allow kms:GenerateDataKey on arn:aws:kms" in str(caught.value.hint)

    def test_changing(self, rig: SandboxRig, make: Make, policies: list[dict[str, Any]]) -> None:
        """The second one makes and changes the key."""
        host = make(connect=as_user(rig, policies[1]))

        assert host.ensure_key()
        host.prepare_next()
        host.promote_next()

    def test_one_host_of_several(
        self,
        rig: SandboxRig,
        make: Make,
        path: Path,
        policies: list[dict[str, Any]],
        wrapped: bytes,
    ) -> None:
        """With the id of the file in the condition no other file can be decrypted."""
        condition = {"StringEquals": {"kms:EncryptionContext:id": first_line(path)[2]}}
        connect = as_user(rig, {**policies[0], "Condition": condition})
        make(connect=connect).load()
        path.unlink()
        make().ensure_key()

        with pytest.raises(KeyProviderDenied):
            make(connect=connect).load()


class TestSettings:
    """From the settings to the provider."""

    @staticmethod
    def provider(kms: KmsSettings, aws: AwsSettings | None = None) -> KeyProvider:
        """What the settings give."""
        vault = VaultSettings(key_provider="kms", kms=kms)
        return make_provider(Settings(vault=vault, aws=aws or AwsSettings()))

    def test_key_is_needed(self) -> None:
        """Nothing can be guessed of it."""
        with pytest.raises(SettingsError, match=r"vault\.kms\.key_id is not set"):
            self.provider(KmsSettings())

    @pytest.mark.parametrize("key_id", ["alias/vault", "arn:short"])
    def test_region_is_needed(self, key_id: str) -> None:
        """Where neither the settings nor an ARN have it."""
        with pytest.raises(SettingsError, match=r"vault\.kms\.region is not set"):
            self.provider(KmsSettings(key_id=key_id))

    @pytest.mark.parametrize(
        ("key_region", "own", "of_aws", "expected"),
        [
            (None, None, "eu-west-1", "eu-west-1"),
            ("eu-west-2", None, "eu-west-1", "eu-west-2"),
            ("eu-west-2", "eu-west-3", "eu-west-1", "eu-west-3"),
        ],
    )
    def test_region_is_found(
        self,
        rig: SandboxRig,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        key_region: str | None,
        own: str | None,
        of_aws: str,
        expected: str,
    ) -> None:
        """Its own setting, then the ARN, then that of the table for AWS."""
        for name, value in rig.sandbox.environment().items():
            monkeypatch.setenv(name, value)
        kms = rig.aws("kms", region_name=expected)
        key = kms.create_key()["KeyMetadata"]
        key_id = key["Arn"].replace(expected, key_region) if key_region else key["KeyId"]

        provider = self.provider(
            KmsSettings(path=path, key_id=key_id, region=own), AwsSettings(region=of_aws)
        )

        assert provider.ensure_key()
        assert f":{expected}:" in first_line(path)[1]
        assert str(path) == provider.place


def test_aws_is_not_loaded_for_other_providers() -> None:
    """A daemon whose key lies in a file goes without boto3 and its 15 MB."""
    program = (
        "import sys; from sesguard.config.schema import Settings;"
        " from sesguard.vault.opening import make_provider; make_provider(Settings());"
        " sys.exit('botocore' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode

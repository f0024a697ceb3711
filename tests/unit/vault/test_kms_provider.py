"""The KMS provider: the contract of every key provider, its file, and what KMS may answer."""

import base64
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.aws_keys import Connect, as_root, as_user, failure, outage
from rigs.sandbox import SandboxRig
from sesguard.aws.session import AwsSession
from sesguard.errors import (
    Error,
    KeyProviderDenied,
    KeyProviderUnavailable,
    SystemFault,
    VaultTampered,
    WrongKey,
)
from sesguard.sandbox.model import ApiFaultKind
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.kms import KmsProvider, _same_everywhere

Make = Callable[..., KmsProvider]


@pytest.fixture
def kms(rig: SandboxRig) -> Any:
    """KMS, as root."""
    return rig.aws("kms")


@pytest.fixture
def key_arn(kms: Any) -> str:
    """A KMS key."""
    return str(kms.create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "vault-key.kms"


@pytest.fixture
def make(rig: SandboxRig, key_arn: str, path: Path) -> Make:
    """Makes a provider, as another process has it."""

    def make(key_id: str = key_arn, connect: Connect | None = None) -> KmsProvider:
        return KmsProvider(path, key_id, connect or as_root(rig))

    return make


class TestKmsProvider(KeyProviderContract):
    """The contract."""

    @pytest.fixture
    def provider(self, make: Make) -> KeyProvider:
        provider = make()
        provider.ensure_key()
        return provider

    @pytest.fixture
    def fresh(self, make: Make) -> KeyProvider:
        return make()

    @pytest.fixture
    def other_provider(self, rig: SandboxRig, key_arn: str, tmp_path: Path) -> KeyProvider:
        other = KmsProvider(tmp_path / "other.kms", key_arn, as_root(rig))
        other.ensure_key()
        return other


def lines(path: Path) -> tuple[str, str, str]:
    """ARN, id and data of the file."""
    match = re.fullmatch(r"sesguard-kms/1 (\S+) ([0-9a-f]{32})\n(\S+)\n", path.read_text())
    assert match
    return match[1], match[2], match[3]


def alter(path: Path, arn: str, key_id: str, data: str) -> None:
    """Put other parts into the file."""
    path.write_text(f"sesguard-kms/1 {arn} {key_id}\n{data}\n")


@pytest.mark.usefixtures("wrapped")
class TestFile:
    """What is in the file, and what it may not become."""

    def test_is_private_and_without_a_key(self, kms: Any, key_arn: str, path: Path) -> None:
        """It has the ARN, a random id and a ciphertext, which need KMS and the context."""
        arn, key_id, data = lines(path)
        key = kms.decrypt(
            KeyId=key_arn,
            CiphertextBlob=base64.b64decode(data),
            EncryptionContext={"purpose": "sesguard-vault-key", "id": key_id},
        )["Plaintext"]

        assert key_arn == arn
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert 32 == len(key)
        assert base64.b64encode(key).decode() not in path.read_text()

    @pytest.mark.parametrize("spelling", ["arn", "id", "alias", "alias arn"])
    def test_key_may_be_named_in_every_way(
        self, kms: Any, make: Make, wrapped: bytes, key_arn: str, spelling: str
    ) -> None:
        """The key in the settings is compared by what KMS says that it is."""
        kms.create_alias(AliasName="alias/vault", TargetKeyId=key_arn)
        before, _, key_id = key_arn.rpartition("key/")
        name = {
            "arn": key_arn,
            "id": key_id,
            "alias": "alias/vault",
            "alias arn": f"{before}alias/vault",
        }[spelling]

        assert bytes(32) == make(name).unwrap(wrapped, CONTEXT)

    def test_another_key_is_never_used(self, kms: Any, make: Make, key_arn: str) -> None:
        """Not in the settings, and not behind an alias that was moved: the hint has a way out."""
        other = kms.create_key()["KeyMetadata"]["Arn"]
        kms.create_alias(AliasName="alias/vault", TargetKeyId=other)

        for name in (other, "alias/vault"):
            text = failure(WrongKey, make(name).load)
            assert f"another KMS key than {name}" in text
            assert "set vault.kms.key_id to the ARN" in text

    def test_file_does_not_choose_the_key(
        self, kms: Any, rig: SandboxRig, make: Make, path: Path, key_arn: str
    ) -> None:
        """A file that was made with another KMS key, whatever it claims, is of no use."""
        other = kms.create_key()["KeyMetadata"]["Arn"]
        path.unlink()
        KmsProvider(path, other, as_root(rig)).ensure_key()
        _, key_id, data = lines(path)

        for claimed in (other, key_arn):
            alter(path, claimed, key_id, data)
            failure(WrongKey, make().load)

    def test_claim_of_another_key_is_refused(self, kms: Any, make: Make, path: Path) -> None:
        """The ARN in the file is that of the key which decrypts."""
        other = kms.create_key()["KeyMetadata"]["Arn"]
        _, key_id, data = lines(path)
        alter(path, other, key_id, data)

        failure(WrongKey, make().load)

    def test_ciphertexts_of_two_files_cannot_be_exchanged(
        self, make: Make, tmp_path: Path, path: Path, rig: SandboxRig
    ) -> None:
        """Two hosts under one KMS key have ids of their own."""
        arn, key_id, _ = lines(path)
        other = tmp_path / "other"
        KmsProvider(other, arn, as_root(rig)).ensure_key()
        alter(path, arn, key_id, lines(other)[2])

        text = failure(VaultTampered, make().load)

        assert f"{path} was changed" in text
        assert "put" in text

    def test_changed_ciphertext_is_noticed(self, make: Make, path: Path) -> None:
        """In its head or in its tail."""
        arn, key_id, data = lines(path)
        ciphertext = base64.b64decode(data)
        for index in (0, len(ciphertext) // 2, len(ciphertext) - 1):
            changed = bytearray(ciphertext)
            changed[index] ^= 1
            alter(path, arn, key_id, base64.b64encode(changed).decode())
            failure(VaultTampered, make().load)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"sesguard-key/1 AAAA\n",
            b"sesguard-kms/1 arn:x 00\nAAAA\n",
            b"sesguard-kms/1 arn:x " + b"0" * 32 + b"\nA\n",
            b"sesguard-kms/1 arn:x " + b"0" * 32 + b"\n\n",
            b"sesguard-kms/1 arn:x " + b"0" * 32 + b"\nAAAA",
            b"sesguard-kms/2 arn:x " + b"0" * 32 + b"\nAAAA\n",
            b"\xff" * 40,
        ],
    )
    def test_what_is_no_such_file_is_not_sent_to_kms(
        self, rig: SandboxRig, make: Make, path: Path, content: bytes
    ) -> None:
        """It is told from an outage: KMS is not asked."""
        path.write_bytes(content)

        with outage(rig):
            assert "holds no vault key" in failure(KeyProviderUnavailable, make().load)

    def test_loose_file_is_refused(self, make: Make, path: Path) -> None:
        """As private as every other key file."""
        path.chmod(0o644)

        failure(SystemFault, make().load)


class TestKey:
    """What happens to the KMS key."""

    def test_new_material_changes_nothing(
        self, kms: Any, make: Make, key_arn: str, wrapped: bytes
    ) -> None:
        """Rotation at KMS is harmless."""
        kms.enable_key_rotation(KeyId=key_arn)
        kms.rotate_key_on_demand(KeyId=key_arn)

        assert bytes(32) == make().unwrap(wrapped, CONTEXT)

    def test_disabled_key(self, kms: Any, make: Make, key_arn: str, wrapped: bytes) -> None:
        """Denied, with the command that enables it; after that it opens."""
        key_id = key_arn.rpartition("/")[2]
        kms.disable_key(KeyId=key_id)

        text = failure(KeyProviderDenied, make().load)
        kms.enable_key(KeyId=key_id)

        assert f"the KMS key {key_arn} is disabled" in text
        assert f"aws kms enable-key --key-id {key_arn}" in text
        assert bytes(32) == make().unwrap(wrapped, CONTEXT)

    @pytest.mark.usefixtures("wrapped")
    def test_key_about_to_be_deleted(self, kms: Any, make: Make, key_arn: str) -> None:
        """Denied, with the commands that keep it."""
        kms.schedule_key_deletion(KeyId=key_arn.rpartition("/")[2], PendingWindowInDays=7)

        text = failure(KeyProviderDenied, make().load)

        assert "pending deletion" in text
        assert f"aws kms cancel-key-deletion --key-id {key_arn}" in text

    @pytest.mark.parametrize("name", ["alias/none", "0a1b2c3d-0000-4000-8000-000000000000"])
    def test_key_that_is_not_there(self, make: Make, path: Path, name: str) -> None:
        """The settings are wrong, or the key was deleted; no file is made."""
        text = failure(KeyProviderUnavailable, make(name).ensure_key)

        assert f"{name} is no symmetric KMS key" in text
        assert "vault.kms.key_id" in text
        assert not path.exists()

    def test_key_with_two_halves(self, kms: Any, make: Make) -> None:
        """It makes no data keys."""
        key = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]

        assert "no symmetric KMS key" in failure(
            KeyProviderUnavailable, make(key["KeyId"]).ensure_key
        )

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("us-east-1:1:key/mrk-0a", "eu-west-1:1:key/mrk-0a", True),
            ("us-east-1:1:key/mrk-0a", "eu-west-1:1:key/mrk-0b", False),
            ("us-east-1:1:key/mrk-0a", "eu-west-1:2:key/mrk-0a", False),
            ("us-east-1:1:key/0a", "eu-west-1:1:key/0a", False),
            ("us-east-1:1:key/0a", "us-east-1:1:key/0a", True),
        ],
    )
    def test_replica_in_another_region_is_the_same_key(
        self, one: str, other: str, same: bool
    ) -> None:
        """A multi-Region key goes along when a host moves; by name, as moto cannot use one."""
        one, other = (_same_everywhere(f"arn:aws:kms:{each}") for each in (one, other))

        assert same is (one == other)


class TestAws:
    """What AWS answers besides."""

    @pytest.mark.parametrize(
        ("kind", "expected", "words"),
        [
            (ApiFaultKind.UNREACHABLE, KeyProviderUnavailable, "look at the network"),
            (ApiFaultKind.INTERNAL, KeyProviderUnavailable, "again in a minute"),
            (ApiFaultKind.THROTTLED, KeyProviderUnavailable, "again in a minute"),
            (ApiFaultKind.DENIED, KeyProviderDenied, "allow kms:Decrypt on arn:aws:kms:"),
            (ApiFaultKind.SKEWED, KeyProviderDenied, "set the clock of this host"),
        ],
    )
    @pytest.mark.usefixtures("wrapped")
    def test_failures_are_told_apart(
        self,
        rig: SandboxRig,
        make: Make,
        kind: ApiFaultKind,
        expected: type[Error],
        words: str,
    ) -> None:
        """Each with what to do, and none is kept: the next load looks again."""
        provider = make()
        with outage(rig, "kms:Decrypt", kind):
            text = failure(expected, provider.load)

        provider.load()

        assert "kms:Decrypt" in text
        assert words in text

    def test_outage_after_the_load_is_not_noticed(
        self, rig: SandboxRig, make: Make, wrapped: bytes
    ) -> None:
        """The vault key is in memory."""
        provider = make()
        provider.load()

        with outage(rig):
            assert bytes(32) == provider.unwrap(wrapped, CONTEXT)
            assert bytes(32) == provider.unwrap(provider.wrap(bytes(32), CONTEXT), CONTEXT)

    def test_outage_while_the_key_is_made_leaves_nothing(
        self, rig: SandboxRig, make: Make, path: Path
    ) -> None:
        """There is no file, and the next attempt makes one."""
        with outage(rig):
            failure(KeyProviderUnavailable, make().ensure_key)
        made_before = path.exists()

        assert not made_before
        assert make().ensure_key()

    def test_without_credentials(
        self, rig: SandboxRig, make: Make, monkeypatch: pytest.MonkeyPatch, wrapped: bytes
    ) -> None:
        """The hint names the instance role."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/nonexistent")

        text = failure(
            KeyProviderDenied,
            make(connect=lambda: AwsSession("us-east-1", endpoint_url=rig.info.endpoint_url)).load,
        )

        assert "no AWS credentials for kms:Decrypt" in text
        assert "instance role" in text

    def test_retired_access_key(self, make: Make, rig: SandboxRig, wrapped: bytes) -> None:
        """An access key that does not work is denied."""
        connect = as_user(rig, {"Action": "*"})
        make(connect=connect).load()
        iam = rig.aws("iam")
        for key in iam.list_access_keys(UserName="host0")["AccessKeyMetadata"]:
            iam.delete_access_key(UserName="host0", AccessKeyId=key["AccessKeyId"])

        assert "security token" in failure(KeyProviderDenied, make(connect=connect).load)

    def test_profile_that_is_not_there(self, make: Make, wrapped: bytes) -> None:
        """It is found out when it is needed, not when the settings are read."""
        text = failure(
            KeyProviderUnavailable,
            make(connect=lambda: AwsSession("us-east-1", "no-such-profile")).load,
        )

        assert "no-such-profile" in text

    def test_connection_is_forgotten_after_the_load(
        self, rig: SandboxRig, make: Make, wrapped: bytes
    ) -> None:
        """Nothing of AWS stays behind in a daemon that forks: each load has its own session."""
        made: list[AwsSession] = []

        def connect() -> AwsSession:
            made.append(as_root(rig)())
            return made[-1]

        provider = make(connect=connect)
        provider.load()
        provider.unwrap(wrapped, CONTEXT)
        provider.promote_next()

        assert 2 == len(made)


def test_no_failure_shows_the_key(
    rig: SandboxRig, make: Make, kms: Any, path: Path, wrapped: bytes
) -> None:
    """Neither does an error, nor the session that it came from."""
    arn, key_id, data = lines(path)
    key = kms.decrypt(
        CiphertextBlob=base64.b64decode(data),
        EncryptionContext={"purpose": "sesguard-vault-key", "id": key_id},
    )["Plaintext"]
    with outage(rig):
        text = failure(KeyProviderUnavailable, make().load)

    assert arn in text
    for shown in (key, key.hex(), base64.b64encode(key).decode(), data):
        assert str(shown) not in text

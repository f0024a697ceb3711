"""KMS and Secrets Manager as AWS has them, where moto alone would be more lenient."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rigs.sandbox import SandboxRig

CONTEXT = {"purpose": "test"}


@pytest.fixture
def kms(rig: SandboxRig) -> Any:
    """KMS, as root."""
    return rig.aws("kms")


@pytest.fixture
def key(kms: Any) -> str:
    """The id of a symmetric key; moto takes no ARN where a key is disabled."""
    return str(kms.create_key()["KeyMetadata"]["KeyId"])


def generate(kms: Any, key: str) -> bytes:
    """A data key, encrypted."""
    answer = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    return bytes(answer["CiphertextBlob"])


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    """Status and code of the refusal."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("disable_key", {}, (409, "DisabledException")),
        ("schedule_key_deletion", {"PendingWindowInDays": 7}, (409, "KMSInvalidStateException")),
    ],
)
def test_a_key_out_of_use_does_nothing(
    kms: Any, key: str, operation: str, arguments: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Disabled or about to be deleted, with its id in the call or without."""
    ciphertext = generate(kms, key)
    getattr(kms, operation)(KeyId=key, **arguments)
    decrypt = {"CiphertextBlob": ciphertext, "EncryptionContext": CONTEXT}

    assert expected == refused(kms.generate_data_key, KeyId=key, KeySpec="AES_256")
    assert expected == refused(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert expected == refused(kms.decrypt, KeyId=key, **decrypt)
    assert expected == refused(kms.decrypt, **decrypt)


def test_a_key_that_was_enabled_again_decrypts(kms: Any, key: str) -> None:
    """Nothing is lost by disabling."""
    ciphertext = generate(kms, key)
    kms.disable_key(KeyId=key)
    kms.enable_key(KeyId=key)

    assert kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT)["Plaintext"]


def test_a_key_decrypts_only_its_own(kms: Any, key: str) -> None:
    """The key that the call names has to be the one that encrypted; an alias stands for its key."""
    ciphertext = generate(kms, key)
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/other", TargetKeyId=other)
    arguments = {"CiphertextBlob": ciphertext, "EncryptionContext": CONTEXT}

    for wrong in (other, "alias/other"):
        assert (400, "IncorrectKeyException") == refused(kms.decrypt, KeyId=wrong, **arguments)
    kms.update_alias(AliasName="alias/other", TargetKeyId=key)
    assert kms.decrypt(KeyId="alias/other", **arguments)["KeyId"].endswith(f":key/{key}")
    assert (400, "NotFoundException") == refused(kms.decrypt, KeyId="alias/none", **arguments)


@pytest.mark.parametrize("change", [b"\xff" * 200, b"x", None])
def test_what_was_changed_is_not_decrypted(kms: Any, key: str, change: bytes | None) -> None:
    """Another ciphertext, or another context."""
    ciphertext = change or generate(kms, key)

    assert (400, "InvalidCiphertextException") == refused(
        kms.decrypt, KeyId=key, CiphertextBlob=ciphertext, EncryptionContext={"purpose": "other"}
    )


def test_only_symmetric_keys_make_data_keys(kms: Any) -> None:
    """A key with two halves is for other things."""
    key = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["KeyId"]

    assert (400, "InvalidKeyUsageException") == refused(
        kms.generate_data_key, KeyId=key, KeySpec="AES_256"
    )


def test_new_key_material_decrypts_what_the_old_one_encrypted(kms: Any, key: str) -> None:
    """Rotating a key changes nothing for its ciphertexts."""
    ciphertext = generate(kms, key)
    kms.enable_key_rotation(KeyId=key)
    kms.rotate_key_on_demand(KeyId=key)

    assert kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT)["Plaintext"]


def test_a_read_without_a_stage_is_of_the_current_version(rig: SandboxRig) -> None:
    """Also after the stage was moved, and the version before it becomes the previous one."""
    secrets = rig.aws("secretsmanager")
    first = secrets.create_secret(Name="x", SecretString="1")["VersionId"]
    second = secrets.put_secret_value(SecretId="x", SecretString="2", VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    secrets.update_secret_version_stage(
        SecretId="x",
        VersionStage="AWSCURRENT",
        MoveToVersionId=second,
        RemoveFromVersionId=first,
    )
    moved = secrets.get_secret_value(SecretId="x")["SecretString"]
    secrets.put_secret_value(SecretId="x", SecretString="3")
    previous = secrets.get_secret_value(SecretId="x", VersionStage="AWSPREVIOUS")["SecretString"]

    assert ("2", "2", "3") == (
        moved,
        previous,
        secrets.get_secret_value(SecretId="x")["SecretString"],
    )

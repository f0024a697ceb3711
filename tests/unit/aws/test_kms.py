"""A KMS key, through the real boto3 against the sandbox."""

from collections.abc import Mapping
from typing import Any

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws import kms
from sesguard.aws.errors import AwsMissing
from sesguard.aws.kms import DecryptedKey, KmsKey
from sesguard.errors import AwsPermanent
from sesguard.sandbox.seed import admin_session

CONTEXT = {"purpose": "test", "id": "1"}


@pytest.fixture
def arn(rig: SandboxRig) -> str:
    """The ARN of a key."""
    return str(rig.aws("kms").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def key(rig: SandboxRig, arn: str) -> KmsKey:
    """The key, by its id."""
    return KmsKey(admin_session(rig.sandbox), arn.rpartition("/")[2])


def code(key: KmsKey, ciphertext: bytes, context: Mapping[str, str]) -> str:
    """Of the refusal to decrypt."""
    with pytest.raises(AwsPermanent) as caught:
        key.decrypt(ciphertext, context)
    return str(caught.value.parameters["code"])


def test_data_keys_have_256_bits_and_are_all_different(key: KmsKey, arn: str) -> None:
    """KMS says which key it used, and gives back what it made."""
    made = [key.generate_data_key(CONTEXT) for _ in range(2)]
    found = [key.decrypt(each.ciphertext, CONTEXT) for each in made]

    assert [arn] * 2 == [each.key_arn for each in made] == [each.key_arn for each in found]
    assert [32, 32] == [len(each.key) for each in found]
    assert found[0].key != found[1].key
    assert found[0].key not in made[0].ciphertext


def test_ciphertext_is_bound_to_its_context(key: KmsKey) -> None:
    """Every pair counts."""
    ciphertext = key.generate_data_key(CONTEXT).ciphertext

    for context in ({}, {"purpose": "test"}, {**CONTEXT, "id": "2"}, {**CONTEXT, "more": "x"}):
        assert kms.INVALID_CIPHERTEXT == code(key, ciphertext, context)


def test_key_decrypts_nothing_of_another(rig: SandboxRig, key: KmsKey) -> None:
    """Although the caller may use both."""
    other = rig.aws("kms").create_key()["KeyMetadata"]["KeyId"]
    ciphertext = KmsKey(admin_session(rig.sandbox), other).generate_data_key(CONTEXT).ciphertext

    assert kms.INCORRECT_KEY == code(key, ciphertext, CONTEXT)


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("disable_key", {}, kms.DISABLED),
        ("schedule_key_deletion", {"PendingWindowInDays": 7}, kms.INVALID_STATE),
    ],
)
def test_key_out_of_use(
    rig: SandboxRig, key: KmsKey, operation: str, arguments: dict[str, Any], expected: str
) -> None:
    """The same call gets the same answer, so nothing is repeated."""
    ciphertext = key.generate_data_key(CONTEXT).ciphertext
    getattr(rig.aws("kms"), operation)(KeyId=key.key_id, **arguments)

    assert expected == code(key, ciphertext, CONTEXT)
    with pytest.raises(AwsPermanent):
        key.generate_data_key(CONTEXT)


def test_key_of_the_wrong_kind(rig: SandboxRig) -> None:
    """One with two halves makes no data keys."""
    metadata = rig.aws("kms").create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    key = KmsKey(admin_session(rig.sandbox), metadata["KeyMetadata"]["KeyId"])

    with pytest.raises(AwsPermanent) as caught:
        key.generate_data_key(CONTEXT)
    assert kms.INVALID_USAGE == caught.value.parameters["code"]


def test_key_that_is_not_there(rig: SandboxRig) -> None:
    """It is missing, not refused."""
    with pytest.raises(AwsMissing) as caught:
        KmsKey(admin_session(rig.sandbox), "alias/none").generate_data_key(CONTEXT)
    assert kms.NOT_FOUND == caught.value.parameters["code"]


def test_key_in_the_clear_is_not_shown() -> None:
    """Neither in a log nor in a traceback."""
    assert "DecryptedKey(key_arn='arn')" == repr(DecryptedKey(b"hunter2", "arn"))

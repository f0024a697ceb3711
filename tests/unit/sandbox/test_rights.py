"""IAM policies limit the calls of KMS and Secrets Manager."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rigs.sandbox import SandboxRig

CONTEXT = {"purpose": "sesguard-vault-key"}


def user(rig: SandboxRig, service: str, *statements: dict[str, Any]) -> Any:
    """A client of a user with these rights."""
    whole = [{"Effect": "Allow", "Resource": "*", **statement} for statement in statements]
    key = rig.seed(policy={"Version": "2012-10-17", "Statement": whole})
    return rig.aws(service, key)


def denial(call: Callable[..., Any], **arguments: Any) -> str:
    """What AWS says to a call that is not allowed."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert "AccessDeniedException" == caught.value.response["Error"]["Code"]
    return str(caught.value)


def test_a_user_without_a_policy_may_nothing(rig: SandboxRig) -> None:
    """The refusal names user, action and resource, and is in the trail."""
    arn = rig.aws("kms").create_key()["KeyMetadata"]["Arn"]
    kms = user(rig, "kms", {"Action": "ses:*"})

    text = denial(kms.generate_data_key, KeyId=arn, KeySpec="AES_256")

    assert ":user/ses-smtp-user" in text
    assert f"perform: kms:GenerateDataKey on resource: {arn} because no" in text
    attribute = {"AttributeKey": "EventName", "AttributeValue": "GenerateDataKey"}
    events = rig.aws("cloudtrail").lookup_events(LookupAttributes=[attribute])["Events"]
    assert ['"errorCode": "AccessDeniedException"' in event["CloudTrailEvent"] for event in events]


def test_a_kms_policy_names_the_key(rig: SandboxRig) -> None:
    """By its ARN, whatever the call calls it."""
    admin = rig.aws("kms")
    mine, other = (admin.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    admin.create_alias(AliasName="alias/mine", TargetKeyId=mine)
    kms = user(rig, "kms", {"Action": "kms:GenerateDataKey", "Resource": mine})

    for name in (mine, mine.rpartition("/")[2], "alias/mine"):
        assert mine == kms.generate_data_key(KeyId=name, KeySpec="AES_256")["KeyId"]
    denial(kms.generate_data_key, KeyId=other, KeySpec="AES_256")
    denial(kms.generate_data_key, KeyId="alias/none", KeySpec="AES_256")
    denial(kms.list_keys)


def test_a_kms_policy_asks_for_an_encryption_context(rig: SandboxRig) -> None:
    """Of one pair, and of no other name."""
    arn = rig.aws("kms").create_key()["KeyMetadata"]["Arn"]
    kms = user(
        rig,
        "kms",
        {
            "Action": "kms:GenerateDataKey",
            "Condition": {
                "StringEquals": {"kms:EncryptionContext:purpose": "sesguard-vault-key"},
                "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["purpose"]},
            },
        },
    )
    arguments = {"KeyId": arn, "KeySpec": "AES_256"}

    assert kms.generate_data_key(**arguments, EncryptionContext=CONTEXT)
    for context in ({}, {"purpose": "x"}, {**CONTEXT, "more": ""}):
        denial(kms.generate_data_key, **arguments, EncryptionContext=context)


def test_a_kms_policy_asks_for_an_alias(rig: SandboxRig) -> None:
    """By the name that the call uses."""
    admin = rig.aws("kms")
    arn = admin.create_key()["KeyMetadata"]["Arn"]
    admin.create_alias(AliasName="alias/mine", TargetKeyId=arn)
    condition = {"StringEquals": {"kms:RequestAlias": "alias/mine"}}
    kms = user(rig, "kms", {"Action": "kms:*", "Condition": condition})

    assert kms.generate_data_key(KeyId="alias/mine", KeySpec="AES_256")
    denial(kms.generate_data_key, KeyId=arn, KeySpec="AES_256")


def test_a_policy_names_the_secret(rig: SandboxRig) -> None:
    """By its ARN; a secret that does not exist looks as one that is not allowed."""
    for name in ("mine", "other"):
        rig.aws("secretsmanager").create_secret(Name=name, SecretString="x")
    resource = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine-??????"
    secrets = user(rig, "secretsmanager", {"Action": "secretsmanager:*", "Resource": resource})

    assert "x" == secrets.get_secret_value(SecretId="mine")["SecretString"]
    for name in ("other", "none"):
        denial(secrets.get_secret_value, SecretId=name)
    denial(secrets.create_secret, Name="others", SecretString="x")


def test_a_policy_lets_a_secret_be_made(rig: SandboxRig) -> None:
    """By the ARN that it will have, up to the six characters that AWS draws, and by its name."""
    resource = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine-*"
    condition = {"StringEquals": {"secretsmanager:Name": "mine"}}
    secrets = user(
        rig,
        "secretsmanager",
        {
            "Action": "secretsmanager:CreateSecret",
            "Resource": resource,
            "Condition": condition,
        },
    )

    denial(secrets.create_secret, Name="mine-too", SecretString="x")
    assert secrets.create_secret(Name="mine", SecretString="x")


def test_a_policy_asks_for_a_stage(rig: SandboxRig) -> None:
    """Without the stage in the call nothing is allowed."""
    rig.aws("secretsmanager").create_secret(Name="mine", SecretString="x")
    condition = {"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}
    secrets = user(
        rig,
        "secretsmanager",
        {"Action": "secretsmanager:GetSecretValue", "Condition": condition},
    )

    assert secrets.get_secret_value(SecretId="mine", VersionStage="AWSCURRENT")
    denial(secrets.get_secret_value, SecretId="mine")


def test_the_root_user_may_everything(rig: SandboxRig) -> None:
    """A key that the sandbox did not make is root, and no policy limits root."""
    user(rig, "kms", {"Effect": "Deny", "Action": "*"})

    assert rig.aws("kms").create_key()


def test_other_services_are_not_limited(rig: SandboxRig) -> None:
    """IAM is evaluated for two services and for SMTP."""
    assert user(rig, "sts", {"Action": "ses:*"}).get_caller_identity()

"""What moto lacks, through real boto3."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from rigs.sandbox import SandboxRig, mail
from sesguard.sandbox.overlay import is_loopback_host


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    """AWS's error code."""
    return str(error.value.response["Error"]["Code"])


def test_get_account(rig: SandboxRig) -> None:
    """Version 2 tells quota, production access and whether sending is enabled."""
    rig.client.configure(max_send_rate=14, max_24_hour_send=50_000, production_access=False)

    account = rig.aws("sesv2").get_account()

    assert {"Max24HourSend": 50000.0, "MaxSendRate": 14.0, "SentLast24Hours": 0.0} == account[
        "SendQuota"
    ]
    assert account["SendingEnabled"] is True
    assert account["ProductionAccessEnabled"] is False
    assert account["EnforcementStatus"] == "HEALTHY"


def test_the_quota_counts_what_went_by_smtp(rig: SandboxRig) -> None:
    """Both versions of the API see the recipients of the SMTP endpoint."""
    rig.send(rig.login(), recipients=("a@x.org", "b@x.org"))

    assert rig.aws("ses").get_send_quota()["SentLast24Hours"] == 2.0
    assert rig.aws("sesv2").get_account()["SendQuota"]["SentLast24Hours"] == 2.0


def test_the_account_is_paused_in_both_versions(rig: SandboxRig) -> None:
    """What one version pauses the other shows and resumes."""
    v1, v2 = rig.aws("ses"), rig.aws("sesv2")
    before = v1.get_account_sending_enabled()["Enabled"]
    v1.update_account_sending_enabled(Enabled=False)
    paused = v2.get_account()["SendingEnabled"]
    v2.put_account_sending_attributes(SendingEnabled=True)

    assert (True, False, True) == (before, paused, v1.get_account_sending_enabled()["Enabled"])


def test_sends_by_the_api_are_refused_while_paused(rig: SandboxRig) -> None:
    """A pause stops the API as well as SMTP."""
    v1, v2 = rig.aws("ses"), rig.aws("sesv2")
    v1.verify_domain_identity(Domain="example.com")
    message = {"RawMessage": {"Data": mail()}}
    assert v1.send_raw_email(**message)["MessageId"]

    v1.update_account_sending_enabled(Enabled=False)
    with pytest.raises(ClientError) as first:
        v1.send_raw_email(**message)
    with pytest.raises(ClientError) as second:
        v2.send_email(Content={"Raw": {"Data": mail()}})

    assert code_of(first) == "AccountSendingPausedException"
    assert code_of(second) == "SendingPausedException"


def test_a_configuration_set_is_paused_in_both_versions(rig: SandboxRig) -> None:
    """A set is paused by either version; version 2 shows it."""
    v1, v2 = rig.aws("ses"), rig.aws("sesv2")
    v2.create_configuration_set(ConfigurationSetName="main")
    v2.put_configuration_set_sending_options(ConfigurationSetName="main", SendingEnabled=True)
    shown = v2.get_configuration_set(ConfigurationSetName="main")["SendingOptions"]
    v1.update_configuration_set_sending_enabled(ConfigurationSetName="main", Enabled=False)
    after = v2.get_configuration_set(ConfigurationSetName="main")["SendingOptions"]

    assert {"SendingEnabled": True} == shown
    assert {"SendingEnabled": False} == after


def test_a_set_shows_whether_it_may_send(rig: SandboxRig) -> None:
    """As it was made, by default true, and as version 2 changed it; always a boolean."""
    v2 = rig.aws("sesv2")

    def shown(name: str) -> object:
        return v2.get_configuration_set(ConfigurationSetName=name)["SendingOptions"]

    v2.create_configuration_set(ConfigurationSetName="main")
    v2.create_configuration_set(
        ConfigurationSetName="made-paused", SendingOptions={"SendingEnabled": False}
    )
    rig.aws("ses").create_configuration_set(ConfigurationSet={"Name": "of-v1"})
    assert {"SendingEnabled": True} == shown("main") == shown("of-v1")
    assert {"SendingEnabled": False} == shown("made-paused")
    for enabled in (False, True):
        v2.put_configuration_set_sending_options(
            ConfigurationSetName="main", SendingEnabled=enabled
        )
        assert {"SendingEnabled": enabled} == shown("main")
    with pytest.raises(ClientError) as caught:
        shown("none")
    assert code_of(caught) == "NotFoundException"


def test_a_set_that_was_made_paused_is_paused(rig: SandboxRig) -> None:
    """SendingOptions of CreateConfigurationSet count."""
    rig.aws("sesv2").create_configuration_set(
        ConfigurationSetName="main", SendingOptions={"SendingEnabled": False}
    )
    content = mail(headers={"X-SES-CONFIGURATION-SET": "main"})

    assert rig.send(rig.login(), content)[1].startswith("Message rejected: Sending paused")


def test_a_configuration_set_that_is_not_there(rig: SandboxRig) -> None:
    """Each version has its own error for it."""
    v1, v2 = rig.aws("ses"), rig.aws("sesv2")
    v1.verify_domain_identity(Domain="example.com")
    with pytest.raises(ClientError) as first:
        v1.update_configuration_set_sending_enabled(ConfigurationSetName="none", Enabled=False)
    with pytest.raises(ClientError) as second:
        v2.put_configuration_set_sending_options(ConfigurationSetName="none")
    with pytest.raises(ClientError) as third:
        v2.put_email_identity_configuration_set_attributes(
            EmailIdentity="example.com", ConfigurationSetName="none"
        )

    assert code_of(first) == "ConfigurationSetDoesNotExist"
    assert code_of(second) == "NotFoundException"
    assert code_of(third) == "NotFoundException"


def test_an_identity_that_is_not_there(rig: SandboxRig) -> None:
    """A default set for no identity is an error."""
    with pytest.raises(ClientError) as caught:
        rig.aws("sesv2").put_email_identity_configuration_set_attributes(EmailIdentity="x.org")

    assert code_of(caught) == "NotFoundException"


@pytest.mark.parametrize("retired", ["Inactive", "deleted"])
@pytest.mark.parametrize(
    ("service", "operation", "expected"),
    [
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("iam", "list_users", "InvalidClientTokenId"),
        ("ses", "get_send_quota", "InvalidClientTokenId"),
        ("sesv2", "get_account", "UnrecognizedClientException"),
        ("secretsmanager", "list_secrets", "UnrecognizedClientException"),
        ("cloudtrail", "lookup_events", "UnrecognizedClientException"),
        ("ec2", "describe_regions", "AuthFailure"),
    ],
)
def test_a_retired_key_calls_nothing(
    rig: SandboxRig, retired: str, service: str, operation: str, expected: str
) -> None:
    """An inactive or deleted key is refused by every API that sesguard uses."""
    key, iam = rig.seed(), rig.aws("iam")
    names: dict[str, Any] = {"UserName": key.user_name, "AccessKeyId": key.access_key_id}
    if retired == "deleted":
        iam.delete_access_key(**names)
    else:
        iam.update_access_key(**names, Status=retired)

    with pytest.raises(ClientError) as caught:
        getattr(rig.aws(service, key), operation)()
    assert expected == code_of(caught)


def test_an_active_key_calls_moto(rig: SandboxRig) -> None:
    """What the overlay does not answer is answered by moto."""
    key = rig.seed()

    assert rig.aws("sts", key).get_caller_identity()["Arn"].endswith(f"user/{key.user_name}")


def test_services_the_overlay_cannot_read_still_work(rig: SandboxRig) -> None:
    """S3 goes to moto untouched."""
    s3 = rig.aws("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="a", Body=b"content")

    assert s3.get_object(Bucket="bucket", Key="a")["Body"].read() == b"content"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("127.0.0.1:80", True),
        ("127.9.9.9", True),
        ("[::1]:80", True),
        ("::1", False),
        ("", False),
        ("evil.example", False),
        ("localhost.evil.example:80", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1:80", False),
        ("[2001:db8::1]", False),
        ("localhost:80@evil.example", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    """Only names and addresses of this machine are taken for the Host header."""
    assert expected is is_loopback_host(host)


def test_boto3_finds_the_sandbox_by_its_environment(
    rig: SandboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported variables are all that an AWS client needs."""
    for name, value in rig.sandbox.environment().items():
        monkeypatch.setenv(name, value)

    boto3.Session().client("ses").verify_domain_identity(Domain="example.com")

    assert ["example.com"] == rig.aws("ses").list_identities()["Identities"]


def test_a_policy_is_json_to_the_byte(rig: SandboxRig) -> None:
    """What the user's policy says comes back as it went in."""
    key = rig.seed()

    found = rig.aws("iam").get_user_policy(
        UserName=key.user_name, PolicyName="AmazonSesSendingAccess"
    )["PolicyDocument"]
    assert "ses:SendRawEmail" in json.dumps(found)

"""Where a session finds its endpoint and its credentials."""

from typing import Any

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.ses import SesAccount
from sesguard.aws.session import COMMAND, START, AwsSession, Patience
from sesguard.core.secret import Secret


def test_the_environment_leads_to_the_sandbox(
    rig: SandboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard variables are enough; no code path knows of the sandbox."""
    for name, value in rig.sandbox.environment().items():
        monkeypatch.setenv(name, value)
    SesAccount(AwsSession("eu-west-1")).verify_domain("example.com")

    found = rig.aws("ses", region_name="eu-west-1").list_identities()["Identities"]
    assert ["example.com"] == found


def test_a_given_endpoint_and_key_win(rig: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed in is used, whatever the environment says."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    key = rig.seed()
    session = AwsSession(
        "us-east-1",
        endpoint_url=rig.info.endpoint_url,
        access_key=(key.access_key_id, key.secret_key),
    )
    SesAccount(session).verify_domain("example.org")

    events = rig.aws("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "AccessKeyId", "AttributeValue": key.access_key_id}]
    )["Events"]
    assert ["VerifyDomainIdentity"] == [event["EventName"] for event in events]


def test_clients_are_made_once(rig: SandboxRig) -> None:
    """A session gives the same client each time, and two kinds of IAM client."""
    session = AwsSession("us-east-1", access_key=("x", Secret("x")))

    assert session.iam is session.iam
    assert session.iam is not session.iam_once


def test_clients_of_the_other_services_are_made_once() -> None:
    """Each service has one client, in the region of the session."""
    session = AwsSession("eu-west-1", access_key=("x", Secret("x")))

    for first, second in (
        (session.sesv2, session.sesv2),
        (session.cloudtrail, session.cloudtrail),
        (session.kms, session.kms),
        (session.secretsmanager, session.secretsmanager),
    ):
        assert first is second
        assert first.meta.region_name == "eu-west-1"


def test_the_same_identity_in_another_region(rig: SandboxRig) -> None:
    """Endpoint and key stay, and a client that was made before does not follow."""
    key = rig.seed()
    here = AwsSession(
        "us-east-1",
        endpoint_url=rig.info.endpoint_url,
        access_key=(key.access_key_id, key.secret_key),
    )
    SesAccount(here).verify_domain("here.example")
    SesAccount(here.in_region("eu-west-1")).verify_domain("there.example")

    found = rig.aws("ses", region_name="eu-west-1").list_identities()["Identities"]
    assert ["there.example"] == found
    assert here.in_region("eu-west-1").region == "eu-west-1"


def test_the_same_region_is_the_same_session() -> None:
    """No client is made twice for nothing."""
    session = AwsSession("us-east-1", access_key=("x", Secret("x")))

    assert session is session.in_region("us-east-1")


def test_the_long_lived_key_of_a_session_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a call; where there are no credentials there is no key."""
    key_id = "AKIAIOSFODNN7EXAMPLE"
    assert key_id == AwsSession("us-east-1", access_key=(key_id, Secret("x"))).static_key
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    assert AwsSession("us-east-1").static_key is None


@pytest.mark.parametrize("patience", [COMMAND, START])
def test_patience_is_that_of_the_session(patience: Patience) -> None:
    """In every region; a call that must not be repeated has one attempt with either."""
    session = AwsSession("us-east-1", access_key=("x", Secret("x")), patience=patience)

    for client in (session.kms, session.in_region("eu-west-1").secretsmanager):
        config: Any = client.meta.config
        assert patience == Patience(
            config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]
        )
    once: Any = session.iam_once.meta.config
    assert 1 == once.retries["total_max_attempts"]


def test_a_start_does_not_wait_for_long() -> None:
    """All attempts, and what is between them at the most, fit into what systemd gives a start."""
    between_s = 1 + 2

    assert 45 >= START.attempts * (START.connect_s + START.read_s) + between_s

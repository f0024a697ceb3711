"""SES identities and quotas, through the real boto3 against the sandbox."""

from rigs.sandbox import SandboxRig
from sesguard.aws.ses import SendQuota, SesAccount
from sesguard.sandbox.seed import admin_session


def test_a_domain_becomes_an_identity(rig: SandboxRig) -> None:
    """The token for its DNS record is given, and asking again is fine."""
    account = SesAccount(admin_session(rig.sandbox))

    assert account.verify_domain("example.com")
    assert account.verify_domain("example.com")
    assert ["example.com"] == rig.aws("ses").list_identities()["Identities"]


def test_the_quota(rig: SandboxRig) -> None:
    """What may be sent, and what has been."""
    rig.client.configure(max_send_rate=14, max_24_hour_send=50_000)
    rig.send(rig.login())

    assert SendQuota(50_000.0, 14.0, 1.0) == SesAccount(admin_session(rig.sandbox)).send_quota()


def test_a_quota_without_limit_is_minus_one(rig: SandboxRig) -> None:
    """-1 comes through as it is."""
    rig.client.configure(max_24_hour_send=-1)

    assert SesAccount(admin_session(rig.sandbox)).send_quota().max_24_hour_send == -1.0

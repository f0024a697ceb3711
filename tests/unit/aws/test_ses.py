"""SES identities and quotas, through the real boto3 against the sandbox."""

import pytest

from rigs.sandbox import SandboxRig, mail
from sesguard.aws.errors import AwsMissing
from sesguard.aws.ses import SendQuota, SesAccount, SesSending
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


def test_the_account_is_paused_and_released(rig: SandboxRig) -> None:
    """A pause refuses mail for good, in that region only."""
    session = admin_session(rig.sandbox)
    sending = SesSending(session)
    login = rig.login()
    before = sending.account_sending()
    sending.set_account_sending(False)
    during = sending.account_sending()
    elsewhere = SesSending(session.in_region("eu-west-1")).account_sending()
    code, _text = rig.send(login)
    sending.set_account_sending(True)

    assert [True, False, True, True] == [before, during, elsewhere, sending.account_sending()]
    assert (code, rig.send(login)[0]) == (554, 250)


def test_a_configuration_set_is_paused_and_released(rig: SandboxRig) -> None:
    """A pause refuses what names the set, and nothing else."""
    rig.aws("sesv2").create_configuration_set(ConfigurationSetName="app")
    sending = SesSending(admin_session(rig.sandbox))
    login = rig.login()
    tagged = mail(headers={"X-SES-CONFIGURATION-SET": "app"})
    sending.set_configuration_set_sending("app", False)
    paused = sending.configuration_set_sending("app")
    codes = [rig.send(login, tagged)[0], rig.send(login)[0]]
    sending.set_configuration_set_sending("app", True)

    assert [False, True] == [paused, sending.configuration_set_sending("app")]
    assert [554, 250] == codes
    assert rig.send(login, tagged)[0] == 250


def test_a_configuration_set_that_is_not_there(rig: SandboxRig) -> None:
    """It is missing, for the question and for the pause."""
    sending = SesSending(admin_session(rig.sandbox))

    with pytest.raises(AwsMissing):
        sending.configuration_set_sending("nothing")
    with pytest.raises(AwsMissing):
        sending.set_configuration_set_sending("nothing", False)

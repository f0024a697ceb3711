"""The life of an access key as an SMTP client sees it: real IAM calls, real AUTH."""

import smtplib
import time
from datetime import UTC, datetime

import pytest

from rigs.sandbox import Login, SandboxRig, eventually, transaction
from sesguard.aws.errors import AwsMissing
from sesguard.aws.iam import IamKeys
from sesguard.core.secret import Secret
from sesguard.sandbox.seed import SeededKey, admin_session


def accepted(rig: SandboxRig, login: Login) -> bool:
    """Whether AUTH succeeds."""
    try:
        with rig.session(login):
            return True
    except smtplib.SMTPAuthenticationError:
        return False


def set_status(rig: SandboxRig, key: SeededKey, status: str) -> None:
    """Activate or deactivate."""
    rig.aws("iam").update_access_key(
        UserName=key.user_name, AccessKeyId=key.access_key_id, Status=status
    )


def test_an_inactive_key_is_refused_until_it_is_active_again(rig: SandboxRig) -> None:
    """Inactive is 535, and reversible."""
    key = rig.seed()
    results = []
    for status in ("Active", "Inactive", "Active"):
        set_status(rig, key, status)
        results.append(accepted(rig, rig.login(key)))

    assert [True, False, True] == results


def test_a_deleted_key_is_refused(rig: SandboxRig) -> None:
    """Deleted is 535."""
    key = rig.seed()
    rig.aws("iam").delete_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id)

    assert not accepted(rig, rig.login(key))


def test_two_keys_of_a_user_work_side_by_side(rig: SandboxRig) -> None:
    """Rotation's overlap: both work, then only the new one."""
    old = rig.seed()
    answer = rig.aws("iam").create_access_key(UserName=old.user_name)["AccessKey"]
    new = SeededKey(
        old.user_name, answer["AccessKeyId"], type(old.secret_key)(answer["SecretAccessKey"])
    )

    assert accepted(rig, rig.login(old))
    assert accepted(rig, rig.login(new))
    set_status(rig, old, "Inactive")
    assert not accepted(rig, rig.login(old))
    assert accepted(rig, rig.login(new))


def test_a_new_key_starts_to_work_after_its_delay(rig: SandboxRig) -> None:
    """IAM's eventual consistency at the beginning of a key's life."""
    rig.client.configure(new_key_delay_s=0.4)
    began = time.monotonic()
    login = rig.login()

    assert not accepted(rig, login)
    eventually(lambda: accepted(rig, login))
    assert time.monotonic() - began >= 0.4


def test_a_deleted_key_stops_to_work_after_its_delay(rig: SandboxRig) -> None:
    """IAM's eventual consistency at the end, although moto has forgotten the key's secret."""
    key = rig.seed()
    login = rig.login(key)
    rig.client.configure(retired_key_delay_s=0.4)
    rig.aws("iam").delete_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id)

    assert accepted(rig, login)
    eventually(lambda: not accepted(rig, login))


def test_an_open_session_outlives_its_key(rig: SandboxRig) -> None:
    """A session that is logged in goes on: the worse case, which a brake must not rely on."""
    key = rig.seed()
    with rig.session(rig.login(key)) as connection:
        set_status(rig, key, "Inactive")

        assert transaction(connection)[0] == 250


def test_a_deleted_user_loses_its_rights_in_an_open_session(rig: SandboxRig) -> None:
    """Rights are looked up for each message."""
    key = rig.seed()
    iam = rig.aws("iam")
    with rig.session(rig.login(key)) as connection:
        iam.delete_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id)
        iam.delete_user_policy(UserName=key.user_name, PolicyName="AmazonSesSendingAccess")
        iam.delete_user(UserName=key.user_name)

        assert transaction(connection)[0] == 554


def test_a_login_is_a_use_of_the_key(rig: SandboxRig) -> None:
    """IAM then tells when, by which service and in which region."""
    key, iam = rig.seed(), IamKeys(admin_session(rig.sandbox))
    before = iam.key_last_used(key.access_key_id)
    rig.client.configure(region="eu-west-1")
    began = datetime.now(UTC).replace(microsecond=0)
    assert accepted(rig, rig.login(key, region="eu-west-1"))

    use = iam.key_last_used(key.access_key_id)
    assert before is None
    assert use is not None
    assert ("ses", "eu-west-1") == (use.service, use.region)
    assert began <= use.at <= datetime.now(UTC)


def test_a_refused_login_is_no_use_of_the_key(rig: SandboxRig) -> None:
    """A wrong password, and the right one of an inactive key."""
    key, iam = rig.seed(), IamKeys(admin_session(rig.sandbox))
    assert not accepted(rig, Login(key.access_key_id, Secret("wrong")))
    set_status(rig, key, "Inactive")
    assert not accepted(rig, rig.login(key))

    assert iam.key_last_used(key.access_key_id) is None


def test_a_login_with_a_deleted_key_that_still_works(rig: SandboxRig) -> None:
    """IAM has forgotten the key, so there is nothing to write the use to; AUTH goes well."""
    key = rig.seed()
    rig.client.configure(retired_key_delay_s=30)
    rig.aws("iam").delete_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id)

    assert accepted(rig, rig.login(key))
    with pytest.raises(AwsMissing):
        IamKeys(admin_session(rig.sandbox)).key_last_used(key.access_key_id)

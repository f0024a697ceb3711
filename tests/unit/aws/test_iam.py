"""IAM users and keys, through the real boto3 against the sandbox."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.errors import AwsMissing
from sesguard.aws.iam import IamKeys, KeyFacts, KeyStatus, NewAccessKey
from sesguard.errors import AwsPermanent
from sesguard.sandbox.seed import admin_session

ALLOW = {"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [ALLOW]}


@pytest.fixture
def iam(rig: SandboxRig) -> IamKeys:
    """The wrapper, as the account's administrator, with a user ``alice``."""
    keys = IamKeys(admin_session(rig.sandbox))
    keys.create_user("alice")
    return keys


def test_a_key_is_made_listed_and_deleted(iam: IamKeys) -> None:
    """The whole life of a key."""
    made = iam.create_access_key("alice")
    (listed,) = iam.list_access_keys("alice")

    assert listed.access_key_id == made.access_key_id
    assert listed.status is KeyStatus.ACTIVE
    assert abs(datetime.now(UTC) - listed.created_at) < timedelta(minutes=1)
    assert iam.ensure_key_deleted("alice", made.access_key_id)
    assert iam.list_access_keys("alice") == ()


def test_a_new_key_does_not_show_its_secret(iam: IamKeys) -> None:
    """The secret key is wrapped from the first moment."""
    made = iam.create_access_key("alice")

    assert len(made.secret_key.reveal()) == 40
    assert made.secret_key.reveal() not in repr(made)


def test_a_key_is_deactivated_and_activated(iam: IamKeys) -> None:
    """The status is what was set."""
    made = iam.create_access_key("alice")
    seen = []
    for status in (KeyStatus.INACTIVE, KeyStatus.ACTIVE):
        iam.set_key_status("alice", made.access_key_id, status)
        seen += [key.status for key in iam.list_access_keys("alice")]

    assert [KeyStatus.INACTIVE, KeyStatus.ACTIVE] == seen


def test_deleting_a_key_again_is_fine(iam: IamKeys) -> None:
    """The answer tells whether it was there."""
    made = iam.create_access_key("alice")

    assert [True, False] == [iam.ensure_key_deleted("alice", made.access_key_id) for _ in range(2)]


def test_a_third_key_is_refused(iam: IamKeys) -> None:
    """Two keys are the limit, an inactive one counts, and the error has AWS's code."""
    first = iam.create_access_key("alice")
    iam.create_access_key("alice")
    iam.set_key_status("alice", first.access_key_id, KeyStatus.INACTIVE)

    with pytest.raises(AwsPermanent) as caught:
        iam.create_access_key("alice")
    assert caught.value.parameters["code"] == "LimitExceeded"
    assert "iam:CreateAccessKey" in str(caught.value)


def test_of_many_rivals_two_get_a_key(iam: IamKeys) -> None:
    """One wrapper serves several threads, and the limit holds between them."""
    made: list[NewAccessKey] = []
    refused: list[AwsPermanent] = []

    def make() -> None:
        try:
            made.append(iam.create_access_key("alice"))
        except AwsPermanent as error:
            refused.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(refused)) == (2, 4)
    assert {key.access_key_id for key in made} == {
        key.access_key_id for key in iam.list_access_keys("alice")
    }


def test_a_user_that_is_not_there(iam: IamKeys) -> None:
    """Whatever is asked of it, it is missing."""
    with pytest.raises(AwsMissing):
        iam.list_access_keys("nobody")
    with pytest.raises(AwsMissing):
        iam.create_access_key("nobody")
    with pytest.raises(AwsMissing):
        iam.put_user_policy("nobody", "p", POLICY)
    with pytest.raises(AwsMissing):
        iam.set_key_status("nobody", "AKIAIOSFODNN7EXAMPLE", KeyStatus.INACTIVE)


def test_a_user_that_is_there_already(iam: IamKeys) -> None:
    """A name is given once."""
    with pytest.raises(AwsPermanent) as caught:
        iam.create_user("alice")

    assert caught.value.parameters["code"] == "EntityAlreadyExists"


def test_a_policy_lets_the_user_send(rig: SandboxRig, iam: IamKeys) -> None:
    """The document arrives as it was given, and may be replaced."""
    iam.put_user_policy("alice", "send", {**POLICY, "Statement": [{**ALLOW, "Effect": "Deny"}]})
    iam.put_user_policy("alice", "send", POLICY)

    found = rig.aws("iam").get_user_policy(UserName="alice", PolicyName="send")
    assert found["PolicyDocument"] == POLICY


def test_the_last_use_of_a_key(rig: SandboxRig, iam: IamKeys) -> None:
    """Nothing before the first use; then when, where and for what."""
    key = rig.seed()
    before = iam.key_last_used(key.access_key_id)
    rig.aws("sts", key).get_caller_identity()
    after = iam.key_last_used(key.access_key_id)

    assert before is None
    assert after is not None
    assert (after.service, after.region) == ("sts", "us-east-1")
    assert abs(datetime.now(UTC) - after.at) < timedelta(minutes=1)


def test_the_owner_of_a_key(rig: SandboxRig, iam: IamKeys) -> None:
    """The id is enough to know whose key it is, an inactive one too."""
    key = rig.seed(user_name="carol")
    iam.set_key_status("carol", key.access_key_id, KeyStatus.INACTIVE)

    assert KeyFacts("carol", None) == iam.key_facts(key.access_key_id)


def test_the_facts_of_a_key_that_is_not_there(iam: IamKeys) -> None:
    """An unknown id is missing, and so is a deleted key."""
    made = iam.create_access_key("alice")
    iam.ensure_key_deleted("alice", made.access_key_id)

    for key_id in ("AKIAIOSFODNN7EXAMPLE", made.access_key_id):
        with pytest.raises(AwsMissing):
            iam.key_facts(key_id)

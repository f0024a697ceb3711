"""Panic whose own calls to AWS are made with the leaked key, or by its user."""

import pytest

from rigs.rotating_host import NAME, OneAttempt, RotatingHost, one_attempt
from rigs.sandbox import SandboxRig
from sesguard.aws.iam import IamKeys, KeyStatus
from sesguard.aws.identity import caller_user
from sesguard.core.secret import Secret
from sesguard.errors import AwsDenied, Error
from sesguard.respond.incident import IncidentState
from sesguard.sandbox.model import ApiFaultKind
from sesguard.sandbox.seed import SeededKey

EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def session_of(rig: SandboxRig, key: SeededKey) -> OneAttempt:
    """The session of whoever has that key."""
    return OneAttempt(
        rig.info.region,
        endpoint_url=rig.info.endpoint_url,
        access_key=(key.access_key_id, key.secret_key),
    )


@pytest.fixture
def own(host: RotatingHost) -> RotatingHost:
    """A host that calls AWS with the key that leaks, which may do everything."""
    host.iam.put_user_policy(host.user, "everything", EVERYTHING)
    host.session = session_of(host.rig, host.key)
    return host


def test_panic_with_the_leaked_key_cuts_it_and_says_who_has_to_go_on(own: RotatingHost) -> None:
    """The leak is contained and the mail is held; another identity brings it to its end."""
    stolen = own.login()
    with pytest.raises(Error, match="the leak is cut, and so is this command") as caught:
        own.panic()

    assert 4 == caught.value.exit_code
    assert f"AWS_PROFILE=NAME sesguard panic --key {stolen.user}" in str(caught.value.hint)
    assert not own.can_send(stolen)
    assert own.current() is None
    assert IncidentState.CONTAINED is own.incidents()[0].state
    own.session = None
    assert {stolen.user: KeyStatus.INACTIVE} == own.statuses()
    assert own.panic().recovered
    assert own.logs_in()


def test_contain_only_with_the_leaked_key_says_so_too(own: RotatingHost) -> None:
    """Its user was not denied, so somebody else has to run it again."""
    with pytest.raises(Error, match="and so is this command"):
        own.panic(contain_only=True)

    assert IncidentState.CONTAINED is own.incidents()[0].state


def test_it_is_known_before_whether_the_calls_are_made_with_the_key(own: RotatingHost) -> None:
    """Without a question to AWS."""
    service = own.panic_service()

    assert service.calls_with(NAME, own.key.access_key_id)
    assert not service.calls_with(NAME, "AKIAIOSFODNN7EXAMPLE")


@pytest.mark.parametrize("is_own", [True, False])
def test_only_a_caller_of_the_leaked_user_is_said_to_be_cut_off(
    host: RotatingHost, is_own: bool
) -> None:
    """Another operator who may not make users is told just that."""
    stolen = host.login()
    if is_own:
        made = host.iam.create_access_key(host.user)
        host.session = session_of(
            host.rig, SeededKey(host.user, made.access_key_id, made.secret_key)
        )
    host.set_fault("iam:CreateUser", ApiFaultKind.DENIED, count=None)
    with pytest.raises(Error) as caught:
        host.panic()

    assert is_own == ("and so is this command" in str(caught.value))
    assert not host.can_send(stolen)
    assert host.current() is None


def test_the_caller_is_told_by_its_user_name(rig: SandboxRig) -> None:
    """A role has none, and a key that is cut does not learn whose it is."""
    key = rig.seed(user_name="who-am-i")
    role = rig.aws("sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/operator", RoleSessionName="who-am-i"
    )["Credentials"]
    assumed = SeededKey("", role["AccessKeyId"], Secret(role["SecretAccessKey"]))

    assert "who-am-i" == caller_user(session_of(rig, key))
    assert caller_user(session_of(rig, assumed)) is None
    IamKeys(one_attempt(rig)).set_key_status(key.user_name, key.access_key_id, KeyStatus.INACTIVE)
    with pytest.raises(AwsDenied):
        caller_user(session_of(rig, key))

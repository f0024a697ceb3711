"""IAM users and copies of them, through the real boto3 against the sandbox."""

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.errors import AwsMissing
from sesguard.aws.session import AwsSession
from sesguard.aws.users import IamUsers, UserSnapshot
from sesguard.errors import AwsPermanent
from sesguard.sandbox.seed import CONSOLE_POLICY, POLICY_NAME, admin_session

READ_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ses:Get*", "Resource": "*"}],
}
BOUNDARY = "arn:aws:iam::123456789012:policy/limit"
WRITES = ("CreateUser", "TagUser", "PutUserPolicy", "AttachUserPolicy", "AddUserToGroup")


class Crash(Exception):
    """The process dies."""


@pytest.fixture
def session(rig: SandboxRig) -> AwsSession:
    """A new session, as the account's administrator."""
    return admin_session(rig.sandbox)


@pytest.fixture
def users(session: AwsSession) -> IamUsers:
    """The wrapper."""
    return IamUsers(session)


@pytest.fixture
def carol(rig: SandboxRig) -> str:
    """A user that has one of everything that is copied."""
    iam = rig.aws("iam")
    iam.create_user(UserName="carol", Path="/mail/", Tags=[{"Key": "team", "Value": "web"}])
    for name, document in ((POLICY_NAME, CONSOLE_POLICY), ("read", READ_POLICY)):
        iam.put_user_policy(UserName="carol", PolicyName=name, PolicyDocument=json.dumps(document))
    iam.attach_user_policy(UserName="carol", PolicyArn=make_policy(rig, "managed"))
    iam.create_group(GroupName="senders")
    iam.add_user_to_group(UserName="carol", GroupName="senders")
    return "carol"


def make_policy(rig: SandboxRig, name: str) -> str:
    """Make a managed policy; gives its ARN."""
    answer = rig.aws("iam").create_policy(PolicyName=name, PolicyDocument=json.dumps(READ_POLICY))
    return str(answer["Policy"]["Arn"])


def rights(snapshot: UserSnapshot) -> UserSnapshot:
    """What a copy has in common with its original."""
    return replace(snapshot, name="", arn="", created_at=snapshot.created_at.min)


def test_what_a_user_is(users: IamUsers, carol: str) -> None:
    """The snapshot has all that the user may do."""
    found = users.describe(carol)

    assert (found.name, found.path, found.boundary) == ("carol", "/mail/", None)
    assert found.arn == "arn:aws:iam::123456789012:user/mail/carol"
    assert {"team": "web"} == found.tags
    assert {POLICY_NAME: CONSOLE_POLICY, "read": READ_POLICY} == found.inline_policies
    assert found.attached_policies == ("arn:aws:iam::123456789012:policy/managed",)
    assert found.groups == ("senders",)


def test_whether_a_user_exists(users: IamUsers, carol: str) -> None:
    """Yes or no, not an error."""
    assert [True, False] == [users.user_exists(carol), users.user_exists("nobody")]


def test_a_copy_may_do_what_the_original_may(users: IamUsers, carol: str) -> None:
    """Everything is copied, and a second call finds nothing to do."""
    done = [users.ensure_user("dave", like=carol) for _ in range(2)]

    assert rights(users.describe(carol)) == rights(users.describe("dave"))
    assert [True, False] == done


def test_a_copy_is_completed(rig: SandboxRig, users: IamUsers, carol: str) -> None:
    """What is missing or different is put right; what is there beyond that stays."""
    users.ensure_user("dave", like=carol)
    iam = rig.aws("iam")
    iam.remove_user_from_group(UserName="dave", GroupName="senders")
    iam.put_user_policy(
        UserName="dave", PolicyName="read", PolicyDocument=json.dumps(CONSOLE_POLICY)
    )
    users.set_tag("dave", "own", "1")

    assert users.ensure_user("dave", like=carol)
    found = users.describe("dave")
    assert {"own": "1", "team": "web"} == found.tags
    assert rights(users.describe(carol)) == rights(replace(found, tags={"team": "web"}))


def test_what_is_to_be_skipped(users: IamUsers, carol: str) -> None:
    """A deny and a mark that were put on the original do not reach its copy."""
    users.ensure_denied(carol, "stop")
    users.set_tag(carol, "leaked", "yes")
    users.ensure_user("dave", like=carol, skip_policies=["stop"], skip_tags=["leaked"])

    found = users.describe("dave")
    assert "stop" not in found.inline_policies
    assert {"team": "web"} == found.tags
    assert not users.ensure_user("dave", like=carol, skip_policies=["stop"], skip_tags=["leaked"])


def test_a_quarantine_is_not_copied(rig: SandboxRig, users: IamUsers, carol: str) -> None:
    """AWS denies a user whose key it found in public; its copy shall send."""
    arn = make_policy(rig, "AWSCompromisedKeyQuarantineV3")
    rig.aws("iam").attach_user_policy(UserName=carol, PolicyArn=arn)
    users.ensure_user("dave", like=carol)

    assert arn in users.describe(carol).attached_policies
    assert arn not in users.describe("dave").attached_policies


@pytest.mark.parametrize("write", range(6))
def test_a_copy_after_a_crash(
    rig: SandboxRig, session: AwsSession, users: IamUsers, carol: str, write: int
) -> None:
    """Whichever change the process dies at, another call completes the copy."""
    left = [write]

    def die(**_event: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crash

    for operation in WRITES:
        session.iam.meta.events.register(f"before-call.iam.{operation}", die)
    if write < 5:  # CreateUser has the tags, two inline policies, one attached, one group
        with pytest.raises(Crash):
            users.ensure_user("dave", like=carol)
    else:
        assert users.ensure_user("dave", like=carol)
    again = IamUsers(admin_session(rig.sandbox))

    assert again.ensure_user("dave", like=carol) == (write < 5)
    assert rights(again.describe(carol)) == rights(again.describe("dave"))


def test_rivals_make_one_copy(users: IamUsers, carol: str) -> None:
    """Of several at once none fails."""
    failed: list[Exception] = []

    def make() -> None:
        try:
            users.ensure_user("dave", like=carol)
        except Exception as error:  # noqa: BLE001 - reported below
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert rights(users.describe(carol)) == rights(users.describe("dave"))


def test_a_boundary_is_there_from_the_start(
    rig: SandboxRig, session: AwsSession, carol: str
) -> None:
    """The copy is made with it, and given it when it lacks it; the sandbox's IAM has none."""
    rig.aws("iam").create_user(UserName="other")
    calls = _boundaries(session, {carol: BOUNDARY})
    users = IamUsers(session)
    users.ensure_user("dave", like=carol)
    made = list(calls)
    users.ensure_user("other", like=carol)

    assert made == [("CreateUser", "dave", BOUNDARY)]
    assert calls[1:] == [
        ("CreateUser", "other", BOUNDARY),  # it is there already
        ("PutUserPermissionsBoundary", "other", BOUNDARY),
    ]
    assert {BOUNDARY} == {users.describe(name).boundary for name in ("carol", "dave", "other")}


def test_nothing_is_copied_from_nobody(users: IamUsers) -> None:
    """Without an original there is no copy."""
    with pytest.raises(AwsMissing):
        users.ensure_user("dave", like="nobody")

    assert not users.user_exists("dave")


def test_a_name_that_is_not_possible(users: IamUsers, carol: str) -> None:
    """Only a user that is there already is no error."""
    with pytest.raises(AwsPermanent):
        users.ensure_user("", like=carol)


def test_a_denied_user_cannot_send(rig: SandboxRig, users: IamUsers) -> None:
    """The deny wins over what allows; it may be put again."""
    key = rig.seed()
    login = rig.login(key)
    before = rig.send(login)[0]
    for _ in range(2):
        users.ensure_denied(key.user_name, "stop")

    assert (before, rig.send(login)[0]) == (250, 554)
    assert users.is_denied(key.user_name, "stop")


def test_who_is_not_denied(rig: SandboxRig, users: IamUsers, carol: str) -> None:
    """No such policy, a policy of that name that says something else, or no such user."""
    rig.aws("iam").put_user_policy(
        UserName=carol, PolicyName="stop", PolicyDocument=json.dumps(READ_POLICY)
    )

    assert not users.is_denied(carol, "stop")
    assert not users.is_denied(carol, "nothing")
    assert not users.is_denied("nobody", "stop")


def test_nobody_cannot_be_denied(users: IamUsers) -> None:
    """That is an error: the leaked key would still be there."""
    with pytest.raises(AwsMissing):
        users.ensure_denied("nobody", "stop")


def test_tags_are_set_and_removed(users: IamUsers, carol: str) -> None:
    """A tag may be replaced, and removed twice."""
    users.set_tag(carol, "state", "a")
    users.set_tag(carol, "state", "b")
    during = users.read_tags(carol)
    for _ in range(2):
        users.remove_tag(carol, "state")

    assert {"team": "web", "state": "b"} == during
    assert {"team": "web"} == users.read_tags(carol)


def _boundaries(session: AwsSession, boundaries: dict[str, str]) -> list[tuple[str, str, str]]:
    """Let IAM keep boundaries of users, on the wire of that session; gives the calls with one."""
    calls = []

    def keep(model: Any, params: dict[str, Any], **_event: Any) -> Any:
        name, boundary = params["body"]["UserName"], params["body"].get("PermissionsBoundary")
        if boundary is None:
            return None
        calls.append((model.name, name, boundary))
        if model.name == "CreateUser" and name == "other":
            return None  # it exists, and is not changed
        boundaries[name] = boundary
        if model.name == "CreateUser":
            return None
        return _Ok(), {"ResponseMetadata": {}}

    def show(parsed: dict[str, Any], **_event: Any) -> None:
        arn = boundaries.get(parsed.get("User", {}).get("UserName"))
        if arn is not None:
            parsed["User"]["PermissionsBoundary"] = {"PermissionsBoundaryArn": arn}

    for operation in ("CreateUser", "PutUserPermissionsBoundary"):
        session.iam.meta.events.register(f"before-call.iam.{operation}", keep)
    session.iam.meta.events.register("after-call.iam.GetUser", show)
    return calls


class _Ok:
    status_code = 200

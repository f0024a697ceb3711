"""Faults of AWS API calls on demand, as boto3 and our own client see them."""

import json
import time
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from rigs.sandbox import SandboxRig
from sesguard.aws.iam import IamKeys, KeyStatus
from sesguard.aws.ses import SesSending
from sesguard.errors import AwsDenied, AwsThrottled, AwsTransient
from sesguard.sandbox.faults import ApiFaults
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.seed import admin_session

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})
REFUSALS = {
    ("iam", "list_users", ApiFaultKind.THROTTLED): (400, "Throttling"),
    ("iam", "list_users", ApiFaultKind.INTERNAL): (500, "ServiceFailure"),
    ("iam", "list_users", ApiFaultKind.DENIED): (403, "AccessDenied"),
    ("sesv2", "get_account", ApiFaultKind.THROTTLED): (429, "TooManyRequestsException"),
    ("sesv2", "get_account", ApiFaultKind.INTERNAL): (500, "InternalFailure"),
    ("sesv2", "get_account", ApiFaultKind.DENIED): (403, "AccessDeniedException"),
    ("secretsmanager", "list_secrets", ApiFaultKind.THROTTLED): (400, "ThrottlingException"),
    ("secretsmanager", "list_secrets", ApiFaultKind.INTERNAL): (500, "InternalFailure"),
    ("secretsmanager", "list_secrets", ApiFaultKind.DENIED): (400, "AccessDeniedException"),
    ("ec2", "describe_regions", ApiFaultKind.DENIED): (403, "UnauthorizedOperation"),
}


def iam_keys(rig: SandboxRig) -> IamKeys:
    """Our own calls of IAM, as root."""
    return IamKeys(admin_session(rig.sandbox))


def names_of_users(rig: SandboxRig) -> list[str]:
    """The users that there are."""
    return [user["UserName"] for user in rig.aws("iam").list_users()["Users"]]


def events_of(rig: SandboxRig, name: str) -> list[dict[str, Any]]:
    """What the trail says of calls of that name."""
    attribute = {"AttributeKey": "EventName", "AttributeValue": name}
    events: list[dict[str, Any]] = rig.aws("cloudtrail").lookup_events(
        LookupAttributes=[attribute]
    )["Events"]
    return events


@pytest.mark.parametrize(("service", "operation", "kind"), REFUSALS)
def test_a_refusal_is_that_of_the_service(
    rig: SandboxRig, service: str, operation: str, kind: ApiFaultKind
) -> None:
    """Status and code are what AWS answers under the protocol of the service."""
    rig.client.set_api_faults(ApiFault("*", kind))

    with pytest.raises(ClientError) as caught:
        getattr(rig.aws(service, config=ONCE), operation)()
    response = caught.value.response
    assert (
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
    ) == REFUSALS[service, operation, kind]
    getattr(rig.aws(service, config=ONCE), operation)()


@pytest.mark.parametrize(
    ("kind", "expected", "taken"),
    [
        (ApiFaultKind.THROTTLED, AwsThrottled, 0),
        (ApiFaultKind.INTERNAL, AwsTransient, 0),
        (ApiFaultKind.DENIED, AwsDenied, 0),
        (ApiFaultKind.LOST, AwsTransient, 1),
        (ApiFaultKind.UNREACHABLE, AwsTransient, 0),
    ],
)
def test_what_our_client_makes_of_it(
    rig: SandboxRig, kind: ApiFaultKind, expected: type[Exception], taken: int
) -> None:
    """Only a lost answer leaves a second key behind, and its call cannot tell."""
    user = rig.seed().user_name
    rig.client.set_api_faults(ApiFault("iam:CreateAccessKey", kind))

    with pytest.raises(expected):
        iam_keys(rig).create_access_key(user)
    assert 1 + taken == len(iam_keys(rig).list_access_keys(user))


@pytest.mark.parametrize("kind", [ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
def test_a_connection_that_is_closed_without_an_answer(rig: SandboxRig, kind: ApiFaultKind) -> None:
    """It is what a client sees when the other side goes away; the next call is answered."""
    rig.client.set_api_faults(ApiFault("iam:CreateUser", kind))
    iam = rig.aws("iam", config=ONCE)

    with pytest.raises(ConnectionClosedError):
        iam.create_user(UserName="lost")
    assert ["lost"] * (kind is ApiFaultKind.LOST) == names_of_users(rig)


def test_a_lost_call_changes_keys_at_once(rig: SandboxRig) -> None:
    """Deactivation takes effect for SMTP although nobody was told."""
    key = rig.seed()
    rig.client.set_api_faults(ApiFault("iam:UpdateAccessKey", ApiFaultKind.LOST, count=None))

    with pytest.raises(AwsTransient):
        iam_keys(rig).set_key_status(key.user_name, key.access_key_id, KeyStatus.INACTIVE)
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        rig.aws("sts", key).get_caller_identity()


def test_an_sdk_repeats_by_itself(rig: SandboxRig) -> None:
    """A fault that strikes once is not noticed by a client with more than one attempt."""
    user = rig.seed().user_name
    rig.client.set_api_faults(ApiFault("iam:ListAccessKeys", ApiFaultKind.INTERNAL))

    assert len(iam_keys(rig).list_access_keys(user)) == 1
    assert rig.client.status().api_faults == ()


def test_calls_are_let_pass_before(rig: SandboxRig) -> None:
    """`after` counts matching calls only; then the fault strikes `count` times."""
    rig.client.set_api_faults(ApiFault("iam:ListUsers", ApiFaultKind.DENIED, count=2, after=1))
    iam, results = rig.aws("iam", config=ONCE), []
    for _ in range(4):
        iam.list_groups()
        try:
            iam.list_users()
            results.append(True)
        except ClientError:
            results.append(False)

    assert [True, False, False, True] == results


def test_other_operations_are_not_struck(rig: SandboxRig) -> None:
    """A pattern stands for a service; version 2 of SES is of the service ses."""
    rig.client.set_api_faults(ApiFault("ses:Get*", ApiFaultKind.DENIED, count=None))

    rig.aws("sts").get_caller_identity()
    rig.aws("ses").list_identities()
    with pytest.raises(AwsDenied):
        SesSending(admin_session(rig.sandbox)).account_sending()
    with pytest.raises(ClientError, match="AccessDenied"):
        rig.aws("ses").get_send_quota()


def test_api_faults_can_be_listed_and_cleared(rig: SandboxRig) -> None:
    """The status shows what is left of them; the faults of SMTP are another list."""
    fault = ApiFault("sts:GetCallerIdentity", ApiFaultKind.DENIED, count=3)
    rig.client.set_api_faults(fault)
    with pytest.raises(ClientError):
        rig.aws("sts").get_caller_identity()
    left = rig.client.status().api_faults
    rig.client.clear_faults()
    kept = rig.client.status().api_faults
    rig.client.clear_api_faults()

    assert (ApiFault(fault.operation, fault.kind, count=2),) == left == kept
    assert rig.client.status().api_faults == ()
    rig.aws("sts").get_caller_identity()


@pytest.mark.parametrize(
    ("kind", "recorded"),
    [
        (ApiFaultKind.DENIED, ["AccessDenied"]),
        (ApiFaultKind.LOST, [None]),
        (ApiFaultKind.UNREACHABLE, []),
    ],
)
def test_the_trail_knows_what_reached_aws(
    rig: SandboxRig, kind: ApiFaultKind, recorded: list[str | None]
) -> None:
    """A refusal with its code, a lost call as a success, one that never arrived not at all."""
    rig.client.set_api_faults(ApiFault("iam:CreateUser", kind))
    with pytest.raises((ClientError, ConnectionClosedError)):
        rig.aws("iam", config=ONCE).create_user(UserName="someone")

    documents = [json.loads(event["CloudTrailEvent"]) for event in events_of(rig, "CreateUser")]
    assert recorded == [document.get("errorCode") for document in documents]


@pytest.mark.parametrize("kind", ApiFaultKind)
def test_a_fault_that_takes_its_time(rig: SandboxRig, kind: ApiFaultKind) -> None:
    """The caller waits for it, and others do not."""
    rig.client.set_api_faults(ApiFault("sts:*", kind, delay_s=0.2))
    began = time.monotonic()
    with pytest.raises((ClientError, ConnectionClosedError)):
        rig.aws("sts", config=ONCE).get_caller_identity()

    assert time.monotonic() - began >= 0.2


def test_a_caller_that_does_not_wait(rig: SandboxRig) -> None:
    """Its time-out is over first; the call took effect, and the sandbox goes on."""
    rig.client.set_api_faults(ApiFault("iam:CreateUser", ApiFaultKind.LOST, delay_s=1))
    hasty = ONCE.merge(Config(read_timeout=0.2))
    with pytest.raises(ReadTimeoutError):
        rig.aws("iam", config=hasty).create_user(UserName="late")

    assert ["late"] == names_of_users(rig)


def test_the_first_fault_that_may_strike_does() -> None:
    """One that lets the call pass counts it; one behind the striking one does not see it."""
    faults = ApiFaults()
    waiting = ApiFault("*", ApiFaultKind.LOST, after=1)
    striking = ApiFault("iam:ListUsers", ApiFaultKind.DENIED)
    behind = ApiFault("*", ApiFaultKind.THROTTLED, after=1)
    faults.set([waiting, striking, behind, ApiFault("*", ApiFaultKind.DENIED, count=0)])

    assert striking == faults.take("iam:ListUsers")
    assert (ApiFault("*", ApiFaultKind.LOST), behind) == faults.list_faults()

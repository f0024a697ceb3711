"""CloudTrail's LookupEvents over the calls that were made, through real boto3."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rigs.sandbox import SandboxRig, mail


def lookup(rig: SandboxRig, **attribute: str) -> list[dict[str, Any]]:
    """Every event with that attribute, newest first."""
    pages = rig.aws("cloudtrail").get_paginator("lookup_events")
    attributes = [
        {"AttributeKey": name, "AttributeValue": value} for name, value in attribute.items()
    ]
    return [
        event
        for page in pages.paginate(**({"LookupAttributes": attributes} if attributes else {}))
        for event in page["Events"]
    ]


def names(events: list[dict[str, Any]]) -> list[str]:
    """Names of events."""
    return [event["EventName"] for event in events]


def test_the_seeding_of_an_account_is_on_record(rig: SandboxRig) -> None:
    """Each management call is an event, newest first."""
    rig.seed()

    assert ["CreateAccessKey", "PutUserPolicy", "CreateUser"] == names(
        lookup(rig, EventSource="iam.amazonaws.com")
    )
    assert ["VerifyDomainIdentity"] == names(lookup(rig, EventSource="ses.amazonaws.com"))


def test_an_event_tells_who_and_whence(rig: SandboxRig) -> None:
    """Key, user, source address, time, parameters: what an investigation needs."""
    key = rig.seed()
    rig.aws("iam", key).update_access_key(
        UserName=key.user_name, AccessKeyId=key.access_key_id, Status="Inactive"
    )

    (event,) = lookup(rig, AccessKeyId=key.access_key_id)
    document = json.loads(event["CloudTrailEvent"])
    assert event["EventName"] == "UpdateAccessKey"
    assert event["Username"] == key.user_name
    assert event["ReadOnly"] == "false"
    assert abs(datetime.now(UTC) - event["EventTime"]) < timedelta(minutes=1)
    assert document["userIdentity"] == {
        "type": "IAMUser",
        "arn": f"arn:aws:iam::123456789012:user/{key.user_name}",
        "userName": key.user_name,
        "accountId": "123456789012",
        "accessKeyId": key.access_key_id,
    }
    assert document["sourceIPAddress"] == "127.0.0.1"
    assert "Boto3" in document["userAgent"]
    assert document["requestParameters"] == {
        "accessKeyId": key.access_key_id,
        "status": "Inactive",
        "userName": key.user_name,
    }


def test_the_administrator_is_root(rig: SandboxRig) -> None:
    """A key that is none of ours is the account's root."""
    rig.aws("iam").list_users()

    (event,) = lookup(rig, EventName="ListUsers")
    assert event["Username"] == "root"
    assert event["ReadOnly"] == "true"
    assert json.loads(event["CloudTrailEvent"])["userIdentity"]["type"] == "Root"


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "expected"),
    [
        ("iam", "delete_user", {"UserName": "nobody"}, "NoSuchEntity"),
        ("secretsmanager", "describe_secret", {"SecretId": "x"}, "ResourceNotFoundException"),
        ("sesv2", "delete_email_identity_policy", {}, "NotFoundException"),
    ],
)
def test_a_failed_call_has_its_error(
    rig: SandboxRig, service: str, operation: str, parameters: dict[str, str], expected: str
) -> None:
    """Failures are recorded with AWS's code."""
    parameters = parameters or {"EmailIdentity": "x.org", "PolicyName": "p"}
    with pytest.raises(ClientError):
        getattr(rig.aws(service), operation)(**parameters)

    (event,) = lookup(rig)
    assert expected == json.loads(event["CloudTrailEvent"])["errorCode"]


def test_calls_of_a_retired_key_are_on_record(rig: SandboxRig) -> None:
    """A refused call is an event as well: somebody tries a leaked key."""
    key = rig.seed()
    rig.aws("iam").delete_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id)
    with pytest.raises(ClientError):
        rig.aws("ses", key).get_send_quota()

    (event,) = lookup(rig, AccessKeyId=key.access_key_id)
    assert event["EventName"] == "GetSendQuota"
    assert json.loads(event["CloudTrailEvent"])["errorCode"] == "InvalidClientTokenId"


def test_sends_are_not_management_events(rig: SandboxRig) -> None:
    """Neither a send by the API nor one by SMTP is found, as in AWS."""
    key = rig.seed()
    rig.send(rig.login(key))
    rig.aws("ses", key).send_raw_email(RawMessage={"Data": mail()})

    assert lookup(rig, AccessKeyId=key.access_key_id) == []


def test_no_secret_is_on_record(rig: SandboxRig) -> None:
    """Documents and values of a call are left out."""
    rig.aws("secretsmanager").create_secret(Name="x", SecretString="do-not-show")
    key = rig.seed()

    shown = repr(lookup(rig))
    assert "CreateSecret" in shown
    assert "do-not-show" not in shown
    assert key.secret_key.reveal() not in shown


def test_iam_is_found_in_us_east_1_and_the_rest_in_its_region(rig: SandboxRig) -> None:
    """Events belong to a region; those of IAM to us-east-1."""
    rig.aws("iam", region_name="eu-west-1").list_users()
    rig.aws("sesv2", region_name="eu-west-1").get_account()
    trail = rig.aws("cloudtrail", region_name="eu-west-1")

    assert ["ListUsers"] == names(lookup(rig))
    assert ["GetAccount"] == names(trail.lookup_events()["Events"])


def test_pages(rig: SandboxRig) -> None:
    """A page has at most 50 events, and a token that leads through all of them once."""
    iam, trail = rig.aws("iam"), rig.aws("cloudtrail")
    for number in range(60):
        iam.create_user(UserName=f"user-{number}")

    first = trail.lookup_events()
    iam.create_user(UserName="meanwhile")
    second = trail.lookup_events(NextToken=first["NextToken"])
    small = trail.lookup_events(
        MaxResults=2,
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateUser"}],
    )

    events = [event["EventId"] for event in first["Events"] + second["Events"]]
    assert len(first["Events"]) == 50
    assert len(events) == len(set(events)) == 60
    assert "NextToken" not in second
    assert len(small["Events"]) == 2


def test_a_span_of_time(rig: SandboxRig) -> None:
    """StartTime and EndTime bound the answer."""
    rig.aws("iam").list_users()
    trail, now = rig.aws("cloudtrail"), datetime.now(UTC)
    hour = timedelta(hours=1)

    assert ["ListUsers"] == names(
        trail.lookup_events(StartTime=now - hour, EndTime=now + hour)["Events"]
    )
    assert trail.lookup_events(EndTime=now - hour)["Events"] == []
    assert trail.lookup_events(StartTime=now + hour)["Events"] == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"LookupAttributes": [{"AttributeKey": "ResourceName", "AttributeValue": "x"}]},
            "InvalidLookupAttributesException",
        ),
        (
            {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "x"}] * 2},
            "InvalidLookupAttributesException",
        ),
        ({"NextToken": "x"}, "InvalidNextTokenException"),
    ],
)
def test_what_lookup_refuses(rig: SandboxRig, parameters: dict[str, Any], expected: str) -> None:
    """Attributes that are not supported, and tokens that are none, are errors."""
    with pytest.raises(ClientError) as caught:
        rig.aws("cloudtrail").lookup_events(**parameters)

    assert expected == caught.value.response["Error"]["Code"]

"""CloudTrail's event history, through the real boto3 against the sandbox."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.cloudtrail import TrailEvents
from sesguard.aws.iam import IamKeys
from sesguard.sandbox.seed import SeededKey, admin_session


@pytest.fixture
def events(rig: SandboxRig) -> TrailEvents:
    """The wrapper, as the account's administrator."""
    return TrailEvents(admin_session(rig.sandbox))


@pytest.fixture
def busy_key(rig: SandboxRig) -> SeededKey:
    """A key with 60 events, more than a page."""
    key = rig.seed(user_name="carol")
    sts = rig.aws("sts", key)
    for _ in range(59):
        sts.get_caller_identity()
    rig.aws("ses", key).get_send_quota()
    return key


def test_what_a_key_did(events: TrailEvents, busy_key: SeededKey) -> None:
    """All pages are read, newest first, and a document is the event as it was written."""
    found = events.lookup("AccessKeyId", busy_key.access_key_id, since=None, limit=500)

    assert [("GetSendQuota", "ses.amazonaws.com")] + [
        ("GetCallerIdentity", "sts.amazonaws.com")
    ] * 59 == [(event.name, event.source) for event in found]
    assert len({event.event_id for event in found}) == 60
    document = json.loads(found[0].document)
    assert document["eventID"] == found[0].event_id
    assert document["userIdentity"]["accessKeyId"] == busy_key.access_key_id
    assert abs(datetime.now(UTC) - found[0].at) < timedelta(minutes=1)


@pytest.mark.parametrize("limit", [1, 50, 55])
def test_the_oldest_are_left_out(events: TrailEvents, busy_key: SeededKey, limit: int) -> None:
    """The limit holds within a page and over several."""
    found = events.lookup("AccessKeyId", busy_key.access_key_id, since=None, limit=limit)

    assert limit == len(found)
    assert found[0].name == "GetSendQuota"


def test_what_a_user_did(rig: SandboxRig, events: TrailEvents, busy_key: SeededKey) -> None:
    """A user may have several keys."""
    second = IamKeys(admin_session(rig.sandbox)).create_access_key("carol")
    key = SeededKey("carol", second.access_key_id, second.secret_key)
    rig.aws("sts", key).get_caller_identity()

    found = events.lookup("Username", "carol", since=None, limit=500)
    assert len(found) == 61


def test_nothing_older_than(rig: SandboxRig, events: TrailEvents) -> None:
    """The start may lie before or after what happened."""
    key = rig.seed()
    rig.aws("sts", key).get_caller_identity()
    now = datetime.now(UTC)

    counts = [
        len(events.lookup("AccessKeyId", key.access_key_id, since=now + shift, limit=10))
        for shift in (timedelta(hours=-1), timedelta(hours=1))
    ]
    assert [1, 0] == counts


def test_the_events_of_iam_are_in_one_region(rig: SandboxRig) -> None:
    """They are looked for in us-east-1, wherever the credential is."""
    key = rig.seed()
    rig.aws("iam", key, region_name="eu-west-1").list_users()
    here = admin_session(rig.sandbox).in_region("eu-west-1")

    counts = [
        len(TrailEvents(session).lookup("AccessKeyId", key.access_key_id, since=None, limit=10))
        for session in (here, here.in_region("us-east-1"))
    ]
    assert [0, 1] == counts


def test_a_key_that_did_nothing(events: TrailEvents) -> None:
    """Nothing is found, and that is no error."""
    assert events.lookup("AccessKeyId", "AKIAIOSFODNN7EXAMPLE", since=None, limit=10) == ()

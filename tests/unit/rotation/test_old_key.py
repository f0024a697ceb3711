"""The old key: deactivated only when nobody uses it, deleted only when it is dead."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rigs.rotating_host import NAME, RotatingHost, ignore, quick_pace
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import CredentialVersion
from sesguard.errors import CheckFailed
from sesguard.rotation.context import Pace

ACTIVE, INACTIVE = KeyStatus.ACTIVE, KeyStatus.INACTIVE
NewHost = Callable[..., RotatingHost]
LONG_GRACE = "[rotation]\ngrace_hours = 24\ndrain_timeout_s = 1\n"


def in_hours(hours: float) -> Pace:
    """A clock that is so far ahead."""
    return quick_pace(lambda: datetime.now(UTC) + timedelta(hours=hours))


def using(login: Callable[[], object]) -> Pace:
    """A clock on which something happens in every pause of a second."""
    pace = quick_pace()

    def sleep(seconds: float) -> None:
        if seconds == 1.0:
            login()
        pace.sleep(seconds)

    return replace(pace, sleep=sleep)


@pytest.fixture
def old(host: RotatingHost) -> CredentialVersion:
    """The version that is CURRENT at the start."""
    return host.credential().current()


def test_a_session_of_before_keeps_the_old_key_active(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """It is named by program and process, exit 1; once it is over, the next pass deactivates."""
    with host.rig.session(host.login(old)) as session:
        with pytest.raises(CheckFailed) as caught:
            host.rotate()
        assert 1 == caught.value.exit_code
        assert f"(pid {os.getpid()}) has a session with" in str(caught.value)
        assert {ACTIVE} == set(host.statuses().values())
        assert 2 == host.credential().current().number
        assert 250 == session.noop()[0]

    assert host.retire()
    assert INACTIVE is host.statuses()[old.username]
    assert host.retire()
    assert {host.login().user: ACTIVE} == host.statuses()
    assert not host.retire()
    assert [2] == [version.number for version in host.credential().versions]


def test_a_session_that_stays_open_keeps_the_key_for_ever(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """Every pass says so again, and none deactivates it; the next rotation is refused."""
    with host.rig.session(host.login(old)):
        for act in (host.rotate, host.retire, host.retire):
            with pytest.raises(CheckFailed, match="has a session with"):
                act()
        with pytest.raises(CheckFailed, match=f"{old.username} of version 1 is still active"):
            host.rotate()
    assert ACTIVE is host.statuses()[old.username]


def test_a_session_that_ends_in_time_is_waited_for(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """Then the old key is deactivated by the rotation itself."""
    host.write_settings("[rotation]\ngrace_hours = 0\ndrain_timeout_s = 60\n")
    with host.rig.session(host.login(old)) as session:
        pace = quick_pace()
        polls = iter(range(1_000_000))

        def sleep(seconds: float) -> None:
            if next(polls) == 5:
                session.close()
            pace.sleep(seconds)

        host.rotation(replace(pace, sleep=sleep)).rotate(NAME, ignore)
    assert INACTIVE is host.statuses()[old.username]


def test_a_use_elsewhere_is_seen_through_iam(host: RotatingHost, old: CredentialVersion) -> None:
    """A login of another host during the last second: the key stays active, exit 1."""
    with pytest.raises(CheckFailed, match=f"IAM saw {old.username} used by ses in us-east-1"):
        host.rotation(using(lambda: host.logs_in(old))).rotate(NAME, ignore)
    assert {ACTIVE} == set(host.statuses().values())
    assert host.logs_in()
    assert host.logs_in(old)


def test_a_use_in_the_same_second_is_not_overlooked(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """IAM tells of it by the second, which may have begun before this host was quiet."""
    pace = using(lambda: host.logs_in(old))
    late = replace(pace, now=lambda: datetime.now(UTC).replace(microsecond=999_999))
    with pytest.raises(CheckFailed, match="IAM saw"):
        host.rotation(late).rotate(NAME, ignore)
    assert ACTIVE is host.statuses()[old.username]


def test_a_use_elsewhere_before_the_change_does_not_matter(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """Only what happens once the host itself is quiet tells of somebody else."""
    assert host.logs_in(old)
    host.rotate()
    assert INACTIVE is host.statuses()[old.username]


def test_a_key_in_use_is_deactivated_after_a_time_of_grace_without_one(new_host: NewHost) -> None:
    """Not an hour before, and it is deleted another time of grace later."""
    host = new_host(extra=LONG_GRACE)
    old = host.credential().current()
    with pytest.raises(CheckFailed):
        host.rotation(using(lambda: host.logs_in(old))).rotate(NAME, ignore)

    assert not host.rotation(in_hours(23)).retire(NAME, ignore)
    assert ACTIVE is host.statuses()[old.username]
    assert host.rotation(in_hours(25)).retire(NAME, ignore)
    assert INACTIVE is host.statuses()[old.username]
    assert not host.rotation(in_hours(25 + 23)).retire(NAME, ignore)
    assert host.rotation(in_hours(25 + 25)).retire(NAME, ignore)
    assert old.username not in host.statuses()


def test_an_inactive_key_is_deleted_after_the_time_of_grace(new_host: NewHost) -> None:
    """Not before it; and with its key the version goes."""
    host = new_host(extra=LONG_GRACE)
    host.rotate()

    assert not host.rotation(in_hours(23)).retire(NAME, ignore)
    assert 2 == len(host.statuses())
    assert host.rotation(in_hours(25)).retire(NAME, ignore)
    assert {host.login().user: ACTIVE} == host.statuses()


def test_a_key_that_was_activated_again_is_not_deleted(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """It is told, exit 1, and stays for as long as it is in use; from then on it is idle again."""
    host.rotate()
    host.iam.set_key_status(host.user, old.username, ACTIVE)
    with pytest.raises(CheckFailed, match=f"activated {old.username} again") as caught:
        host.retire()
    assert 1 == caught.value.exit_code
    with host.rig.session(host.login(old)), pytest.raises(CheckFailed, match="has a session"):
        host.retire()
    assert ACTIVE is host.statuses()[old.username]

    host.retire()
    assert INACTIVE is host.statuses()[old.username]
    host.retire()
    assert old.username not in host.statuses()


def test_an_old_key_that_somebody_deleted_is_forgotten(
    host: RotatingHost, old: CredentialVersion
) -> None:
    """Its version is dropped, and nothing fails."""
    host.rotate()
    host.iam.ensure_key_deleted(host.user, old.username)

    assert host.retire()
    assert host.credential().of_key(old.username) is None
    assert not host.retire()


def test_a_current_key_is_never_retired(host: RotatingHost) -> None:
    """Whatever the clock says and however often it is asked."""
    assert not host.rotation(in_hours(10_000)).retire(NAME, ignore)
    assert {host.key.access_key_id: ACTIVE} == host.statuses()

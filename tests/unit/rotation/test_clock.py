"""A wall clock that jumps by a year at any step loses no credential and no key that is in use."""

from datetime import UTC, datetime, timedelta

import pytest

from rigs.rotating_host import NAME, RotatingHost, ignore, quick_pace
from sesguard.aws.iam import KeyStatus
from sesguard.rotation.context import Pace

YEAR = timedelta(days=365)


class Clock:
    """A clock that jumps after so many looks at it."""

    def __init__(self, jumps_after: int, jump: timedelta) -> None:
        self.looks = 0
        self.jumps_after = jumps_after
        self.jump = jump

    def now(self) -> datetime:
        """The time, wrong from some look on."""
        self.looks += 1
        wrong = self.jump if self.looks > self.jumps_after else timedelta()
        return datetime.now(UTC) + wrong

    @property
    def pace(self) -> Pace:
        """For the services."""
        return quick_pace(self.now)


def looks_of_a_rotation(host: RotatingHost) -> int:
    """How often a clean rotation and its retirement look at the clock."""
    clock = Clock(10_000, YEAR)
    host.rotation(clock.pace).rotate(NAME, ignore)
    host.rotation(clock.pace).retire(NAME, ignore)
    return clock.looks


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "backward"])
def test_a_jump_at_every_step(host: RotatingHost, jump: timedelta) -> None:
    """CURRENT always works, what is deleted was inactive, and the next rotation goes well."""
    looks = looks_of_a_rotation(host)
    assert looks >= 4
    for jumps_after in range(looks):
        old = host.credential().current()
        clock = Clock(jumps_after, jump)
        rotated = host.rotation(clock.pace).rotate(NAME, ignore)

        assert host.logs_in()
        assert rotated.username == host.login().user
        assert {old.username: KeyStatus.INACTIVE, rotated.username: KeyStatus.ACTIVE} == (
            host.statuses()
        )
        host.rotation(clock.pace).retire(NAME, ignore)
        assert host.logs_in()
        assert KeyStatus.ACTIVE is host.statuses()[rotated.username]
        assert set() == host.unknown_keys()


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "backward"])
def test_a_jump_deletes_no_key_that_is_in_use(host: RotatingHost, jump: timedelta) -> None:
    """A key that was left active because of a session is deactivated, but not deleted, by it."""
    old = host.credential().current()
    clock = Clock(0, jump)
    with host.rig.session(host.login(old)), pytest.raises(Exception, match="has a session"):
        host.rotation(clock.pace).rotate(NAME, ignore)
    host.rotation(clock.pace).retire(NAME, ignore)

    assert old.username in host.statuses()
    assert host.logs_in()
    assert not host.rotation(Clock(0, -jump).pace).status(NAME).held

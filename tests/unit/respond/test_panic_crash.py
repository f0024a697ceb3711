"""
`panic` killed at every point, and out of disk space at every point.

The points are those that a clean run passes (`rigs.crash`), so that a new step is covered by
itself. Each case has a host and an IAM user of its own. The configuration set is shared: panic
pauses it and resumes it each time.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from typing import Any

import pytest

from rigs.crash import full_disk_at, points_before_writes, points_of, points_until_killed
from rigs.rotating_host import NAME, RotatingHost
from rigs.sandbox import Login, SandboxRig
from sesguard.aws.errors import AwsMissing
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import StagingLabel
from sesguard.respond.incident import IncidentRecord, IncidentState
from sesguard.respond.playbook import CONTAINMENT
from sesguard.vault.opening import make_provider
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.journal import EntryState, open_journal

NewHost = Callable[..., RotatingHost]
SET = "crash-matrix"


@cache
def ses_of(rig: SandboxRig) -> Any:
    """A client; it takes long to make."""
    return rig.aws("sesv2")


@pytest.fixture
def new_set_host(new_host: NewHost, rig: SandboxRig) -> NewHost:
    """Makes hosts whose credential has a configuration set."""
    ses = ses_of(rig)
    if SET not in ses.list_configuration_sets()["ConfigurationSets"]:
        ses.create_configuration_set(ConfigurationSetName=SET)
    return lambda: new_host(configuration_set=SET)


@contextlib.contextmanager
def at_point(point: int, points: list[str]) -> Iterator[None]:
    """Say at which point it failed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"point {point} of {len(points)}, {points[point - 1]}") from error


class Leak:
    """A host whose key leaked, and what must hold of it at any moment."""

    def __init__(self, host: RotatingHost) -> None:
        self.host = host
        self.old = host.credential().current()
        self.thief: Login = host.login()

    def require_sound(self) -> None:
        """The vault opens; what is handed out works, or is the leaked key; at most two keys."""
        host = self.host
        assert all(check.ok for check in host.vault.verify())
        current = host.current()
        assert current is None or current.username == self.old.username or host.logs_in()
        for user in self.users():
            assert len(host.statuses(user)) <= 2

    def require_dead_if_cut(self) -> bool:
        """Whether the leaked key is dead, which it is once the journal says so."""
        dead = not self.host.can_send(self.thief)
        assert dead or not self._is_cut_by_the_journal()
        return dead

    def _is_cut_by_the_journal(self) -> bool:
        settings = self.host.settings
        sealer = VaultSealer(make_provider(settings))
        with closing(open_journal(settings.state_directory, sealer)) as journal:
            return any(
                entry.title.template.startswith("deactivate the leaked key")
                and entry.state is EntryState.DONE
                for run in journal.runs(CONTAINMENT)
                for entry in journal.entries(run.run_id)
            )

    def users(self) -> list[str]:
        """The old user, and those that panic made from it."""
        stem = self.host.user
        names = [stem, *(f"{stem}-r{number}" for number in range(2, 5))]
        return [name for name in names if self._has_user(name)]

    def _has_user(self, name: str) -> bool:
        try:
            self.host.statuses(name)
        except AwsMissing:
            return False
        return True

    def record(self) -> IncidentRecord:
        """The one incident."""
        (record,) = self.host.incidents()
        assert self.old.username == record.access_key_id
        return record

    def require_contained(self) -> None:
        """The leaked key is dead and the mail is held."""
        self.require_sound()
        assert not self.host.can_send(self.thief)
        assert self.host.current() is None
        assert IncidentState.CONTAINED is self.record().state
        assert [self.host.user] == self.users()
        assert {self.old.username: KeyStatus.INACTIVE} == self.host.statuses()

    def require_recovered(self) -> None:
        """Mail flows with the one key of the one new user, and the leaked key is dead."""
        host = self.host
        self.require_sound()
        assert not host.can_send(self.thief)
        assert {self.old.username: KeyStatus.INACTIVE} == host.statuses()
        old_user, new_user = self.users()
        assert host.user == old_user
        login = host.login()
        assert {login.user: KeyStatus.ACTIVE} == host.statuses(new_user)
        assert host.can_send(login)
        assert StagingLabel.PENDING not in host.credential().labels
        record = self.record()
        assert IncidentState.RECOVERED is record.state
        assert host.user == record.user_name
        assert {NAME: host.credential().current().number} == record.new_versions
        assert {file.name for file in record.evidence} >= {"evidence/keys.json"}
        assert sending(host)


def sending(host: RotatingHost) -> bool:
    """Whether the configuration set is not paused."""
    ses = ses_of(host.rig)
    answer = ses.get_configuration_set(ConfigurationSetName=SET)
    return bool(answer["SendingOptions"]["SendingEnabled"])


def panic_again(leak: Leak, *, contain_only: bool = False) -> None:
    """As a person runs it again: without a key, unless all was done already."""
    last = next(iter(leak.host.incidents()), None)
    if last is not None and last.state is IncidentState.RECOVERED:
        leak.host.panic(leak.old.username)
        return
    assert leak.old.username == leak.host.panic_service().leaked_key(NAME, None)
    leak.host.panic(contain_only=contain_only)


@pytest.mark.timeout(600)
def test_panic_killed_at_every_point_converges(new_set_host: NewHost) -> None:
    """Run again it recovers; from the first refusal on the leaked key is never taken again."""
    leak = Leak(new_set_host())
    points = points_of(leak.host.panic)
    dead = []
    for point in range(1, len(points) + 1):
        with at_point(point, points):
            leak = Leak(new_set_host())

            assert points[:point] == points_until_killed(leak.host.panic, point)

            leak.require_sound()
            dead.append(leak.require_dead_if_cut())
            panic_again(leak)
            leak.require_recovered()
    assert sorted(dead) == dead
    assert {False, True} == set(dead)
    leak.host.rotate()
    assert leak.host.logs_in()


@pytest.mark.timeout(300)
def test_containment_killed_at_every_point_converges(new_set_host: NewHost) -> None:
    """With ``--contain-only``: run again the key is dead and the mail held; panic then recovers."""
    leak = Leak(new_set_host())
    points = points_of(partial(leak.host.panic, contain_only=True))
    resume_sending(leak.host)
    for point in range(1, len(points) + 1):
        with at_point(point, points):
            leak = Leak(new_set_host())
            contain = partial(leak.host.panic, contain_only=True)

            assert points[:point] == points_until_killed(contain, point)

            leak.require_sound()
            leak.require_dead_if_cut()
            panic_again(leak, contain_only=True)
            leak.require_contained()
            assert not sending(leak.host)
            resume_sending(leak.host)
    leak.host.panic()
    leak.require_recovered()


def resume_sending(host: RotatingHost) -> None:
    """For the next host with the same set."""
    ses = ses_of(host.rig)
    ses.put_configuration_set_sending_options(ConfigurationSetName=SET, SendingEnabled=True)


@pytest.mark.timeout(600)
def test_panic_out_of_disk_space_from_any_point_on_cuts_the_key(new_set_host: NewHost) -> None:
    """The leaked key is dead whatever could not be written; with space again panic recovers."""
    points = points_of(new_set_host().panic)
    codes = []
    for point in points_before_writes(points):
        with at_point(point, points):
            leak = Leak(new_set_host())

            codes.append(full_disk_at(leak.host.panic, point))

            leak.require_sound()
            assert not leak.host.can_send(leak.thief)
            panic_again(leak)
            leak.require_recovered()
    assert {4} == set(codes)

"""
`rotate` and `retire` killed at every point, and out of disk space at every point.

The points are those that a clean run passes (`rigs.crash`), so that a new step is covered by
itself. One host goes through all of them: what one kill left and `resume` repaired is what the next
rotation begins with, so each case also shows that the one before did not wedge anything.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from rigs.crash import full_disk_at, points_before_writes, points_of, points_until_killed
from rigs.rotating_host import NAME, RotatingHost, daemon_that_serves, ignore, quick_pace
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import RolledBack
from sesguard.rotation.context import Pace

Failing = Callable[[RotatingHost], contextlib.AbstractContextManager[Callable[[], object]]]


def require_mail_flows(host: RotatingHost) -> None:
    """What holds at every moment: a vault that opens, a CURRENT that works, at most two keys."""
    assert all(check.ok for check in host.vault.verify())
    assert host.logs_in()
    assert len(host.statuses()) <= 2


def require_converged(host: RotatingHost) -> None:
    """What holds after `resume`: no key that the vault does not know, nothing half done."""
    require_mail_flows(host)
    assert set() == host.unknown_keys()
    assert StagingLabel.PENDING not in host.credential().labels
    assert all(run.state.finished for run in host.rotation().history(NAME))


def require_rotated_or_as_before(host: RotatingHost, old: Credential) -> bool:
    """Whether the new version is CURRENT, and then the old key is cut; else all is as it was."""
    require_converged(host)
    now, before = host.credential(), old.current()
    if now.current() == before:
        assert {before.username: KeyStatus.ACTIVE} == {
            key: status for key, status in host.statuses().items() if key == before.username
        }
        return False
    assert old.next_number == now.current().number
    assert before.number == now.labels[StagingLabel.PREVIOUS]
    assert {before.username: KeyStatus.INACTIVE, now.current().username: KeyStatus.ACTIVE} == (
        host.statuses()
    )
    return True


@contextlib.contextmanager
def at_point(point: int, points: list[str]) -> Iterator[None]:
    """Say at which point it failed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"point {point} of {len(points)}, {points[point - 1]}") from error


def resume(host: RotatingHost) -> None:
    """``sesguard rotate --resume``; a run that fails may be rolled back by it."""
    with contextlib.suppress(RolledBack):
        host.resume()


def with_an_old_key(host: RotatingHost) -> RotatingHost:
    """The host, its second slot taken by the PREVIOUS key, so that a rotation frees it first."""
    if StagingLabel.PREVIOUS not in host.credential().labels:
        host.rotate()
    return tidied(host)


def tidied(host: RotatingHost) -> RotatingHost:
    """The host, its vault changed once: what a kill left beside it would be points of the next."""

    def change(credential: Credential) -> Credential:
        current = credential.current()
        return credential.with_version(replace(current, exposed=not current.exposed))

    host.change(change)
    return host


def test_rotation_killed_at_every_point_converges(host: RotatingHost) -> None:
    """Mail flows right after each kill, and after `resume` it is rotated, or as before."""
    points = points_of(with_an_old_key(host).rotate)
    rotated = []
    for point in range(1, len(points) + 1):
        with at_point(point, points):
            old = with_an_old_key(host).credential()

            assert points[:point] == points_until_killed(host.rotate, point)

            require_mail_flows(host)
            host.resume()
            rotated.append(require_rotated_or_as_before(host, old))
    assert sorted(rotated) == rotated
    assert {False, True} == set(rotated)
    host.rotate()
    require_converged(host)


@contextlib.contextmanager
def refused_mail(host: RotatingHost) -> Iterator[Callable[[], object]]:
    """A rotation that fails at TEST: its test mail is refused for good."""
    host.write_settings(canary_sender="postmaster@not-verified.example")
    yield lambda: host.rotation().rotate(NAME, ignore, send_mail=True)


@contextlib.contextmanager
def stuck_daemon(host: RotatingHost) -> Iterator[Callable[[], object]]:
    """A rotation that fails at DEPLOY: the daemon goes on handing the old version out."""
    host.pace = hurried_pace()
    with daemon_that_serves(host, 1):
        yield host.rotate


def hurried_pace() -> Pace:
    """Any pause passes at least five seconds, so that what is polled is given up soon."""
    pace, extra = quick_pace(), 0.0

    def sleep(seconds: float) -> None:
        nonlocal extra
        extra += max(0.0, 5.0 - seconds)
        pace.sleep(seconds)

    return replace(pace, monotonic=lambda: pace.monotonic() + extra, sleep=sleep)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("failing", [refused_mail, stuck_daemon])
def test_roll_back_killed_at_every_point_converges(host: RotatingHost, failing: Failing) -> None:
    """Also while the new version is CURRENT already: `resume` ends with the old key alone."""
    old = host.credential()
    with failing(host) as rotate:

        def attempt() -> None:
            with contextlib.suppress(RolledBack):
                rotate()

        points = points_of(attempt)
        for point in range(1, len(points) + 1):
            with at_point(point, points):
                assert points[:point] == points_until_killed(attempt, point)

                require_mail_flows(host)
                resume(host)
                require_converged(host)
                now = host.credential()
                assert (old.versions, old.labels) == (now.versions, now.labels)
                assert {old.current().username: KeyStatus.ACTIVE} == host.statuses()
                old = tidied(host).credential()
    host.write_settings()
    host.rotate()
    assert require_rotated_or_as_before(host, old)


def test_retirement_killed_at_every_point_converges(host: RotatingHost) -> None:
    """An old key that was left active is deactivated, then deleted; the next pass completes it."""

    def retire_twice() -> None:
        host.retire()
        host.retire()

    leave_an_old_key_active(host)
    current = host.credential().current()
    points = points_of(retire_twice)
    for point in range(1, len(points) + 1):
        with at_point(point, points):
            leave_an_old_key_active(host)
            current = host.credential().current()

            assert points[:point] == points_until_killed(retire_twice, point)

            require_mail_flows(host)
            retire_twice()
            require_converged(host)
            assert current == host.credential().current()
            assert (current,) == host.credential().versions
            assert {current.username: KeyStatus.ACTIVE} == host.statuses()
    assert host.rotate().number == current.number + 1


def leave_an_old_key_active(host: RotatingHost) -> None:
    """As after a rotation whose FINISH saw the old key in use; nobody uses it any more."""
    made = host.iam.create_access_key(host.user)
    password = derive_smtp_password(made.secret_key, host.rig.info.region)
    host.add_pending(made.access_key_id, password)
    host.change(Credential.promote)


def test_rotation_out_of_disk_space_from_any_point_on(host: RotatingHost) -> None:
    """It is done, rolled back or says what to do; mail flows, and with space again it converges."""
    points = points_of(with_an_old_key(host).rotate)
    codes = []
    for point in points_before_writes(points):
        with at_point(point, points):
            old = with_an_old_key(host).credential()

            codes.append(full_disk_at(host.rotate, point))

            require_mail_flows(host)
            resume(host)
            require_rotated_or_as_before(host, old)
    assert {4} == set(codes)

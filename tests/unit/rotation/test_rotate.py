"""Rotation as a whole: what it leaves behind, which slots it takes, what it refuses."""

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event

import pytest

from rigs.rotating_host import NAME, RotatingHost, daemon_that_serves, ignore, quick_pace
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.rotation import RotationStep
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import CheckFailed, RolledBack, UsageError
from sesguard.rotation.context import Pace
from sesguard.rotation.service import LOCK_FILE
from sesguard.system.locks import LockBusyError, exclusive_lock
from sesguard.workflow.journal import RunState

ACTIVE, INACTIVE = KeyStatus.ACTIVE, KeyStatus.INACTIVE
NewHost = Callable[..., RotatingHost]


def make_key(host: RotatingHost, *, status: KeyStatus = ACTIVE) -> str:
    """A further key of the host's user that the vault does not know."""
    made = host.iam.create_access_key(host.user).access_key_id
    if status is not ACTIVE:
        host.iam.set_key_status(host.user, made, status)
    return made


def pending_of(host: RotatingHost) -> str:
    """A further key, PENDING in the vault, as an attempt leaves it whose journal got lost."""
    made = host.iam.create_access_key(host.user)
    password = derive_smtp_password(made.secret_key, host.rig.info.region)
    host.add_pending(made.access_key_id, password)
    return made.access_key_id


def test_a_rotation_leaves_a_new_current_and_an_inactive_old_key(host: RotatingHost) -> None:
    """The new one works, the old one does not, and both are in the vault."""
    old = host.credential().current()
    rotated = host.rotate()

    assert (2, rotated.username) == (rotated.number, host.login().user)
    assert {old.username: INACTIVE, rotated.username: ACTIVE} == host.statuses()
    assert host.logs_in()
    assert not host.logs_in(old)
    assert old.number == host.credential().labels[StagingLabel.PREVIOUS]
    assert host.credential().version(old.number).deactivated_at is not None
    assert not host.resume()


def test_the_journal_tells_of_the_steps_in_their_order(host: RotatingHost) -> None:
    """CREATE, TEST, DEPLOY, FINISH; the run is done and the journal says when it began."""
    service = host.rotation()
    plan = service.plan(NAME)
    host.rotate()

    phases = list(dict.fromkeys(step.part_of for step in plan.steps))
    assert list(RotationStep)[:4] == phases
    (run,) = service.history(NAME)
    assert RunState.DONE is run.state
    assert service.status(NAME).interrupted is None


def test_a_plan_changes_nothing(host: RotatingHost) -> None:
    """Neither at AWS nor in the vault nor in the journal, and it names each change."""
    service, before = host.rotation(), host.credential()
    effects = [line for _step, lines in service.effects(NAME, service.plan(NAME)) for line in lines]

    assert before == host.credential()
    assert {host.key.access_key_id: ACTIVE} == host.statuses()
    assert [] == service.history(NAME)
    for call in ("iam:CreateAccessKey", "iam:UpdateAccessKey", "SMTP AUTH"):
        assert any(line.startswith(call) for line in effects), call


def test_ten_rotations_in_a_row_never_need_a_third_key(host: RotatingHost) -> None:
    """Each frees the slot of the one before."""
    for number in range(2, 12):
        assert number == host.rotate().number
        assert 2 == len(host.statuses())
        assert set() == host.unknown_keys()
    assert [10, 11] == [version.number for version in host.credential().versions]


def test_the_test_mail_goes_to_the_mailbox_simulator(host: RotatingHost) -> None:
    """With the new key, before it becomes CURRENT."""
    host.rotation().rotate(NAME, ignore, send_mail=True)

    mail = next(m for m in host.rig.client.inbox() if m.access_key_id == host.login().user)
    assert ("success@simulator.amazonses.com",) == mail.recipients


def test_a_test_mail_that_is_refused_rolls_back(new_host: NewHost) -> None:
    """A key that logs in and may not send is of no use."""
    host = new_host(canary_sender="postmaster@not-verified.example")
    with pytest.raises(RolledBack, match="Email address is not verified"):
        host.rotation().rotate(NAME, ignore, send_mail=True)

    assert {host.key.access_key_id: ACTIVE} == host.statuses()
    assert host.logs_in()


def test_a_foreign_key_is_refused_and_named(host: RotatingHost) -> None:
    """A second key that no vault knows is left alone: exit 1, nothing has changed."""
    foreign = make_key(host)
    with pytest.raises(CheckFailed, match=foreign) as caught:
        host.rotate()

    assert 1 == caught.value.exit_code
    assert caught.value.hint is not None
    assert {host.key.access_key_id: ACTIVE, foreign: ACTIVE} == host.statuses()
    assert [] == host.rotation().history(NAME)


def test_an_inactive_foreign_key_is_refused_too(host: RotatingHost) -> None:
    """It may be what somebody wants to activate again."""
    foreign = make_key(host, status=INACTIVE)
    with pytest.raises(CheckFailed, match=rf"{foreign} \(Inactive"):
        host.rotate()
    assert foreign in host.statuses()


def test_a_previous_key_that_is_inactive_is_freed(host: RotatingHost) -> None:
    """The slot that the rotation before left is taken, in a run of its own."""
    first, second = host.key.access_key_id, host.rotate().username
    third = host.rotate().username

    assert {second: INACTIVE, third: ACTIVE} == host.statuses()
    assert host.credential().of_key(first) is None
    workflows = [run.workflow for run in reversed(host.rotation().history(NAME))]
    assert sorted(["rotation", "retirement", "rotation"]) == sorted(workflows)


def test_a_previous_key_that_is_active_is_refused(host: RotatingHost) -> None:
    """It was seen in use, or was activated by somebody: exit 1, and it is named."""
    first, second = host.key.access_key_id, host.rotate().username
    host.iam.set_key_status(host.user, first, ACTIVE)
    with pytest.raises(CheckFailed, match=first) as caught:
        host.rotate()

    assert 1 == caught.value.exit_code
    assert {first: ACTIVE, second: ACTIVE} == host.statuses()
    assert 2 == host.credential().current().number


def test_pending_without_a_journal_is_adopted(host: RotatingHost) -> None:
    """A key that works and waits in the vault is taken instead of a third one."""
    pending = pending_of(host)
    rotated = host.rotate()

    assert pending == rotated.username
    assert {host.key.access_key_id: INACTIVE, pending: ACTIVE} == host.statuses()
    assert host.logs_in()


@pytest.mark.parametrize("dead", ["deleted", "deactivated"])
def test_pending_with_a_dead_key_is_dropped(host: RotatingHost, dead: str) -> None:
    """Its slot is freed, and the rotation makes a key of its own."""
    pending = pending_of(host)
    if dead == "deleted":
        host.iam.ensure_key_deleted(host.user, pending)
    else:
        host.iam.set_key_status(host.user, pending, INACTIVE)
    rotated = host.rotate()

    assert pending != rotated.username
    assert {host.key.access_key_id: INACTIVE, rotated.username: ACTIVE} == host.statuses()
    assert host.credential().of_key(pending) is None


def test_a_vault_without_a_current_version_is_refused(host: RotatingHost) -> None:
    """While mail is held, rotation has nothing to start from."""
    host.change(Credential.hold)
    with pytest.raises(CheckFailed, match="is held"):
        host.rotate()
    assert {host.key.access_key_id: ACTIVE} == host.statuses()


def test_a_key_that_aws_does_not_know_is_refused(host: RotatingHost) -> None:
    """Without iam_user nobody can tell whose key it was: exit 1."""
    host.iam.ensure_key_deleted(host.user, host.key.access_key_id)
    with pytest.raises(CheckFailed, match=host.key.access_key_id):
        host.rotate()


def test_a_dead_current_key_is_replaced_when_the_user_is_known(host: RotatingHost) -> None:
    """With iam_user in the settings the host gets a key again."""
    host.write_settings(iam_user=host.user)
    host.iam.ensure_key_deleted(host.user, host.key.access_key_id)
    rotated = host.rotate()

    assert {rotated.username: ACTIVE} == host.statuses()
    assert host.logs_in()


def test_the_first_key_is_issued_once(host: RotatingHost) -> None:
    """For the user that the settings name, next to a key of somebody else; then never again."""
    host.write_settings(iam_user=host.user)
    host.vault.remove(NAME)
    issued = host.rotation().issue(NAME, ignore)

    assert {host.key.access_key_id: ACTIVE, issued.username: ACTIVE} == host.statuses()
    assert host.logs_in()
    with pytest.raises(CheckFailed, match="has a version already"):
        host.rotation().issue(NAME, ignore)


def test_the_first_key_needs_a_user_with_a_free_slot(host: RotatingHost) -> None:
    """It is refused without iam_user, and while two keys are there that nobody knows."""
    host.vault.remove(NAME)
    with pytest.raises(UsageError, match="which IAM user"):
        host.rotation().issue(NAME, ignore)
    host.write_settings(iam_user=host.user)
    foreign = make_key(host)
    with pytest.raises(CheckFailed, match=f"{host.key.access_key_id}|{foreign}"):
        host.rotation().issue(NAME, ignore)
    assert {host.key.access_key_id, foreign} == set(host.statuses())


def test_two_at_once_the_second_is_refused(host: RotatingHost) -> None:
    """While another process holds the lock, nothing is read or begun."""
    context = multiprocessing.get_context("fork")
    held, enough = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(host, held, enough))
    holder.start()
    try:
        assert held.wait(20)
        for act in (host.rotate, host.resume, host.retire):
            with pytest.raises(LockBusyError):
                act()
    finally:
        enough.set()
        holder.join(20)
    assert 2 == host.rotate().number


def _hold(host: RotatingHost, held: Event, enough: Event) -> None:
    with exclusive_lock(host.directory / "state" / LOCK_FILE):
        held.set()
        enough.wait(60)


def test_status_tells_age_due_date_and_replaced_keys(host: RotatingHost) -> None:
    """By the clock of the service; nothing of AWS is asked."""
    host.rotate()
    later = quick_pace(lambda: datetime.now(UTC) + timedelta(days=84))
    status = host.rotation(later).status(NAME)

    assert status.age is not None
    assert 84 == status.age.days
    assert not status.overdue
    assert [1] == [version.number for version in status.replaced]
    assert (
        host.rotation(quick_pace(lambda: datetime.now(UTC) + timedelta(days=91)))
        .status(NAME)
        .overdue
    )


def test_a_daemon_that_serves_the_old_version_rolls_back(host: RotatingHost) -> None:
    """A host that does not use the new version keeps the old one, exit 3."""
    with daemon_that_serves(host, 1), pytest.raises(RolledBack, match="hands out version 1") as got:
        host.rotate()

    assert 3 == got.value.exit_code
    assert 1 == host.credential().current().number
    assert {host.key.access_key_id: ACTIVE} == host.statuses()
    assert host.logs_in()


def test_a_key_that_takes_some_seconds_to_work_is_waited_for(new_host: NewHost) -> None:
    """IAM is eventually consistent; the wait is real here."""
    host = new_host(pace=Pace())
    host.rig.client.configure(new_key_delay_s=1.0)
    host.rotate()

    assert host.logs_in()
    assert 2 == host.credential().current().number


def test_a_key_that_does_not_work_in_time_is_taken_back(new_host: NewHost) -> None:
    """The old one stays CURRENT, the new one is gone, exit 3."""
    host = new_host(pace=Pace(), extra="[rotation]\ntest_timeout_s = 1\n")
    host.rig.client.configure(new_key_delay_s=30.0)
    with pytest.raises(RolledBack, match="did not take the new key"):
        host.rotate()

    host.rig.client.configure(new_key_delay_s=0.0)
    assert {host.key.access_key_id: ACTIVE} == host.statuses()
    assert host.logs_in()
    assert 3 == host.rotate().number

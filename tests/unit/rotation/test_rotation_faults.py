"""
Each AWS call of a rotation x each fault, once and for ever.

The calls are those that a clean rotation makes, so that a new one is covered by itself. The session
repeats nothing, so each fault reaches our code; one test has botocore's repetition as well.
"""

import os
import signal
from collections.abc import Callable

import pytest

from rigs.rotating_host import (
    NAME,
    RotatingHost,
    calls_of,
    daemon_that_serves,
    one_attempt,
    patient,
)
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import StagingLabel
from sesguard.errors import CheckFailed, Error, RolledBack
from sesguard.sandbox.model import ApiFaultKind
from sesguard.sandbox.seed import admin_session

NewHost = Callable[..., RotatingHost]
ACTIVE, INACTIVE = KeyStatus.ACTIVE, KeyStatus.INACTIVE

FOR_EVER = (ApiFaultKind.THROTTLED, ApiFaultKind.DENIED, ApiFaultKind.LOST)
"""Of those that leave nothing behind at AWS one is enough."""
MATRIX = [
    *(pytest.param(kind, 1, id=f"{kind}-once") for kind in ApiFaultKind),
    *(pytest.param(kind, None, id=f"{kind}-for-ever") for kind in FOR_EVER),
]


def rotation_calls(host: RotatingHost) -> list[tuple[str, int]]:
    """Each call of a rotation that frees a slot first: its name and how many such came before."""
    host.rotate()
    names = calls_of(one_attempt(host.rig), host.rotate)
    assert {"iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey"} < set(names)
    return [(name, names[:index].count(name)) for index, name in enumerate(names)]


def require_sound(host: RotatingHost) -> None:
    """What holds at every moment: at most two keys, a vault that opens, a CURRENT that works."""
    assert len(host.statuses()) <= 2
    assert host.current() is not None
    assert host.logs_in()


def require_converged(host: RotatingHost) -> None:
    """What holds once all is well again: nothing unfinished, PENDING or unknown."""
    require_sound(host)
    assert set() == host.unknown_keys()
    assert StagingLabel.PENDING not in host.credential().labels
    assert all(run.state.finished for run in host.rotation().history(NAME))
    assert not host.resume()


def try_to(act: Callable[[], object]) -> Error | None:
    """Do it; give the error that it failed with."""
    try:
        act()
    except Error as error:
        return error
    return None


def strike(
    host: RotatingHost, call: str, after: int, kind: ApiFaultKind, count: int | None
) -> None:
    """Rotate with that fault, hold the outcome to the rules, and converge afterwards."""
    old = host.credential().current()
    host.set_fault(call, kind, count=count, after=after)
    problem = try_to(host.rotate)
    host.clear_faults()

    require_sound(host)
    if isinstance(problem, RolledBack):
        assert old == host.credential().current()
        require_converged(host)
    elif problem is not None:
        assert 4 == problem.exit_code, str(problem)
        if any(not run.state.finished for run in host.rotation().history(NAME)):
            assert "--resume" in str(problem.hint)
        else:
            assert old == host.credential().current()
        again = try_to(host.resume)
        assert again is None or isinstance(again, RolledBack), repr(again)
        require_converged(host)
    else:
        require_converged(host)
    if old == host.credential().current():
        # No wedge, and the next case finds a slot to be freed as well.
        host.rotate()


@pytest.mark.parametrize(("kind", "count"), MATRIX)
def test_every_call_of_a_rotation_may_fail(
    new_host: NewHost, kind: ApiFaultKind, count: int | None
) -> None:
    """It is done, or rolled back with the old version, or says what to do and `--resume` works."""
    host = new_host()
    for call, after in rotation_calls(host):
        try:
            strike(host, call, after, kind, count)
        except Exception as error:
            raise AssertionError(f"{kind} at call {after + 1} of {call}") from error


def test_a_lost_answer_that_botocore_repeats(new_host: NewHost) -> None:
    """With the session of the commands each call may lose its answer once, and all is done."""
    host = new_host()
    calls = rotation_calls(host)
    host.session = patient(host.rig)
    for call, after in calls:
        host.set_fault(call, ApiFaultKind.LOST, after=after)
        host.rotate()
        require_converged(host)


class TestWedgeOfThePublishedSample:
    """
    aws-samples/serverless-mail, ses-credential-rotation, HEAD 70ac9310 (2026-07-29).

    Weakness 3: createSecret does not look for an existing AWSPENDING before create_access_key; a
    retry leaves an orphan key, and the limit of two keys then blocks all rotations.

    Weakness 4: AWSCURRENT is moved before hosts are updated; if one host fails, an exception is
    raised, the retry exits early ("already AWSCURRENT"), the old key is never deleted, and the next
    rotation hits LimitExceeded. There is no roll-back.
    """

    @pytest.mark.parametrize("then", ["retry", "resume"])
    def test_weakness_3_a_key_whose_answer_got_lost(self, new_host: NewHost, then: str) -> None:
        """No orphan blocks the slot, whether the call or the whole command is tried again."""
        host = new_host()
        # Every answer to CreateAccessKey gets lost, and so do those to what would tidy up.
        host.set_fault("iam:*eAccessKey", ApiFaultKind.LOST, count=None)
        assert try_to(host.rotate) is not None
        host.clear_faults()
        if then == "retry":
            try_to(host.rotate)
        try_to(host.resume)

        require_converged(host)
        host.rotate()
        require_converged(host)
        assert {INACTIVE, ACTIVE} == set(host.statuses().values())

    def test_weakness_3_a_crash_before_the_new_key_is_stored(self, new_host: NewHost) -> None:
        """A process that dies between CreateAccessKey and the vault leaves an orphan: it goes."""
        host = new_host()
        pid = os.fork()
        if pid == 0:
            _die_once_a_key_was_made(host)
        assert signal.SIGKILL == os.WTERMSIG(os.waitpid(pid, 0)[1])
        assert 1 == len(host.unknown_keys())
        require_sound(host)
        with pytest.raises(CheckFailed, match="was interrupted"):
            host.rotate()

        assert host.resume()
        require_converged(host)
        assert 2 == host.credential().current().number
        for _ in range(2):
            host.rotate()
            require_converged(host)

    def test_weakness_4_a_host_that_fails_after_current_moved(self, new_host: NewHost) -> None:
        """The old version is CURRENT again, no key is left over, and the retry works."""
        host = new_host()
        with daemon_that_serves(host, 1):
            for _ in range(3):
                with pytest.raises(RolledBack):
                    host.rotate()
                require_converged(host)
                assert {host.key.access_key_id: ACTIVE} == host.statuses()
        for _ in range(2):
            host.rotate()
            require_converged(host)

    def test_weakness_4_a_roll_back_that_cannot_reach_aws(self, new_host: NewHost) -> None:
        """Mail flows with the old version at once; the new key is deleted by ``--resume``."""
        host = new_host()
        host.set_fault("iam:DeleteAccessKey", ApiFaultKind.UNREACHABLE, count=None)
        with daemon_that_serves(host, 1):
            problem = try_to(host.rotate)
        assert problem is not None
        assert 4 == problem.exit_code
        assert "--resume" in str(problem.hint)
        assert 1 == host.credential().current().number
        require_sound(host)
        host.clear_faults()

        assert isinstance(try_to(host.resume), RolledBack)
        require_converged(host)
        assert 3 == host.rotate().number


def _die_once_a_key_was_made(host: RotatingHost) -> None:
    def die(http_response: object, **_rest: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    # A connection is not to be shared with the parent process.
    session = admin_session(host.rig.sandbox)
    session.iam_once.meta.events.register("after-call.iam.CreateAccessKey", die)
    host.session = session
    try:
        host.rotate()
    finally:
        os._exit(1)

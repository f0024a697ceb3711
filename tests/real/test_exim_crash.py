"""Killed at every point, and out of disk at every step: mail flows and the next call completes."""

import contextlib
import os
import resource
from collections.abc import Callable

import pytest

from rigs.crash import count_points, killed_at
from rigs.exim import needs_exim
from rigs.host import SENDER, MailHost, add_backups, copies, state_of
from sesguard.deploy.interface import TargetState
from sesguard.errors import Error, RolledBack
from sesguard.workflow.engine import StepReport

pytestmark = [pytest.mark.real, needs_exim]

NewHost = Callable[..., MailHost]


@pytest.mark.parametrize("number", range(1, 10))
def test_full_disk_at_any_step_loses_nothing(new_host: NewHost, number: int) -> None:
    """From some step on nothing can be written: mail still flows, and the next call completes."""
    host = new_host(canary=False)
    add_backups(host)
    before = host.exim.state()

    def fill(report: StepReport) -> None:
        if report.number == number:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with host.daemon():
        pid = os.fork()
        if pid == 0:
            try:
                host.service().apply("exim", fill)
            except Error:
                os._exit(4)
            except BaseException:  # noqa: BLE001 - the child must not return into pytest
                os._exit(70)
            os._exit(0)
        assert 4 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        host.exim.inject(SENDER, "b@example.net")
        with contextlib.suppress(RolledBack):
            host.apply()
        host.apply()
        host.exim.run_queue(force=True)

        assert TargetState.APPLIED is state_of(host)
        assert ["b@example.net"] == host.delivered()
        host.undo()
    assert before == host.exim.state()
    assert 0 == host.exim.bounced()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("layout", ["monolithic", "debian"])
def test_kill_at_every_point_of_apply_converges(new_host: NewHost, layout: str) -> None:
    """Killed before each rename, commit and program: mail flows, the next call completes."""
    host = new_host(layout=layout, canary=False)
    add_backups(host)
    before = host.exim.state()
    number = 0
    with host.daemon():
        total = count_points(host.apply)
        applied = host.exim.state()
        host.undo()
        assert before == host.exim.state()
        assert total > 20
        for point in range(1, total + 1):
            host.sandbox.client.clear_inbox()
            assert killed_at(host.apply, point), point
            number += 1
            host.exim.inject(SENDER, f"customer{number}@example.net")

            host.apply()

            assert applied == host.exim.state(), point
            assert [] == copies(host), point
            host.exim.run_queue(force=True)
            log = host.exim.log_text()[-2000:]
            assert [f"customer{number}@example.net"] == host.delivered(), (point, log)
            host.undo()
            assert before == host.exim.state(), point
    assert 0 == host.exim.bounced()
    assert host.nothing_unauthenticated()


@pytest.mark.timeout(900)
def test_kill_at_every_point_of_undo_converges(new_host: NewHost) -> None:
    """Killed at each point of undo, the next undo ends with the original bytes."""
    host = new_host(canary=False)
    add_backups(host)
    before = host.exim.state()
    with host.daemon():
        host.apply()
        total = count_points(host.undo)
        for point in range(1, total + 1):
            host.apply()
            assert killed_at(host.undo, point), point
            host.undo()
            assert before == host.exim.state(), point
    assert 0 == host.exim.bounced()

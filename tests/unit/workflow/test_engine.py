"""The engine: forward, roll-back, undo, and a kill at every point of each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.crash import count_points, killed_at
from rigs.workflow import NAMES, NEW, NOW, OLD, PLAN, Place, engine, values
from sesguard.errors import DeployError, RolledBack, SystemFault, VaultTampered
from sesguard.workflow.engine import Progress, StepReport
from sesguard.workflow.journal import EntryState, RunState


def test_run_carries_out_every_step_and_reports_it(place: Place) -> None:
    """A plan is carried out in order, and the run is in effect afterwards."""
    reports: list[StepReport] = []
    runner, journal = engine(place, reports.append)

    run = runner.run("x", PLAN, NOW)

    assert RunState.DONE is run.state
    assert NEW == values(place)
    assert [1, 1, 2, 2, 3, 3, 4, 4] == [report.number for report in reports]
    assert {Progress.BEGUN, Progress.ACTED} == {report.progress for report in reports}
    assert {EntryState.DONE} == {entry.state for entry in journal.entries(run.run_id)}
    assert [run.run_id] == [found.run_id for found in runner.in_effect("x")]


def test_step_that_is_done_already_does_not_act(place: Place) -> None:
    """A step whose state is there is reported as such and not called."""
    (place.directory / "b").write_text("new b")
    reports: list[StepReport] = []
    runner, _ = engine(place, reports.append)

    runner.run("x", PLAN, NOW)

    assert ["look", "a", "c"] == place.calls
    assert Progress.ALREADY_DONE in {report.progress for report in reports}


@pytest.mark.parametrize("failing", NAMES)
def test_failure_puts_everything_back(place: Place, failing: str) -> None:
    """Whichever step fails, the files are as before, the error says why and exit code is 3."""
    place.fail_at = failing
    runner, journal = engine(place)

    with pytest.raises(RolledBack, match=f"{failing} failed; everything was put back") as caught:
        runner.run("x", PLAN, NOW)

    assert OLD == values(place)
    assert f"repair {failing}" == caught.value.hint
    assert RunState.ROLLED_BACK is journal.runs("test", "x")[0].state
    assert f"{failing} failed" == journal.runs("test", "x")[0].reason
    assert runner.unfinished("x") is None


def test_unexpected_exception_rolls_back_without_its_text(place: Place) -> None:
    """An exception that is not ours may hold a secret: only its type is kept."""

    place.fail_at, place.bug = "c", ValueError("hunter2")
    runner, journal = engine(place)

    with pytest.raises(RolledBack) as caught:
        runner.run("x", PLAN, NOW)

    assert OLD == values(place)
    assert "hunter2" not in str(caught.value)
    assert "ValueError" == journal.runs("test", "x")[0].reason


def test_interrupt_rolls_back(place: Place) -> None:
    """Ctrl-C in the middle puts everything back."""

    def listener(report: StepReport) -> None:
        if report.number == 3 and report.progress is Progress.BEGUN:
            raise KeyboardInterrupt

    runner, journal = engine(place, listener)

    with pytest.raises(RolledBack, match="interrupted"):
        runner.run("x", PLAN, NOW)

    assert OLD == values(place)
    assert "interrupted" == journal.runs("test", "x")[0].reason


def test_failed_roll_back_is_finished_by_the_next_call(place: Place) -> None:
    """When undo fails too, the run stays open, and `finish` goes on from there."""
    place.fail_at, place.fail_undo_at = "c", "a"
    runner, _ = engine(place)
    with pytest.raises(DeployError, match="cannot put a back"):
        runner.run("x", PLAN, NOW)
    run = runner.unfinished("x")
    assert run is not None
    assert RunState.ROLLING_BACK is run.state

    place.fail_undo_at = ""
    with pytest.raises(RolledBack, match="c failed"):
        runner.finish(run)

    assert OLD == values(place)
    assert runner.unfinished("x") is None


def test_second_run_is_refused_while_one_is_unfinished(place: Place) -> None:
    """One unfinished run per subject; another subject is free."""
    place.fail_at, place.fail_undo_at = "c", "a"
    runner, _ = engine(place)
    with pytest.raises(DeployError):
        runner.run("x", PLAN, NOW)

    with pytest.raises(SystemFault, match="was not finished"):
        runner.run("x", PLAN, NOW)
    place.fail_at = ""

    assert RunState.DONE is runner.run("y", PLAN, NOW).state


def test_undo_restores_and_is_refused_after_a_foreign_change(place: Place) -> None:
    """Undo puts the old values back; a later change of somebody else stops it, unless forced."""
    runner, _ = engine(place)
    run = runner.run("x", PLAN, NOW)
    (place.directory / "b").write_text("mine")

    with pytest.raises(DeployError, match="b changed since"):
        runner.check_undo(run)
    assert ["new a", "mine", "new c"] == values(place)
    undone = runner.undo(run)

    assert RunState.UNDONE is undone.state
    assert OLD == values(place)
    assert [] == runner.in_effect("x")


def test_abandon_puts_an_interrupted_run_back(place: Place, tmp_path: Path) -> None:
    """A run that was going forward can be put back instead."""
    assert killed_at(lambda: engine(place)[0].run("x", PLAN, NOW), 6)
    runner, journal = engine(place)
    run = runner.unfinished("x")
    assert run is not None

    runner.abandon(run)

    assert OLD == values(place)
    assert RunState.ROLLED_BACK is journal.runs("test", "x")[0].state


def test_journal_keeps_steps_and_checkpoints_sealed(place: Place) -> None:
    """Nothing of a step or of a checkpoint is in the database files in the clear."""
    runner, journal = engine(place)
    runner.run("x", PLAN, NOW)
    journal.close()

    content = b"".join(path.read_bytes() for path in place.directory.glob("journal.db*"))

    assert b"new a" not in content
    assert b"old a" not in content
    assert b"write {name}" in content


def test_swapped_journal_entries_are_refused(place: Place) -> None:
    """A sealed step belongs to its run and number."""
    runner, journal = engine(place)
    run = runner.run("x", PLAN, NOW)
    journal._connection.execute("UPDATE entry SET step = (SELECT step FROM entry WHERE number = 2)")

    with pytest.raises(VaultTampered):
        runner.undo(run)


def test_kill_at_every_point_of_a_run_converges(tmp_path: Path) -> None:
    """However a run dies, the next call finds it unfinished or never begun and completes it."""
    total = _points(tmp_path, "count", _apply)
    assert total > 8
    for point in range(1, total + 1):
        place = _fresh(tmp_path / f"apply-{point}")
        assert killed_at(lambda place=place: _apply(place), point)  # type: ignore[misc]

        _converge(place)

        assert NEW == values(place), point


def test_kill_at_every_point_of_a_roll_back_converges(tmp_path: Path) -> None:
    """However a roll-back dies, the next call ends with the old values or, early on, the new."""
    total = _points(tmp_path, "count", _fail)
    for point in range(1, total + 1):
        place = _fresh(tmp_path / f"fail-{point}")
        place.fail_at = "c"
        assert killed_at(lambda place=place: _fail(place), point)  # type: ignore[misc]
        place.fail_at = ""

        _converge(place, plan_again=False)

        assert values(place) in (OLD, NEW), point


def test_kill_at_every_point_of_an_undo_converges(tmp_path: Path) -> None:
    """However an undo dies, finishing it ends with the old values."""
    total = _points(tmp_path, "count", _undo, prepare=_apply)
    for point in range(1, total + 1):
        place = _fresh(tmp_path / f"undo-{point}")
        _apply(place)
        assert killed_at(lambda place=place: _undo(place), point)  # type: ignore[misc]

        runner, journal = engine(place)
        run = runner.unfinished("x")
        if run is not None:
            runner.finish(run)
        for done in runner.in_effect("x"):
            runner.undo(done)
        journal.close()

        assert OLD == values(place), point


def _fresh(directory: Path) -> Place:
    directory.mkdir()
    for name in NAMES:
        (directory / name).write_text(f"old {name}")
    return Place(directory)


def _points(
    tmp_path: Path,
    name: str,
    act: Callable[[Place], object],
    prepare: Callable[[Place], object] = lambda _place: None,
) -> int:
    place = _fresh(tmp_path / name)
    prepare(place)
    place.fail_at = "c" if act is _fail else ""
    return count_points(lambda: act(place))


def _apply(place: Place) -> None:
    runner, journal = engine(place)
    runner.run("x", PLAN, NOW)
    journal.close()


def _fail(place: Place) -> None:
    place.fail_at = "c"
    runner, journal = engine(place)
    with pytest.raises(RolledBack):
        runner.run("x", PLAN, NOW)
    journal.close()


def _undo(place: Place) -> None:
    runner, journal = engine(place)
    runner.undo(runner.in_effect("x")[0])
    journal.close()


def _converge(place: Place, *, plan_again: bool = True) -> None:
    runner, journal = engine(place)
    run = runner.unfinished("x")
    try:
        if run is not None:
            runner.finish(run)
        elif plan_again and not runner.in_effect("x"):
            runner.run("x", PLAN, NOW)
    except RolledBack:
        pass
    assert runner.unfinished("x") is None
    journal.close()

"""Runs that stop where a step fails, and listeners that fail."""

import pytest

from rigs.workflow import NEW, NOW, OLD, PLAN, LastStep, Place, TryStep, WriteStep, engine, values
from sesguard.errors import DeployError
from sesguard.workflow.engine import OnFailure, StepReport
from sesguard.workflow.journal import RunState


@pytest.mark.parametrize("problem", [OSError("no terminal"), SystemExit(1), ValueError("bug")])
def test_a_listener_that_fails_stops_nothing(place: Place, problem: BaseException) -> None:
    """A terminal that went away must not interrupt a change, nor cut a containment short."""

    def listener(_report: StepReport) -> None:
        raise problem

    runner, journal = engine(place, listener)
    runner.run("x", PLAN, NOW)

    assert RunState.DONE is journal.runs("test", "x")[0].state


def test_a_run_that_stops_takes_nothing_back_and_goes_on_at_the_failed_step(place: Place) -> None:
    """What is done stays; `finish` tries the failed step again and does the rest."""
    place.fail_at = "b"
    runner, journal = engine(place, on_failure=OnFailure.STOP)
    with pytest.raises(DeployError, match="b failed"):
        runner.run("x", PLAN, NOW)
    assert [NEW[0], *OLD[1:]] == values(place)

    run = runner.unfinished("x")
    assert run is not None
    place.fail_at = ""
    runner.finish(run)
    assert RunState.DONE is journal.runs("test", "x")[0].state
    assert NEW == values(place)


def test_a_step_that_keeps_going_does_not_hold_up_the_next(place: Place) -> None:
    """Its failure is raised at the end, the run stays unfinished, and the report names it."""
    place.fail_at = "a"
    problems: list[str] = []
    runner, _ = engine(place, lambda report: problems.append(str(report.problem)), OnFailure.STOP)
    plan = [TryStep(name=name, value=f"new {name}") for name in "ab"]
    with pytest.raises(DeployError, match="a failed"):
        runner.run("x", plan, NOW)

    assert "a failed" in problems
    assert NEW[1] == values(place)[1]
    assert runner.unfinished("x") is not None


def test_a_step_that_rolls_nothing_back_leaves_the_run_unfinished(place: Place) -> None:
    """What was done before it stands, and the next attempt goes on with it."""
    place.fail_at = "c"
    runner, _ = engine(place)
    plan = [*(WriteStep(name=name, value=f"new {name}") for name in "ab")]
    with pytest.raises(DeployError, match="c failed"):
        runner.run("x", [*plan, LastStep(name="c", value="new c")], NOW)

    assert [*NEW[:2], "old c"] == values(place)
    run = runner.unfinished("x")
    assert run is not None
    place.fail_at = ""
    runner.finish(run)
    assert NEW == values(place)


def test_a_superseded_run_is_over(place: Place) -> None:
    """Its plan is not carried out any more, and another one may begin."""
    place.fail_at = "b"
    runner, journal = engine(place, on_failure=OnFailure.STOP)
    with pytest.raises(DeployError):
        runner.run("x", PLAN, NOW)
    run = runner.unfinished("x")
    assert run is not None
    runner.supersede(run, "planned anew")
    place.fail_at = ""
    runner.run("x", PLAN, NOW)

    assert ["DONE", "SUPERSEDED"] == [each.state.value for each in journal.runs("test", "x")]

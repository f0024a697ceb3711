"""
The executor: runs a plan, survives a crash, rolls back, undoes.

Promises:

- The whole plan is journaled before its first step, each step before it acts and after it acted.
- A step that fails is undone together with all before it, in strict reverse; the caller gets
  `RolledBack` (exit 3). When even that fails the run stays ROLLING_BACK and the caller gets the
  error of the undo (exit 4); running the command again goes on from there.
- After a crash, `finish` converges: a run that was going forward goes on forward, one that was
  going back goes on back.
- An engine that stops instead (`OnFailure.STOP`, for what must never be taken back, such as cutting
  off a leak) leaves the run unfinished; running the command again tries the failed step again. A
  step that `keeps_going` does not hold up the ones after it. A step that `rolls_back` nothing stops
  every engine.
- `check_undo` asks every step of a finished run whether a later change would be lost.

One process at a time may run a workflow on a subject: the caller holds a lock.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, NoReturn, TypeVar, Union

import msgspec

from sesguard.core.message import Message
from sesguard.errors import Error, RolledBack
from sesguard.workflow.journal import (
    EntryState,
    Journal,
    JournalEntry,
    PlannedEntry,
    Run,
    RunState,
)
from sesguard.workflow.step import Step

ContextT = TypeVar("ContextT")


class Progress(StrEnum):
    """What is reported about a step while a run goes on."""

    BEGUN = "BEGUN"
    ACTED = "ACTED"
    ALREADY_DONE = "ALREADY_DONE"
    FAILED = "FAILED"
    UNDONE = "UNDONE"


class OnFailure(StrEnum):
    """What a failed step does to its run."""

    ROLL_BACK = "ROLL_BACK"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class StepReport:
    """One line of progress."""

    number: int
    total: int
    title: Message
    progress: Progress
    problem: Error | None = None
    """Why it failed, when it did and the error is one of ours."""


Listener = Callable[[StepReport], None]


def _nobody(_report: StepReport) -> None:
    """Nobody listens."""


class Engine(Generic[ContextT]):
    """
    Runs the plans of one workflow.

    Args:
        workflow: Its name in the journal.
        journal: Where it is written down.
        step_types: All kinds of step that may appear, so that a journal can be read back.
        context: What the steps work on.
        listener: Is told about each step.
        on_failure: What becomes of the run when a step fails.
    """

    def __init__(
        self,
        workflow: str,
        journal: Journal,
        step_types: Sequence[type[Step[ContextT]]],
        context: ContextT,
        listener: Listener = _nobody,
        on_failure: OnFailure = OnFailure.ROLL_BACK,
    ) -> None:
        self._workflow = workflow
        self._on_failure = on_failure
        self._journal = journal
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_union(step_types))
        self._context = context
        self._listener = listener

    def unfinished(self, subject: str) -> Run | None:
        """The run of `subject` that a crash interrupted, or None."""
        runs = self._journal.runs(self._workflow, subject)
        return next((run for run in runs if not run.state.finished), None)

    def in_effect(self, subject: str) -> list[Run]:
        """The finished runs of `subject` that `undo` would undo, newest first."""
        runs = self._journal.runs(self._workflow, subject)
        return [run for run in runs if run.state is RunState.DONE]

    def run(self, subject: str, steps: Sequence[Step[ContextT]], started_at: str) -> Run:
        """
        Execute a plan.

        Args:
            subject: What it changes, such as a target's name.
            steps: The plan.
            started_at: RFC 3339, for the journal.

        Raises:
            RolledBack: A step failed and everything was put back.
            Error: A step failed and something could not be put back, or the engine stops.
        """
        entries = [PlannedEntry(step.title(), msgspec.json.encode(step)) for step in steps]
        run = self._journal.start_run(self._workflow, subject, entries, started_at)
        return self._forward(run)

    def finish(self, run: Run) -> Run:
        """
        Bring an interrupted run to its end.

        Raises:
            RolledBack: It was going back, or failed now; everything was put back.
            Error: Something could not be put back.
        """
        if run.state is RunState.RUNNING:
            return self._forward(run)
        if run.state is RunState.ROLLING_BACK:
            self._roll_back(run, Error("{reason}", reason=run.reason))
        return self._backward(run, RunState.UNDONE)

    def supersede(self, run: Run, reason: str) -> None:
        """Close an unfinished run whose steps are planned anew from what is there."""
        self._journal.set_run_state(run.run_id, RunState.SUPERSEDED, reason)

    def abandon(self, run: Run) -> None:
        """
        Put an interrupted run back, also one that was going forward.

        Raises:
            Error: Something could not be put back.
        """
        state = RunState.UNDONE if run.state is RunState.UNDOING else RunState.ROLLED_BACK
        if run.state is RunState.RUNNING:
            self._journal.set_run_state(run.run_id, RunState.ROLLING_BACK, "abandoned")
        self._backward(run, state)

    def check_undo(self, run: Run) -> None:
        """
        Ask every step of a finished run whether its undo would destroy somebody's later change.

        Raises:
            Error: It would.
        """
        for entry in reversed(self._journal.entries(run.run_id)):
            self._step(entry).check_undo(self._context, entry.checkpoint)

    def undo(self, run: Run) -> Run:
        """
        Undo a finished run, in strict reverse; call `check_undo` first.

        Raises:
            Error: Something could not be put back.
        """
        self._journal.set_run_state(run.run_id, RunState.UNDOING)
        return self._backward(run, RunState.UNDONE)

    def _forward(self, run: Run) -> Run:
        entries = self._journal.entries(run.run_id)
        failures: list[Error] = []
        for entry in entries:
            if entry.state is EntryState.DONE:
                continue
            try:
                self._act(run, entry, len(entries))
            except (Exception, KeyboardInterrupt) as error:
                self._report(entry, len(entries), Progress.FAILED, error)
                step = self._step(entry)
                if self._on_failure is OnFailure.ROLL_BACK and step.rolls_back:
                    self._journal.set_run_state(run.run_id, RunState.ROLLING_BACK, _describe(error))
                    self._roll_back(run, error)
                if not isinstance(error, Error) or not step.keeps_going:
                    raise
                failures.append(error)
        if failures:
            raise failures[0]
        self._journal.set_run_state(run.run_id, RunState.DONE)
        return replace(run, state=RunState.DONE)

    def _act(self, run: Run, entry: JournalEntry, total: int) -> None:
        step = self._step(entry)
        self._report(entry, total, Progress.BEGUN)
        if entry.state is EntryState.PLANNED:
            # A checkpoint is taken once: after a crash in `act` it would capture the change itself.
            self._journal.begin_entry(run.run_id, entry.number, step.capture(self._context))
        done = step.is_done(self._context)
        if not done:
            step.act(self._context)
        self._journal.set_entry_state(run.run_id, entry.number, EntryState.DONE)
        self._report(entry, total, Progress.ALREADY_DONE if done else Progress.ACTED)

    def _roll_back(self, run: Run, cause: BaseException) -> NoReturn:
        self._backward(run, RunState.ROLLED_BACK)
        if isinstance(cause, Error):
            raise RolledBack(
                "{cause}; everything was put back as it was",
                hint=cause.hint_template,
                **{**cause.parameters, "cause": cause},
            ) from cause
        raise RolledBack(
            "{cause}; everything was put back as it was", cause=_describe(cause)
        ) from cause

    def _backward(self, run: Run, end: RunState) -> Run:
        entries = self._journal.entries(run.run_id)
        for entry in reversed(entries):
            if entry.state in {EntryState.PLANNED, EntryState.UNDONE}:
                continue
            step = self._step(entry)
            self._journal.set_entry_state(run.run_id, entry.number, EntryState.UNDOING)
            step.undo(self._context, entry.checkpoint)
            self._journal.set_entry_state(run.run_id, entry.number, EntryState.UNDONE)
            if type(step).undo is not Step.undo:
                self._report(entry, len(entries), Progress.UNDONE)
        self._journal.set_run_state(run.run_id, end)
        return replace(run, state=end)

    def _step(self, entry: JournalEntry) -> Step[ContextT]:
        step: Step[ContextT] = self._decoder.decode(entry.step)
        return step

    def _report(
        self,
        entry: JournalEntry,
        total: int,
        progress: Progress,
        error: BaseException | None = None,
    ) -> None:
        problem = error if isinstance(error, Error) else None
        # A terminal that went away (OSError, or SystemExit from its library) stops no change.
        with contextlib.suppress(Exception, SystemExit):
            self._listener(StepReport(entry.number, total, entry.title, progress, problem))


def _union(step_types: Sequence[type[Step[ContextT]]]) -> Any:
    return Union[tuple(step_types)]  # noqa: UP007


def _describe(error: BaseException) -> str:
    """The text of our own errors; only the type of others, whose text may hold anything."""
    if isinstance(error, Error):
        return str(error)
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__

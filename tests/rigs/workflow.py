"""Steps that write files, and an engine that runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sesguard.core.message import Message, message
from sesguard.errors import DeployError, VaultTampered
from sesguard.system.files import read_file, read_if_exists, write_atomic
from sesguard.workflow.engine import Engine, OnFailure, StepReport
from sesguard.workflow.journal import Journal
from sesguard.workflow.step import Step

NOW = "2026-01-01T00:00:00+00:00"


class XorSealer:
    """A sealer that is enough to see that nothing is written in the clear."""

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Flip every bit, after the context."""
        return repr(sorted(context.items())).encode() + b"|" + bytes(255 - b for b in plaintext)

    def unseal(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """Refuse another context."""
        prefix = repr(sorted(context.items())).encode() + b"|"
        if not sealed.startswith(prefix):
            raise VaultTampered("another context")
        return bytes(255 - b for b in sealed[len(prefix) :])


@dataclass
class Place:
    """What the steps work on."""

    directory: Path
    fail_at: str = ""
    fail_undo_at: str = ""
    bug: Exception | None = None
    calls: list[str] = field(default_factory=list)


class WriteStep(Step[Place], frozen=True, kw_only=True, tag="write"):
    """Write a value into a file."""

    name: str
    value: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("write {name}", name=self.name)

    def is_done(self, context: Place) -> bool:
        """Whether the value is there."""
        state = read_if_exists(context.directory / self.name)
        return state is not None and state.content.decode() == self.value

    def capture(self, context: Place) -> bytes:
        """The old value."""
        return read_file(context.directory / self.name).content

    def act(self, context: Place) -> None:
        """Write it, or fail."""
        context.calls.append(self.name)
        if context.fail_at == self.name and context.bug is not None:
            raise context.bug
        if context.fail_at == self.name:
            raise DeployError("{name} failed", hint="repair {name}", name=self.name)
        write_atomic(context.directory / self.name, self.value.encode(), mode=0o600)

    def check_undo(self, context: Place, checkpoint: bytes | None) -> None:
        """Refuse when somebody else wrote it since."""
        if not self.is_done(context):
            raise DeployError("{name} changed since", name=self.name)

    def undo(self, context: Place, checkpoint: bytes | None) -> None:
        """Write the old value."""
        assert checkpoint is not None
        if context.fail_undo_at == self.name:
            raise DeployError("cannot put {name} back", name=self.name)
        write_atomic(context.directory / self.name, checkpoint, mode=0o600)


class TryStep(WriteStep, frozen=True, kw_only=True, tag="try"):
    """A step whose failure does not hold up the ones after it."""

    keeps_going = True


class LastStep(WriteStep, frozen=True, kw_only=True, tag="last"):
    """A step whose failure takes nothing back."""

    rolls_back = False


class LookStep(Step[Place], frozen=True, kw_only=True, tag="look"):
    """Changes nothing."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("look")

    def act(self, context: Place) -> None:
        """Look."""
        context.calls.append("look")


NAMES = ("a", "b", "c")
PLAN = (LookStep(), *(WriteStep(name=name, value=f"new {name}") for name in NAMES))


def values(place: Place) -> list[str]:
    """What the files hold."""
    return [(place.directory / name).read_text() for name in NAMES]


OLD = [f"old {name}" for name in NAMES]
NEW = [f"new {name}" for name in NAMES]


def engine(
    place: Place,
    listener: Callable[[StepReport], None] = lambda _report: None,
    on_failure: OnFailure = OnFailure.ROLL_BACK,
) -> tuple[Engine[Place], Journal]:
    """An engine on the journal of `place`."""
    journal = Journal(place.directory / "journal.db", XorSealer())
    types = (WriteStep, LookStep, TryStep, LastStep)
    return Engine("test", journal, types, place, listener, on_failure), journal

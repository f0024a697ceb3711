"""
A step: one change, as frozen data that can be written down and read back.

A planner only reads and returns a list of steps. The engine journals each before it acts. What a
step needs from its surroundings (programs, sockets, the clock) comes in as its `context`, so that
the step itself stays data.

Each step keeps these promises, which make a crash at any instant harmless:

- `is_done` only looks. When it says True, `act` is not called.
- `act` may be called again after a crash in the middle of it.
- `capture` only looks, and is called once, before the first `act`. What it returns is all that
  `undo` needs.
- `undo` may be called again, and also when `act` never ran.
"""

from typing import ClassVar, Generic, TypeVar

import msgspec

from sesguard.core.message import Message

ContextT = TypeVar("ContextT")


class Step(msgspec.Struct, Generic[ContextT], frozen=True, kw_only=True, tag_field="kind"):
    """One change; subclasses are its kinds."""

    keeps_going: ClassVar[bool] = False
    """Whether the steps after it are tried all the same when it fails in a run that stops."""
    rolls_back: ClassVar[bool] = True
    """Whether its failure takes back what was done before it; else the run stops, unfinished."""

    def title(self) -> Message:
        """What the step does, for people. Never a secret."""
        raise NotImplementedError

    def is_done(self, context: ContextT) -> bool:  # noqa: ARG002
        """Whether the state that `act` is to bring about is there already."""
        return False

    def capture(self, context: ContextT) -> bytes | None:  # noqa: ARG002
        """What `undo` will need: the checkpoint. The engine seals it."""
        return None

    def act(self, context: ContextT) -> None:
        """
        Make the change and check that it took.

        Raises:
            Error: It failed; the engine rolls back.
        """
        raise NotImplementedError

    def check_undo(self, context: ContextT, checkpoint: bytes | None) -> None:
        """
        Look whether an undo long after the run would destroy somebody's later change.

        Raises:
            Error: It would.
        """

    def undo(self, context: ContextT, checkpoint: bytes | None) -> None:
        """
        Put back what `checkpoint` holds. The default is for steps that change nothing.

        Raises:
            Error: It could not be put back: a person must act.
        """

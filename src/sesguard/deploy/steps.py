"""
Steps that every deployer can use: replace a file, run a rebuild, prove that no copy is left.

`ReplaceFile` holds the whole new content, so that a crash needs nothing but the journal; it refuses
to act on a file that changed since the plan was made.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from sesguard.core.message import Message, message
from sesguard.errors import DeployError
from sesguard.system.files import (
    FileState,
    read_if_exists,
    remove_file,
    remove_stale_temporaries,
    write_state,
)
from sesguard.system.processes import run_program
from sesguard.system.search import search_files
from sesguard.workflow.step import Step


class DeployContext(Protocol):
    """What the common steps need from outside."""

    @property
    def needles(self) -> Callable[[], Mapping[str, bytes]]:
        """Every form of every secret of the credential."""
        ...

    @property
    def retired(self) -> Callable[[], Sequence[bytes]]:
        """Passwords that the vault knows and that are not CURRENT."""
        ...


class SavedFile(msgspec.Struct, frozen=True):
    """A file in a checkpoint."""

    path: str
    content: bytes
    uid: int
    gid: int
    mode: int

    @staticmethod
    def of(path: str, state: FileState) -> "SavedFile":
        """Keep `state`."""
        return SavedFile(path, state.content, state.uid, state.gid, state.mode)

    def restore(self) -> None:
        """Put the file back: bytes, owner and mode. One that is as it was is left alone."""
        state = FileState(self.content, self.uid, self.gid, self.mode)
        if read_if_exists(Path(self.path)) != state:
            _write(self.path, state)


class ReplaceFile(Step[Any], frozen=True, kw_only=True, tag="replace-file"):
    """Give a file new content, owner and mode kept."""

    path: str
    purpose: Literal["edit", "wipe"]
    old_sha256: str
    new_content: bytes

    @staticmethod
    def of(
        path: Path, state: FileState, new: bytes, purpose: Literal["edit", "wipe"]
    ) -> "ReplaceFile":
        """The step that takes `path` from `state` to `new`."""
        return ReplaceFile(
            path=str(path), purpose=purpose, old_sha256=_sha256(state.content), new_content=new
        )

    def title(self) -> Message:
        """See `Step.title`."""
        if self.purpose == "edit":
            return message("change {path}", path=self.path)
        return message("wipe the plaintext from {path}", path=self.path)

    def is_done(self, context: DeployContext) -> bool:  # noqa: ARG002
        """Whether the file has the new content."""
        return self._state().content == self.new_content

    def capture(self, context: DeployContext) -> bytes:  # noqa: ARG002
        """The file as it is."""
        return msgspec.json.encode(SavedFile.of(self.path, self._state()))

    def act(self, context: DeployContext) -> None:  # noqa: ARG002
        """Replace the content, if it is still what the plan was made for."""
        state = self._state()
        if _sha256(state.content) != self.old_sha256:
            raise DeployError(
                "{path} was changed after the plan was made",
                hint="run the command again to plan anew",
                path=self.path,
            )
        _write(self.path, FileState(self.new_content, state.uid, state.gid, state.mode))

    def check_undo(self, context: DeployContext, checkpoint: bytes | None) -> None:
        """Refuse when somebody changed the file after us, or when mail would bounce afterwards."""
        assert checkpoint is not None
        original = msgspec.json.decode(checkpoint, type=SavedFile).content
        if any(password in original for password in context.retired()):
            raise DeployError(
                "undo would put a credential that is not CURRENT into {path}: mail would bounce",
                hint="run undo with --force only if the old credential still works",
                path=self.path,
            )
        state = read_if_exists(Path(self.path))
        if state is None and self.purpose == "wipe":
            return
        if state is None or state.content != self.new_content:
            raise DeployError(
                "{path} was changed after sesguard changed it; undo would lose that",
                hint="run undo with --force to restore the original all the same",
                path=self.path,
            )

    def undo(self, context: DeployContext, checkpoint: bytes | None) -> None:  # noqa: ARG002
        """Put the original back."""
        assert checkpoint is not None
        msgspec.json.decode(checkpoint, type=SavedFile).restore()

    def _state(self) -> FileState:
        state = read_if_exists(Path(self.path))
        if state is None:
            raise DeployError("{path} is gone", hint="restore it from a backup", path=self.path)
        return state


class Rebuild(Step[Any], frozen=True, kw_only=True, tag="rebuild"):
    """Run the command that makes a configuration from its sources."""

    command: tuple[str, ...]
    generated: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "run {command}, which makes {path}",
            command=" ".join(self.command),
            path=self.generated,
        )

    def capture(self, context: DeployContext) -> bytes:  # noqa: ARG002
        """The generated file as it is; it may not be there yet."""
        state = read_if_exists(Path(self.generated))
        saved = None if state is None else SavedFile.of(self.generated, state)
        return msgspec.json.encode(saved)

    def act(self, context: DeployContext) -> None:  # noqa: ARG002
        """Run it; its exit status counts."""
        completed = run_program(self.command, timeout_s=300)
        if not completed.ok:
            reason = (completed.errors or completed.output).strip().splitlines()
            raise DeployError(
                "{command} failed: {reason}",
                hint="run it by hand to see all that it says",
                command=" ".join(self.command),
                reason=reason[-1][:300] if reason else f"exit status {completed.status}",
            )

    def undo(self, context: DeployContext, checkpoint: bytes | None) -> None:  # noqa: ARG002
        """
        Put the generated file back to the byte.

        The command is not run again: in strict reverse its sources are restored after this.
        """
        assert checkpoint is not None
        saved = msgspec.json.decode(checkpoint, type=SavedFile | None)
        if saved is None:
            remove_file(Path(self.generated))
        else:
            saved.restore()


class CheckNoPlaintext(Step[Any], frozen=True, kw_only=True, tag="check-no-plaintext"):
    """Search the places again for any form of the credential."""

    places: tuple[str, ...]

    def title(self) -> Message:
        """See `Step.title`."""
        return message("prove that no copy is left in {count} places", count=len(self.places))

    def act(self, context: DeployContext) -> None:
        """Fail when there is one."""
        matches = search_files(map(Path, self.places), context.needles())
        if matches:
            raise DeployError(
                "the credential is still in {place} (form: {form})",
                hint="remove that copy by hand, then apply again",
                place=matches[0].place,
                form=matches[0].form,
            )


def _write(path: str, state: FileState) -> None:
    """Write a file; what a killed try left beside it goes first, since it may be plaintext."""
    remove_stale_temporaries(Path(path).parent, f"{Path(path).name}.")
    write_state(Path(path), state)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

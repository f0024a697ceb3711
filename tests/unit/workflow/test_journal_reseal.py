"""The journal under another key: all of it, or nothing."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from rigs.crash import count_points, full_disk_at, killed_at
from rigs.workflow import XorSealer
from sesguard.core.message import message
from sesguard.errors import KeyProviderUnavailable, WrongKey
from sesguard.workflow.journal import Journal, PlannedEntry, RunState, find_journal


class TurningSealer(XorSealer):
    """Opens what either key sealed, and seals with the second one."""

    seals_with = b"new "
    opens: tuple[bytes, ...] = (b"new ", b"old ")

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """With the key before it."""
        return self.seals_with + super().seal(plaintext, context)

    def unseal(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """Only what is known."""
        if sealed[:4] not in self.opens:
            raise WrongKey("another key")
        return super().unseal(sealed[4:], context)


class OldSealer(TurningSealer):
    """Before the change."""

    seals_with = b"old "
    opens = (b"old ",)


class NewSealer(TurningSealer):
    """After the change."""

    opens = (b"new ",)


class LostSealer(OldSealer):
    """Of a key that was lost."""

    seals_with = b"lost"


class FailingSealer(TurningSealer):
    """Whose key goes away on the way."""

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Not the last one."""
        if plaintext == b"second":
            raise KeyProviderUnavailable("no answer")
        return super().seal(plaintext, context)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A journal with one run of two steps, one of them with a checkpoint."""
    with closing(Journal(tmp_path / "journal.db", OldSealer())) as journal:
        steps = [PlannedEntry(message("step"), name) for name in (b"first", b"second")]
        run = journal.start_run("target", "exim", steps, "2026-01-01T00:00:00+00:00")
        journal.begin_entry(run.run_id, 1, b"plaintext")
        journal.set_run_state(run.run_id, RunState.DONE)
    return tmp_path


def _reseal(directory: Path, sealer: XorSealer) -> int:
    journal = find_journal(directory, sealer)
    assert journal is not None
    with closing(journal):
        return journal.reseal()


def _opened(directory: Path, *sealers: XorSealer) -> Iterator[list[tuple[bytes, bytes | None]]]:
    """What each sealer that opens the run opens it to."""
    for sealer in sealers:
        with closing(Journal(directory / "journal.db", sealer)) as journal:
            try:
                yield [(entry.step, entry.checkpoint) for entry in journal.entries(1)]
            except WrongKey:
                continue


WHOLE = [(b"first", b"plaintext"), (b"second", None)]


def test_everything_is_sealed_anew(directory: Path) -> None:
    """Afterwards the new key alone opens all, and the old one nothing."""
    assert 0 == _reseal(directory, TurningSealer())

    assert [WHOLE] == list(_opened(directory, NewSealer()))
    assert [] == list(_opened(directory, OldSealer()))


def test_killed_or_without_disk_space_it_is_one_of_the_two(directory: Path) -> None:
    """Whatever happens, exactly one of the two keys opens the whole journal."""
    points = count_points(lambda: _reseal(directory, OldSealer()))

    for point in range(1, points + 1):
        for sealer in (TurningSealer(), TurningSealer()):
            killed_at(lambda sealer=sealer: _reseal(directory, sealer), point)  # type: ignore[misc]
            full_disk_at(lambda sealer=sealer: _reseal(directory, sealer), point)  # type: ignore[misc]
            assert [WHOLE] == list(_opened(directory, OldSealer(), NewSealer()))
    assert 0 == _reseal(directory, TurningSealer())
    assert [WHOLE] == list(_opened(directory, NewSealer()))


def test_key_that_goes_away_changes_nothing(directory: Path) -> None:
    """When a key cannot be had halfway, everything is as it was."""
    with pytest.raises(KeyProviderUnavailable):
        _reseal(directory, FailingSealer())

    assert [WHOLE] == list(_opened(directory, OldSealer()))


def test_lost_entries_are_counted(directory: Path) -> None:
    """What opens with no key is left as it is, and the rest is sealed anew."""
    with closing(Journal(directory / "journal.db", LostSealer())) as journal:
        steps = [PlannedEntry(message("step"), b"lost")]
        lost = journal.start_run("target", "postfix", steps, "2026-01-01T00:00:00+00:00")
        assert [lost] == journal.unfinished()

    assert 1 == _reseal(directory, TurningSealer())

    assert [WHOLE] == list(_opened(directory, NewSealer()))


def test_no_journal_is_made(tmp_path: Path) -> None:
    """Looking for a journal does not make one."""
    assert find_journal(tmp_path, OldSealer()) is None
    assert [] == list(tmp_path.iterdir())

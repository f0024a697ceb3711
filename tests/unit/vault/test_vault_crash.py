"""Kills, full disks and rivals: the vault always opens, and no change is lost or half made."""

import contextlib
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rigs.crash import count_points, killed_at
from sesguard.core.credential import Credential
from sesguard.errors import SystemFault, VaultMissing, VaultTampered
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]


def _copies(vault: Vault, count: int) -> Iterator[Vault]:
    """Copies of a vault, to do the same thing to each anew."""
    for number in range(count):
        directory = vault.directory.with_name(f"copy-{number}")
        shutil.copytree(vault.directory, directory)
        yield Vault(directory, vault.provider)


def _start(act: Callable[[], object]) -> int:
    """Run `act` in a child process and give its process id."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_update_leaves_old_or_new(filled: Vault, rotate: Change, tmp_path: Path) -> None:
    """Killed before any rename, link or removal, the vault opens and takes the next change."""
    old = filled.read()
    rehearsal, *copies = _copies(filled, 1 + count_points(lambda: _copy_and_update(filled, rotate)))
    rehearsal.update("ses", rotate)
    new = rehearsal.read()
    outcomes = []

    for point, copy in enumerate(copies, 1):
        assert killed_at(lambda vault=copy: vault.update("ses", rotate), point)  # type: ignore[misc]

        found = copy.read()
        outcomes.append(found.generation)
        assert found.credentials == (old if found.generation == 4 else new).credentials
        assert found == copy.read_last_good()
        copy.update("ses", rotate)
        assert found.generation + 1 == copy.read().generation
        assert all(check.ok for check in copy.verify())
        assert 4 == len(list(copy.directory.iterdir()))

    assert {4, 5} == set(outcomes)
    assert sorted(outcomes) == outcomes


def _copy_and_update(vault: Vault, change: Change) -> None:
    shutil.copytree(vault.directory, vault.directory.with_name("rehearsal"))
    Vault(vault.directory.with_name("rehearsal"), vault.provider).update("ses", change)


def test_killed_creation_leaves_nothing_or_a_vault(
    tmp_path: Path, keyfile: KeyfileProvider, rotate: Change
) -> None:
    """Killed at any step, either there is no vault and it can be made, or it is there."""
    points = count_points(Vault(tmp_path / "rehearsal", keyfile).create)
    outcomes = set()

    for point in range(1, points + 1):
        vault = Vault(tmp_path / f"vault-{point}", keyfile)
        assert killed_at(vault.create, point)

        outcomes.add(vault.exists())
        if not vault.exists():
            with pytest.raises(VaultMissing):
                vault.read()
            vault.create()
        assert 1 == vault.read().generation
        vault.update("ses", rotate)
        assert all(check.ok for check in vault.verify())

    assert {False, True} == outcomes


@pytest.mark.parametrize("damaged", [("vault",), ("mark",), ("vault", "mark")])
def test_killed_restoration_can_be_repeated(
    filled: Vault, rotate: Change, tmp_path: Path, damaged: tuple[str, ...]
) -> None:
    """Killed at any step of putting back, it can be done again and gives the same credentials."""
    for name in damaged:
        (filled.directory / name).write_bytes(b"damaged")
    rehearsal = filled.directory.with_name("rehearsal")
    shutil.copytree(filled.directory, rehearsal)
    points = count_points(Vault(rehearsal, filled.provider).restore_previous)
    expected = Vault(rehearsal, filled.provider).read().credentials

    for point, copy in enumerate(_copies(filled, points), 1):
        assert killed_at(copy.restore_previous, point)

        with contextlib.suppress(VaultTampered):
            assert expected == copy.read_last_good().credentials
        try:
            copy.read()
        except VaultTampered:
            copy.restore_previous()
        assert expected == copy.read().credentials
        copy.update("ses", rotate)
        assert all(check.ok for check in copy.verify())


def test_writer_killed_at_any_moment_does_no_harm(filled: Vault, rotate: Change) -> None:
    """SIGKILL at arbitrary moments of a busy writer: the vault opens, and generations only grow."""
    last = filled.read().generation

    def write_on() -> None:
        while True:
            filled.update("ses", lambda credential: _latest_only(rotate(credential)))

    for attempt in range(25):
        child = _start(write_on)
        deadline = time.monotonic() + 10
        while filled.read().generation == last and time.monotonic() < deadline:
            pass
        time.sleep(attempt * 0.0004)
        os.kill(child, signal.SIGKILL)
        assert -signal.SIGKILL == _exit_code(child)

        found = filled.read()
        assert found.generation > last
        assert found == filled.read_last_good()
        last = found.generation


def _latest_only(credential: Credential) -> Credential:
    for version in credential.versions[:-2]:
        credential = credential.drop(version.number)
    return credential


def test_full_disk_leaves_the_old_vault(filled: Vault, rotate: Change) -> None:
    """Whatever number of bytes still fits, a failed change leaves both generations as they were."""
    before = {
        name: (filled.directory / name).read_bytes() for name in ("vault", "vault.previous", "mark")
    }
    size = len(before["vault"])

    def update_with_room_for(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(SystemFault, match="cannot write"):
            filled.update("ses", rotate)

    for limit in range(0, size, 100):
        child = _start(lambda limit=limit: update_with_room_for(limit))  # type: ignore[misc]
        assert 0 == _exit_code(child)

        assert before == {name: (filled.directory / name).read_bytes() for name in before}
        assert 4 == len(list(filled.directory.iterdir()))
    assert 5 == filled.update("ses", rotate).next_number + 1


def test_failure_to_move_the_mark_is_no_failure(filled: Vault, rotate: Change) -> None:
    """Once committed, a change is reported as made; the next one catches the mark up."""
    mark = filled.directory / "mark"

    def change(credential: Credential) -> Credential:
        # Only the mark cannot be replaced: a directory that is not empty stands in its place.
        mark.rename(mark.with_name("kept"))
        (mark / "blocked").mkdir(parents=True)
        return rotate(credential)

    written = filled.update("ses", change)

    shutil.rmtree(mark)
    mark.with_name("kept").rename(mark)
    assert written == filled.read().credentials["ses"]
    assert 5 == filled.read().generation
    filled.update("ses", rotate)
    assert b'"generation":6,' in mark.read_bytes()


def test_two_writers_lose_no_update(vault: Vault) -> None:
    """Processes that change the same credential at once count every change."""
    children = [_start(lambda: _bump(vault, 30)) for _ in range(3)]

    assert [0, 0, 0] == [_exit_code(child) for child in children]
    assert 1 + 90 == vault.read().credentials["ses"].next_number
    assert 1 + 90 == vault.read().generation


def _bump(vault: Vault, times: int) -> None:
    def change(credential: Credential) -> Credential:
        return replace(credential, next_number=credential.next_number + 1)

    for _ in range(times):
        vault.update("ses", change)


def test_reader_beside_a_writer_sees_no_error(filled: Vault, rotate: Change) -> None:
    """A reader without the lock sees whole generations that only grow."""
    child = _start(
        lambda: [
            filled.update("ses", lambda credential: _latest_only(rotate(credential)))
            for _ in range(150)
        ]
    )
    generations = []
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        contents = filled.read()
        generations.append(contents.generation)
        assert contents.credentials["ses"].current().number

    assert 0 == _exit_code(child)
    assert sorted(generations) == generations
    assert len(set(generations)) > 10
    assert 154 == filled.read().generation


def test_reader_beside_a_creator_sees_nothing_or_a_vault(
    tmp_path: Path, keyfile: KeyfileProvider
) -> None:
    """While a vault is being made it is missing or whole, never damaged."""
    keyfile.load()
    for number in range(20):
        vault = Vault(tmp_path / f"vault-{number}", keyfile)
        child = _start(vault.create)
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            with contextlib.suppress(VaultMissing):
                assert 1 == vault.read().generation
        assert 0 == _exit_code(child)
        assert 1 == vault.read().generation

"""What the daemon serves: the newest good contents, whatever happens to the files."""

import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.core.credential import Credential
from sesguard.core.interfaces import CredentialSource
from sesguard.errors import (
    CredentialError,
    Error,
    KeyProviderUnavailable,
    VaultMissing,
    VaultRolledBack,
    VaultTampered,
)
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.source import RETRY_S, VaultCredentialSource
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def problems() -> list[Error]:
    return []


@pytest.fixture
def source(filled: Vault, problems: list[Error], clock: Clock) -> VaultCredentialSource:
    return VaultCredentialSource(filled, problems.append, clock)


def _files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.iterdir()}


def _put_back(files: dict[Path, bytes]) -> None:
    for path, data in files.items():
        path.write_bytes(data)


def test_source_gives_the_current_version(source: VaultCredentialSource) -> None:
    """The CURRENT version, through the interface that lookup and upstream know."""
    interface: CredentialSource = source

    assert 2 == interface.current("ses").number
    assert 4 == source.contents().generation
    assert source.problem is None


@pytest.mark.parametrize("name", ["unknown", "Not-An-Id"])
def test_source_refuses_an_unknown_credential(source: VaultCredentialSource, name: str) -> None:
    """A credential that is not there is an error, not an empty answer."""
    with pytest.raises(CredentialError):
        source.current(name)


def test_source_serves_a_new_version_at_once(
    source: VaultCredentialSource, filled: Vault, rotate: Change
) -> None:
    """A commit is seen by the next call, without a restart."""
    served = [source.current("ses").number]
    for _ in range(3):
        Vault(filled.directory, filled.provider).update("ses", rotate)
        served.append(source.current("ses").number)

    assert [2, 3, 4, 5] == served


def test_source_reads_an_unchanged_vault_once(source: VaultCredentialSource) -> None:
    """While the file is unchanged the same contents are handed out."""
    assert source.contents() is source.contents()


def test_source_serves_on_through_damage(
    source: VaultCredentialSource, filled: Vault, problems: list[Error], rotate: Change
) -> None:
    """A damaged vault is reported once, the last good contents are served, a repair is seen."""
    source.current("ses")
    (filled.directory / "vault").write_bytes(b"damaged")

    assert [2, 2, 2] == [source.current("ses").number for _ in range(3)]
    assert [VaultTampered] == [type(problem) for problem in problems]
    assert problems == [source.problem]

    filled.restore_previous()
    filled.update("ses", rotate)
    assert 6 == source.contents().generation
    assert [None] == [source.problem]
    assert 1 == len(problems)


def test_source_reports_each_state_of_the_file(
    source: VaultCredentialSource, filled: Vault, problems: list[Error], clock: Clock
) -> None:
    """Other damage is another report; trying again in vain is none."""
    source.current("ses")
    (filled.directory / "vault").write_bytes(b"damaged")
    source.current("ses")
    (filled.directory / "vault").write_bytes(b"damaged more")
    source.current("ses")
    clock.now += 10 * RETRY_S
    source.current("ses")
    (filled.directory / "vault").unlink()
    source.current("ses")

    assert 3 == len(problems)


def test_source_tries_again_after_a_while(
    source: VaultCredentialSource, filled: Vault, clock: Clock, tmp_path: Path, rotate: Change
) -> None:
    """What is cured without a change of the vault file is noticed within the retry time."""
    source.current("ses")
    mark = filled.directory / "mark"
    filled.update("ses", rotate)
    mark.rename(tmp_path / "mark")

    assert 2 == source.current("ses").number
    assert isinstance(source.problem, VaultTampered)

    (tmp_path / "mark").rename(mark)
    clock.now += RETRY_S - 0.1
    assert 2 == source.current("ses").number
    clock.now += 0.2
    assert 3 == source.current("ses").number
    assert source.problem is None


def test_source_serves_on_when_the_vault_is_removed(
    source: VaultCredentialSource, filled: Vault, problems: list[Error]
) -> None:
    """Mail goes on while somebody moves the directory away."""
    source.current("ses")
    filled.directory.rename(filled.directory.with_name("away"))

    assert 2 == source.current("ses").number
    assert [VaultMissing] == [type(problem) for problem in problems]


def test_cold_start_with_damage_serves_the_last_good(
    source: VaultCredentialSource, filled: Vault, problems: list[Error]
) -> None:
    """A daemon that starts on a damaged vault reports it and serves the previous generation."""
    (filled.directory / "vault").write_bytes(b"damaged")

    assert 1 == source.current("ses").number
    assert 1 == source.current("ses").number
    assert [VaultTampered] == [type(problem) for problem in problems]


def test_cold_start_with_nothing_readable_raises(
    source: VaultCredentialSource, filled: Vault, problems: list[Error]
) -> None:
    """With both generations damaged every call raises the error; it is reported once."""
    for name in ("vault", "vault.previous"):
        (filled.directory / name).write_bytes(b"damaged")

    lengths = []
    for _ in range(5):
        with pytest.raises(VaultTampered) as caught:
            source.current("ses")
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))

    assert 1 == len(problems)
    assert 1 == len(set(lengths)), "the traceback of the kept error must not grow"


def test_cold_start_without_a_vault_recovers_when_it_is_made(
    tmp_path: Path, keyfile: KeyfileProvider, rotate: Change, problems: list[Error]
) -> None:
    """A daemon that was started too early serves as soon as there is a vault."""
    vault = Vault(tmp_path / "late", keyfile)
    source = VaultCredentialSource(vault, problems.append)

    with pytest.raises(VaultMissing):
        source.current("ses")
    assert isinstance(source.problem, VaultMissing)
    vault.create()
    vault.update("ses", rotate)

    assert 1 == source.current("ses").number
    assert source.problem is None


def test_key_out_of_reach_is_tried_again(
    tmp_path: Path, filled: Vault, clock: Clock, problems: list[Error]
) -> None:
    """At a cold start without the key nothing is served until the key can be had."""
    provider = KeyfileProvider(tmp_path / "late.key")
    source = VaultCredentialSource(Vault(filled.directory, provider), problems.append, clock)

    for _ in range(2):
        with pytest.raises(KeyProviderUnavailable):
            source.current("ses")
    (tmp_path / "etc" / "vault.key").rename(tmp_path / "late.key")
    with pytest.raises(KeyProviderUnavailable):
        source.current("ses")
    clock.now += RETRY_S

    assert 2 == source.current("ses").number
    assert [KeyProviderUnavailable] == [type(problem) for problem in problems]


def test_source_notices_a_directory_that_was_put_back(
    source: VaultCredentialSource, filled: Vault, problems: list[Error], rotate: Change
) -> None:
    """An old copy of all files, which the files alone cannot tell, is not served."""
    old = _files(filled.directory)
    filled.update("ses", rotate)
    filled.update("ses", rotate)
    assert 4 == source.current("ses").number

    _put_back(old)

    assert 4 == filled.read().generation, "the files agree with each other"
    assert 4 == source.current("ses").number
    assert [VaultRolledBack] == [type(problem) for problem in problems]
    assert "restart sesguardd if an older vault was put back on purpose" == problems[0].hint


def test_source_notices_an_exchanged_vault(
    source: VaultCredentialSource,
    filled: Vault,
    tmp_path: Path,
    problems: list[Error],
    rotate: Change,
) -> None:
    """Another vault of the same key in its place is not served without a restart."""
    other = Vault(tmp_path / "other", filled.provider)
    other.create()
    for _ in range(5):
        other.update("ses", rotate)
    source.current("ses")

    for path in other.directory.iterdir():
        (filled.directory / path.name).write_bytes(path.read_bytes())

    assert 2 == source.current("ses").number
    assert [VaultTampered] == [type(problem) for problem in problems]
    assert 5 == VaultCredentialSource(filled).current("ses").number


def test_source_ignores_problems_unless_told(filled: Vault) -> None:
    """Without a listener a problem is only kept."""
    (filled.directory / "vault").write_bytes(b"damaged")
    source = VaultCredentialSource(filled)

    source.current("ses")

    assert isinstance(source.problem, VaultTampered)


def test_source_has_no_problem_before_it_was_asked(source: VaultCredentialSource) -> None:
    """Nothing is read until something is wanted."""
    assert source.problem is None


def test_thread_that_waited_does_not_read_again(filled: Vault) -> None:
    """A thread that met the change while another one was reading takes what that one read."""
    waiting = threading.Event()

    class WatchedVault(Vault):
        @property
        def stamp(self) -> tuple[int, int, int, int] | None:
            if threading.current_thread() is second:
                waiting.set()
            return super().stamp

    def start_second(problem: Error) -> None:
        problems.append(problem)
        second.start()
        assert waiting.wait(10)

    problems: list[Error] = []
    source = VaultCredentialSource(WatchedVault(filled.directory, filled.provider), start_second)
    second = threading.Thread(target=source.contents)
    source.contents()
    (filled.directory / "vault").write_bytes(b"damaged")

    source.contents()
    second.join()

    assert 1 == len(problems)


def test_threads_read_a_changed_vault_once(
    filled: Vault, rotate: Change, problems: list[Error]
) -> None:
    """Threads that meet a damaged vault at the same time report it once and are all served."""
    source = VaultCredentialSource(filled, problems.append)
    source.current("ses")
    (filled.directory / "vault").write_bytes(b"damaged")
    served: list[int] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        served.extend(source.current("ses").number for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [2] * 1600 == served
    assert 1 == len(problems)


def test_source_beside_a_writer_never_goes_back(filled: Vault, rotate: Change) -> None:
    """Under a stream of commits each answer is a whole version, and never an older one."""
    problems: list[Error] = []
    source = VaultCredentialSource(filled, problems.append)
    child = os.fork()
    if child == 0:
        try:
            for _ in range(40):
                filled.update("ses", rotate)
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    numbers = []
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        numbers.append(source.current("ses").number)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert sorted(numbers) == numbers
    assert 42 == source.current("ses").number
    assert [] == problems


def test_unchanged_vault_costs_microseconds(source: VaultCredentialSource) -> None:
    """An answer from memory costs one stat(2): a few microseconds."""
    source.current("ses")
    rounds = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(100):
            source.current("ses")
        rounds.append((time.perf_counter() - start) / 100)

    assert min(rounds) < 20e-6

"""A new key for the vault: everything is sealed anew, and nothing old counts any more."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rigs.crash import killed_at
from rigs.key_providers import PAIRS, MaskedProvider, SealedHost, sealed_host
from sesguard.core.credential import Credential
from sesguard.errors import (
    Error,
    KeyProviderUnavailable,
    SystemFault,
    VaultError,
    VaultTampered,
    WrongKey,
)
from sesguard.vault.format import VAULT_HEADER, Manifest, parse_document
from sesguard.workflow.journal import RunState

Change = Callable[[Credential], Credential]
Files = dict[str, bytes]


@pytest.fixture
def host(tmp_path: Path, rotate: Change) -> SealedHost:
    """A host whose vault is under a key file, generation 4."""
    return sealed_host(tmp_path / "host", "keyfile", rotate)


def _manifest(path: Path) -> Manifest:
    return parse_document(path.read_bytes(), VAULT_HEADER, Manifest, path).unverified


def _files(directory: Path) -> Files:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "journal.db-" not in path.name and not path.name.endswith("lock")
    }


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_key_is_a_new_one(tmp_path: Path, rotate: Change, source: str, target: str) -> None:
    """Manifest key and data keys are new, in both generations; the credentials are the same."""
    host = sealed_host(tmp_path / "host", source, rotate)
    before, expected = _manifest(host.directory / "vault" / "vault"), host.vault().read()

    host.rewrap(target)

    for name, number in (("vault", 5), ("vault.previous", 4)):
        after = _manifest(host.directory / "vault" / name)
        assert (number, before.vault_id, target) == (
            after.generation,
            after.vault_id,
            after.provider,
        )
        assert before.manifest_key != after.manifest_key
        for old, new in zip(before.credentials, after.credentials, strict=True):
            assert (old.id, old.labels, old.next_number) == (new.id, new.labels, new.next_number)
            for old_record, new_record in zip(old.versions, new.versions, strict=True):
                assert old_record.version == new_record.version
                assert old_record.wrapped_key != new_record.wrapped_key
                assert old_record.ciphertext != new_record.ciphertext
    assert expected.credentials == host.vault().read().credentials


@pytest.mark.parametrize("damaged", ["vault", "mark", "vault.previous"])
def test_last_good_version_opens_without_the_old_key(host: SealedHost, damaged: str) -> None:
    """After the change a damaged file is put back without the key before it."""
    expected = host.vault().read().credentials
    host.rewrap("masked")
    host.forget("keyfile")
    (host.directory / "vault" / damaged).write_bytes(b"damaged")

    assert expected == host.vault().read_last_good().credentials
    if damaged != "vault.previous":
        host.vault().restore_previous()
    assert expected == host.vault().read().credentials


def test_wrong_provider_is_told_how_to_finish(host: SealedHost) -> None:
    """Killed after the commit, the settings name the old provider: the error says what to do."""
    _kill_after_commit(host)

    with pytest.raises(WrongKey, match="its key provider is 'masked'") as caught:
        host.vault().read()
    assert caught.value.hint is not None
    assert "run: sesguard credential rewrap --to masked" in caught.value.hint


def test_interrupted_change_to_another_provider_comes_first(host: SealedHost) -> None:
    """While the vault is on its way to one provider, going back to the old one is refused."""
    _kill_after_commit(host)
    before = _files(host.directory)

    with pytest.raises(WrongKey, match="masked"):
        host.rewrap("keyfile")
    assert before == _files(host.directory)


def _kill_after_commit(host: SealedHost) -> None:
    point = 0
    while "masked" not in host.openers("masked"):
        point += 1
        assert killed_at(lambda: host.rewrap("masked"), point)
    assert "keyfile" == host.configured


@pytest.mark.parametrize("target", ["keyfile", "masked"])
def test_without_the_old_key_nothing_is_begun(host: SealedHost, target: str) -> None:
    """What cannot be opened cannot be moved, and no new key is made."""
    host.forget("keyfile")
    before = _files(host.directory)

    with pytest.raises(KeyProviderUnavailable):
        host.rewrap(target)
    assert before == _files(host.directory)


def test_without_the_new_key_nothing_is_changed(host: SealedHost) -> None:
    """A target that cannot make its key leaves all as it was."""
    (host.directory / "masked").write_text("no directory")
    before = _files(host.directory)

    with pytest.raises(SystemFault):
        host.rewrap("masked")
    assert before == _files(host.directory)


def test_damaged_vault_is_not_moved(host: SealedHost) -> None:
    """Only a vault in order is moved: nothing is made whole by a new signature."""
    path = host.directory / "vault" / "vault"
    path.write_bytes(path.read_bytes().replace(b'"CURRENT":2', b'"CURRENT":1'))
    before = _files(host.directory)

    with pytest.raises(VaultTampered):
        host.rewrap("masked")
    assert before == _files(host.directory)


def test_unfinished_run_refuses(host: SealedHost) -> None:
    """What the journal still has to do is done first."""
    host.run(RunState.ROLLING_BACK, "postfix")
    before = _files(host.directory / "vault")

    with pytest.raises(Error, match="is not finished: target of postfix") as caught:
        host.rewrap("masked")
    assert 1 == caught.value.exit_code
    assert before == _files(host.directory / "vault")
    assert not (host.directory / "masked").exists()


def test_journal_that_does_not_open_is_left_alone(host: SealedHost) -> None:
    """Entries of a key that was lost before do not hold up the change, and are counted."""
    stray = host.copied(host.directory.with_name("stray"))
    host.forget("keyfile")
    shutil.rmtree(host.directory / "vault")
    host.vault().provider.ensure_key()
    host.vault().create()
    host.run(RunState.DONE)

    changed = host.change("masked").make()

    assert (2, 2) == (changed.generation, changed.unreadable)
    assert 2 == len(stray.entries())
    with pytest.raises(WrongKey):
        host.entries()


def test_failure_after_the_commit_says_so(host: SealedHost) -> None:
    """Once the vault has its new key, an error says that, and how to go on."""
    change = host.change("masked")

    def fail(_sealer: object) -> None:
        raise SystemFault("cannot write the journal: full")

    with pytest.raises(
        VaultError, match=r"has its new key.*cannot write the journal: full"
    ) as fault:
        change.vault.rewrap(change.target, fail)
    assert fault.value.hint == "mend that, then run again: sesguard credential rewrap --to masked"
    host.rewrap("masked")
    assert ["masked"] == list(host.openers("keyfile", "masked"))


class Forgetful(MaskedProvider):
    """Wraps another data key than it was given."""

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """All zeroes."""
        return super().wrap(bytes(len(data_key)), context)


def test_unreadable_record_of_the_provider_is_found_before_the_commit(host: SealedHost) -> None:
    """A provider that does not give back what it wrapped is found out while nothing is changed."""
    change = replace(host.change("masked"), target=Forgetful(host.directory / "vault.key"))
    before = _files(host.directory / "vault")

    with pytest.raises(VaultTampered):
        change.make()
    assert before == _files(host.directory / "vault")


@dataclass(frozen=True)
class Moment:
    """The vault's files at one time."""

    vault: bytes
    mark: bytes
    coming: bytes | None

    def put_back(self, directory: Path) -> None:
        """Make the files what they were then."""
        (directory / "vault").write_bytes(self.vault)
        (directory / "mark").write_bytes(self.mark)
        (directory / "mark.next").unlink(missing_ok=True)
        if self.coming is not None:
            (directory / "mark.next").write_bytes(self.coming)


def _history(host: SealedHost, rotate: Change, target: str) -> list[Moment]:
    """Updates, a change of the key that stops before the mark, and more updates under its key."""

    def note() -> None:
        files = _files(host.directory / "vault")
        moments.append(Moment(files["vault"], files["mark"], files.get("mark.next")))

    moments: list[Moment] = []
    note()
    host.vault().update("ses", rotate)
    note()
    point = 0
    while moments[-1].vault == moments[1].vault:
        point += 1
        copy = host.copied(host.directory.with_name(f"stopped-{point}"))
        assert killed_at(lambda: copy.rewrap(target), point)  # noqa: B023
        files = _files(copy.directory / "vault")
        if files["vault"] != moments[1].vault:
            shutil.rmtree(host.directory)
            shutil.copytree(copy.directory, host.directory)
            note()
    assert moments[-1].coming is not None
    stopped = moments[-1]
    # Each change is committed before the mark moves on.
    moments.append(replace(stopped, vault=moments[1].vault))
    host.vault(target).update("ses", rotate)
    note()
    moments.append(replace(stopped, vault=moments[-1].vault))
    host.vault(target).update("ses", rotate)
    note()
    return moments


@pytest.mark.parametrize("target", ["keyfile", "masked"])
def test_no_mix_of_times_opens(host: SealedHost, rotate: Change, target: str) -> None:
    """Whatever old files are put back, a coming mark opens only what was there as a whole."""
    moments = _history(host, rotate, target)
    directory = host.directory / "vault"
    vaults, marks, coming = (
        dict.fromkeys(getattr(moment, field) for moment in moments)
        for field in ("vault", "mark", "coming")
    )

    def opens(moment: Moment) -> bool:
        moment.put_back(directory)
        return bool(host.openers("keyfile", target))

    # No key was forgotten yet: what is refused here is refused by the marks.
    assert all(opens(moment) for moment in moments)
    for vault, mark in itertools.product(vaults, marks):
        before = opens(Moment(vault, mark, None))
        for beside in coming:
            mixed = Moment(vault, mark, beside)
            assert opens(mixed) == (before or mixed in moments)


@pytest.mark.parametrize("target", ["keyfile", "masked"])
def test_vault_older_than_the_mark_is_refused(
    host: SealedHost, rotate: Change, target: str
) -> None:
    """With the newest mark only the newest vault opens, whatever coming mark is put beside it."""
    moments = _history(host, rotate, target)
    newest = moments[-1]

    for moment, beside in itertools.product(moments, moments):
        replace(newest, vault=moment.vault, coming=beside.coming).put_back(host.directory / "vault")
        assert (moment.vault == newest.vault) == bool(host.openers("keyfile", target))


def test_old_vault_does_not_open_once_the_key_is_changed(host: SealedHost, rotate: Change) -> None:
    """At the end of a change nothing from before it opens, not even all of it together."""
    before_the_change = _history(host, rotate, "keyfile")[:2]
    host.rewrap("keyfile")

    for moment in before_the_change:
        moment.put_back(host.directory / "vault")
        with pytest.raises(WrongKey):
            host.vault().read()


def test_damaged_mark_is_not_replaced_by_the_coming_one(host: SealedHost, rotate: Change) -> None:
    """A coming mark counts beside the very mark that it replaces, and not beside a damaged one."""
    stopped = _history(host, rotate, "keyfile")[2]

    for mark in (b"", stopped.mark[:-2] + b"\n", stopped.mark.replace(b"n", b"m", 1)):
        replace(stopped, mark=mark).put_back(host.directory / "vault")
        with pytest.raises(VaultTampered):
            host.vault().read()
    stopped.put_back(host.directory / "vault")
    (host.directory / "vault" / "mark").unlink()
    with pytest.raises(VaultTampered, match="mark is gone"):
        host.vault().read()


def test_reader_beside_changes_of_the_key_sees_no_damage(host: SealedHost) -> None:
    """A reader without the lock meets a key that it has not loaded, at most."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(20):
                host.rewrap("keyfile")
            code = 0
        finally:
            os._exit(code)
    generations = []
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with contextlib.suppress(WrongKey, KeyProviderUnavailable, SystemFault):
            generations.append(host.vault().read().generation)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert sorted(generations) == generations
    assert 24 == host.vault().read().generation


@pytest.mark.parametrize("target", ["keyfile", "masked"])
def test_key_of_a_change_that_was_given_up_is_not_used(host: SealedHost, target: str) -> None:
    """A next key that lay around, and may have leaked, never becomes the key of the vault."""
    host.kinds[target](host.directory).prepare_next()
    key = host.directory / target / "vault.key"
    given_up = key.with_name("vault.key.next").read_bytes()

    host.rewrap(target)

    assert given_up != key.read_bytes()
    assert not key.with_name("vault.key.next").exists()


def test_new_key_of_a_finished_change_is_of_the_second_run(host: SealedHost) -> None:
    """A change that was left unfinished, for months perhaps, is finished; then the key is new."""
    key, point = host.directory / "keyfile" / "vault.key", 0
    before = (host.directory / "vault" / "vault").read_bytes()
    while before == (host.directory / "vault" / "vault").read_bytes():
        point += 1
        assert killed_at(lambda: host.rewrap("keyfile"), point)
    of_first_run = key.with_name("vault.key.next").read_bytes()
    expected, entries = host.vault().read(), host.entries()

    host.rewrap("keyfile")

    assert of_first_run != key.read_bytes()
    assert expected.credentials == host.vault().read().credentials
    assert entries == host.entries()


def test_key_of_another_vault_is_not_replaced(host: SealedHost) -> None:
    """Where the target has a key already, another vault may be under it: nothing is begun."""
    host.kinds["masked"](host.directory).ensure_key()
    before = _files(host.directory)

    with pytest.raises(KeyProviderUnavailable, match=r"there is a vault key in .* already"):
        host.rewrap("masked")
    assert before == _files(host.directory)

    host.forget("masked")
    host.rewrap("masked")

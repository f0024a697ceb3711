"""What the vault does when nothing goes wrong, and whom it lets read and write."""

import contextlib
import os
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.secret import Secret
from sesguard.errors import (
    CredentialError,
    SystemFault,
    VaultBusy,
    VaultError,
    VaultMissing,
)
from sesguard.system.locks import exclusive_lock
from sesguard.vault.generation import open_manifest
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]

NOBODY = 65534


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_new_vault_is_empty(vault: Vault) -> None:
    """A new vault opens as generation 1 with no credential."""
    contents = vault.read()

    assert 1 == contents.generation
    assert {} == dict(contents.credentials)
    assert vault.exists()


def test_vault_gives_back_what_was_put_in(vault: Vault, rotate: Change) -> None:
    """Everything of a credential survives, and another process sees it."""
    written = vault.update("ses", rotate)

    fresh = Vault(vault.directory, vault.provider)

    assert {"ses": written} == dict(fresh.read().credentials)
    assert 2 == fresh.read().generation


def test_each_change_is_one_generation(filled: Vault) -> None:
    """Generations are counted, and credentials are kept apart."""
    contents = filled.read()

    assert 4 == contents.generation
    assert ["other", "ses"] == sorted(contents.credentials)
    assert 2 == contents.credentials["ses"].current().number
    assert 1 == contents.credentials["other"].current().number


def test_vault_directory_holds_four_files(filled: Vault) -> None:
    """Nothing temporary stays behind."""
    names = sorted(path.name for path in filled.directory.iterdir())

    assert ["lock", "mark", "vault", "vault.previous"] == names


def test_no_file_shows_a_secret_or_user(filled: Vault) -> None:
    """Neither passwords nor user names are on the disk in the clear."""
    everything = b"".join(_files(filled.directory).values())

    for credential in filled.read().credentials.values():
        for version in credential.versions:
            assert version.username.encode() not in everything
            for password in version.passwords.values():
                assert password.reveal().encode()[:16] not in everything


def test_contents_show_no_secret(filled: Vault) -> None:
    """The text form of what was read is safe to log."""
    shown = repr(filled.read())

    assert "<secret>" in shown
    assert "BMPPgbAH" not in shown


def test_unchanged_result_writes_nothing(filled: Vault) -> None:
    """A change that changes nothing makes no generation."""
    before = _files(filled.directory)

    filled.update("ses", replace)
    filled.update("new", lambda credential: credential)

    assert before == _files(filled.directory)


def test_unchanged_versions_keep_their_records(filled: Vault, rotate: Change) -> None:
    """Only a new or changed version is sealed anew."""
    path = filled.directory / "vault"
    before = open_manifest(path.read_bytes(), path, filled.provider)[0]

    def rotate_and_expose_first(credential: Credential) -> Credential:
        first, *rest = rotate(credential).versions
        return replace(rotate(credential), versions=(replace(first, exposed=True), *rest))

    filled.update("ses", rotate_and_expose_first)
    after = open_manifest(path.read_bytes(), path, filled.provider)[0]

    assert before.credentials[0] == after.credentials[0]
    assert before.credentials[1].versions[0] != after.credentials[1].versions[0]
    assert before.credentials[1].versions[1] == after.credentials[1].versions[1]
    assert filled.read().credentials["ses"].version(1).exposed


def test_every_record_has_its_own_key(filled: Vault) -> None:
    """No wrapped key or nonce is used twice."""
    path = filled.directory / "vault"
    manifest, _ = open_manifest(path.read_bytes(), path, filled.provider)
    records = [record for entry in manifest.credentials for record in entry.versions]

    assert 3 == len({record.wrapped_key for record in records})
    assert 3 == len({record.nonce for record in records})


def test_vault_removes_a_credential(filled: Vault) -> None:
    """A removed credential is gone; the others stay."""
    filled.remove("ses")

    assert ["other"] == list(filled.read().credentials)


def test_vault_cannot_remove_what_it_has_not(filled: Vault) -> None:
    """Removing an unknown credential is an error and changes nothing."""
    before = _files(filled.directory)

    with pytest.raises(CredentialError, match="there is no credential nothing"):
        filled.remove("nothing")

    assert before == _files(filled.directory)


def test_change_that_raises_changes_nothing(filled: Vault) -> None:
    """The error of a change comes through, and the lock is free again."""
    before = _files(filled.directory)

    with pytest.raises(CredentialError, match="CURRENT and cannot be dropped"):
        filled.update("ses", lambda credential: credential.drop(2))

    assert before == _files(filled.directory)
    with filled.locked():
        pass


def test_change_may_not_rename_a_credential(filled: Vault) -> None:
    """A change that gives back another credential is refused."""
    with pytest.raises(CredentialError, match="a change of credential ses gave back other"):
        filled.update("ses", lambda _: Credential("other"))


def test_vault_refuses_a_bad_credential_id(filled: Vault) -> None:
    """An id that cannot name a credential never gets into the vault."""
    with pytest.raises(CredentialError, match="cannot name a credential"):
        filled.update("../ses", lambda credential: credential)


def test_text_that_is_not_unicode_is_refused(filled: Vault, rotate: Change) -> None:
    """A lone surrogate (an undecodable file name) is an error without the value."""

    def change(credential: Credential) -> Credential:
        *rest, last = rotate(credential).versions
        bad = replace(last, origin="imported from /etc/\udcff")
        return replace(rotate(credential), versions=(*rest, bad))

    with pytest.raises(CredentialError, match="version 3 of credential ses has text"):
        filled.update("ses", change)


def test_vault_is_not_created_twice(filled: Vault) -> None:
    """Creating over a vault is refused and leaves it as it is."""
    with pytest.raises(VaultError, match="already"):
        filled.create()

    assert 4 == filled.read().generation


def test_vault_is_not_created_over_what_is_left_of_one(filled: Vault) -> None:
    """The previous generation alone is a vault too: it can be restored."""
    (filled.directory / "vault").unlink()

    with pytest.raises(VaultError, match="already"):
        filled.create()


@pytest.mark.parametrize(
    "act",
    [
        lambda vault: vault.read(),
        lambda vault: vault.read_last_good(),
        lambda vault: vault.restore_previous(),
        lambda vault: vault.update("ses", lambda credential: credential),
        lambda vault: vault.remove("ses"),
    ],
)
def test_missing_vault_is_named(
    tmp_path: Path, keyfile: KeyfileProvider, act: Callable[[Vault], object]
) -> None:
    """Without a vault every method says so, and none makes a directory."""
    vault = Vault(tmp_path / "none", keyfile)

    with pytest.raises(VaultMissing) as caught:
        act(vault)

    assert f"there is no vault in {tmp_path}/none" == str(caught.value)
    assert "run: sesguard init" == caught.value.hint
    assert not vault.directory.exists()
    assert vault.stamp is None
    assert not vault.exists()


def test_second_writer_waits_and_then_gives_up(tmp_path: Path, keyfile: KeyfileProvider) -> None:
    """A lock held by another process is `VaultBusy` after the time limit."""
    vault = Vault(tmp_path / "vault", keyfile, lock_timeout_s=0.05)
    vault.create()

    with exclusive_lock(vault.directory / "lock"), pytest.raises(VaultBusy) as caught:
        vault.update("ses", lambda credential: credential)

    assert "wait for it to end and try again" == caught.value.hint


def test_busy_lock_of_the_change_itself_comes_through(filled: Vault, tmp_path: Path) -> None:
    """Only the vault's own lock is reported as a busy vault."""

    def change(_credential: Credential) -> Credential:
        with exclusive_lock(tmp_path / "mine"), exclusive_lock(tmp_path / "mine"):
            raise AssertionError

    with pytest.raises(SystemFault, match=r"holds .*/mine"):
        filled.update("ses", change)


def test_stamp_changes_with_every_commit(filled: Vault, rotate: Change) -> None:
    """The stamp tells that the vault was changed, and stays while it was not."""
    stamps = [filled.stamp, filled.stamp]
    filled.update("ses", rotate)
    stamps.append(filled.stamp)

    assert stamps[0] == stamps[1]
    assert stamps[1] != stamps[2]


def test_files_are_private_without_a_reader(filled: Vault) -> None:
    """Without a reader's group only the owner may look."""
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (filled.directory, *filled.directory.iterdir())
    }

    assert {"vault": 0o700} | dict.fromkeys(("mark", "vault.previous", "lock"), 0o600) == {
        **modes,
        "vault": stat.S_IMODE(filled.directory.stat().st_mode),
    }
    assert 0o600 == stat.S_IMODE((filled.directory / "vault").stat().st_mode)


def test_path_through_a_file_is_an_error(filled: Vault) -> None:
    """What is in the way of the directory is named; it is not taken for a missing vault."""
    vault = Vault(filled.directory / "mark" / "vault", filled.provider)

    assert vault.stamp is None
    for act in (vault.exists, vault.read, vault.read_last_good):
        with pytest.raises(SystemFault, match="Not a directory"):
            act()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="sesguard-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _as_nobody(act: Callable[[], None]) -> int:
    """Run `act` in a child without rights and give its exit code."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                act()
            except BaseException:
                traceback.print_exc()
                raise
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_unprivileged_reader_reads_and_cannot_write(public_directory: Path, rotate: Change) -> None:
    """The daemon's user reads every generation, needs no lock, and can change nothing."""
    provider = KeyfileProvider.create(public_directory / "vault.key")
    vault = Vault(public_directory / "vault", provider, reader_gid=NOBODY)
    vault.create()
    vault.update("ses", rotate)
    vault.update("ses", rotate)

    def read_and_try_to_write() -> None:
        assert 3 == vault.read().generation
        assert all(check.ok for check in vault.verify())
        assert vault.stamp is not None
        for path in (vault.directory / "lock", public_directory / "vault.key"):
            with pytest.raises(PermissionError):
                path.read_bytes()
        with pytest.raises(SystemFault):
            vault.update("ses", rotate)
        with pytest.raises(SystemFault, match="Permission denied"):
            KeyfileProvider(public_directory / "vault.key").load()
        (vault.directory / "vault").read_bytes()
        for path in vault.directory.iterdir():
            with pytest.raises(PermissionError):
                path.write_bytes(b"")

    assert 0 == _as_nobody(read_and_try_to_write)
    assert 3 == vault.read().generation
    assert 0o750 == stat.S_IMODE(vault.directory.stat().st_mode)
    for name in ("vault", "vault.previous", "mark"):
        status = (vault.directory / name).stat()
        assert (0o640, NOBODY) == (stat.S_IMODE(status.st_mode), status.st_gid)
    assert 0o600 == stat.S_IMODE((vault.directory / "lock").stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_user_without_rights_is_told_so(public_directory: Path) -> None:
    """A vault that may not be looked at is not taken for a missing one."""
    provider = KeyfileProvider.create(public_directory / "vault.key")
    vault = Vault(public_directory / "vault", provider)
    vault.create()

    def look() -> None:
        assert vault.stamp is None
        for act in (vault.read, vault.exists, vault.read_last_good):
            with pytest.raises(SystemFault, match="Permission denied"):
                act()

    assert 0 == _as_nobody(look)


def test_read_takes_less_than_a_millisecond(filled: Vault) -> None:
    """A vault of a few versions is read in well under a millisecond."""
    best = min(_seconds(filled.read) for _ in range(50))

    assert best < 0.001


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
versions = st.builds(
    CredentialVersion,
    number=st.just(0),
    username=texts,
    passwords=st.dictionaries(texts, texts.map(Secret), max_size=3),
    created_at=texts,
    origin=texts,
    exposed=st.booleans(),
)


@st.composite
def credentials(draw: st.DrawFn) -> Credential:
    """A credential with any versions and any labels that fit them."""
    numbers = sorted(draw(st.sets(st.integers(1, 2**62), max_size=4)))
    labels = draw(st.permutations(list(StagingLabel)))[: draw(st.integers(0, 3))]
    chosen = draw(st.permutations(numbers))
    return Credential(
        draw(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)),
        tuple(replace(draw(versions), number=number) for number in numbers),
        dict(zip(labels, chosen, strict=False)),
        max(numbers, default=1) + draw(st.integers(1, 9)),
    )


@settings(max_examples=60, deadline=None)
@given(written=st.lists(credentials(), min_size=1, max_size=4))
def test_vault_round_trip_of_any_credentials(written: list[Credential]) -> None:
    """Whatever credentials are put in, in whatever order and place of others, come out the same."""
    with tempfile.TemporaryDirectory() as name:
        provider = KeyfileProvider.create(Path(name) / "vault.key")
        vault = Vault(Path(name) / "vault", provider)
        vault.create()
        for credential in written:
            vault.update(credential.credential_id, lambda _, new=credential: new)  # type: ignore[misc]

        read = Vault(Path(name) / "vault", provider).read().credentials

        assert {each.credential_id: each for each in written} == dict(read)
        path = Path(name) / "vault" / "vault"
        manifest, _ = open_manifest(path.read_bytes(), path, provider)
        assert path.read_bytes().split(b"\n")[1] == msgspec.json.encode(
            manifest, order="deterministic"
        )


def test_a_credential_that_is_not_there_has_no_versions(filled: Vault) -> None:
    """Whoever asks for it need not tell it from one that is empty."""
    contents = filled.read()

    assert contents.credentials["ses"] == contents.credential("ses")
    assert Credential("absent") == contents.credential("absent")

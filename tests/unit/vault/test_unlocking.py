"""Where a passphrase or PIN comes from, and in which order."""

import os
import stat
from pathlib import Path

import pytest

from rigs.crash import killed_at
from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderLocked, SystemFault
from sesguard.vault.providers.unlocking import Unlocking, nobody

CREDENTIAL = "sesguard-passphrase"


def typed(what: str, *, new: bool) -> Secret | None:
    """A person at a terminal."""
    return Secret(f"typed {'new ' * new}{what}")


def private(path: Path, content: bytes) -> Path:
    """A file that is 0600 from the beginning."""
    path.touch(0o600)
    path.write_bytes(content)
    return path


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credentials directory of this process, empty."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def test_file_comes_first(tmp_path: Path, credentials: Path) -> None:
    """A file that the settings name is taken, whatever else there is."""
    private(credentials / CREDENTIAL, b"from systemd")
    file = private(tmp_path / "file", b"from a file\n")

    assert Secret("from a file") == Unlocking("PIN", file, CREDENTIAL, typed).find()


def test_credential_comes_before_a_person(credentials: Path) -> None:
    """A service that has the credential asks nobody."""
    private(credentials / CREDENTIAL, b"from systemd\n")

    assert Secret("from systemd") == Unlocking("PIN", None, CREDENTIAL, typed).find()


@pytest.mark.parametrize("new", [False, True])
def test_person_is_told_what_is_asked(new: bool) -> None:
    """Without file and credential a person is asked, for the present one or a new one."""
    found = Unlocking("PIN", None, CREDENTIAL, typed).find(new=new)

    assert Secret("typed new PIN" if new else "typed PIN") == found


@pytest.mark.parametrize("directory", ["", "/nonexistent"])
def test_credentials_directory_that_is_not_there_has_none(
    monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    """A credentials directory that is not named, or gone, is one without the credential."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)

    assert Secret("typed PIN") == Unlocking("PIN", None, CREDENTIAL, typed).find()


def test_nothing_is_said_with_all_that_helps(credentials: Path) -> None:
    """In a service whose credentials directory stayed empty the error names every way."""
    with pytest.raises(KeyProviderLocked) as caught:
        Unlocking("passphrase", None, CREDENTIAL).find()

    assert "the vault key is locked: there is no passphrase" == str(caught.value)
    assert f"pass the systemd credential {CREDENTIAL}" in str(caught.value.hint)
    assert nobody("PIN", new=False) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_empty_is_none(tmp_path: Path, credentials: Path, content: bytes) -> None:
    """An empty file, credential or new file is refused, and nothing else is tried."""
    file = private(tmp_path / "file", content)
    private(credentials / CREDENTIAL, content)
    good = private(tmp_path / "good", b"good")
    private(tmp_path / "good.next", content)

    for unlocking, new in (
        (Unlocking("PIN", file, CREDENTIAL, typed), False),
        (Unlocking("PIN", None, CREDENTIAL, typed), False),
        (Unlocking("PIN", good, CREDENTIAL, typed), True),
    ):
        with pytest.raises(KeyProviderLocked):
            unlocking.find(new=new)
    assert [Secret("good")] == [*Unlocking("PIN", good, CREDENTIAL).find_all()]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one line\n", "one line"),
        (b"from Windows\r\n", "from Windows"),
        (b" spaces \n", " spaces "),
        (b"two\nlines\n\n", "two\nlines\n"),
        (b"\xff\n", "\udcff"),
    ],
)
def test_one_line_end_is_not_part_of_it(tmp_path: Path, content: bytes, expected: str) -> None:
    """An editor's line end goes; all else stays, bytes that are no text among it."""
    file = private(tmp_path / "file", content)

    assert expected == Unlocking("PIN", file, CREDENTIAL).find().reveal()


def test_missing_file_does_not_fall_back(tmp_path: Path) -> None:
    """A file that is named and not there is an error, not a question."""
    with pytest.raises(KeyProviderLocked, match=r"there is no file .*/none with the PIN"):
        Unlocking("PIN", tmp_path / "none", CREDENTIAL, typed).find()


@pytest.mark.parametrize("name", ["file", "file.next"])
def test_file_that_others_read_is_refused(tmp_path: Path, name: str) -> None:
    """The hint has the command to run, for the new file as well."""
    file = private(tmp_path / "file", b"present")
    private(tmp_path / "file.next", b"new")
    (tmp_path / name).chmod(0o640)

    with pytest.raises(SystemFault) as caught:
        list(Unlocking("PIN", file, CREDENTIAL).find_all())

    assert f"run: chmod 600 {tmp_path / name}" == caught.value.hint


def test_large_file_is_not_read(tmp_path: Path) -> None:
    """A file of any size costs nothing."""
    file = private(tmp_path / "file", bytes(5000))

    with pytest.raises(SystemFault, match="larger than"):
        Unlocking("PIN", file, CREDENTIAL).find()


def test_new_one_is_beside_the_present_one(tmp_path: Path) -> None:
    """While it changes both are found, the present one first; a new key takes the new one."""
    file = private(tmp_path / "file", b"present")
    unlocking = Unlocking("PIN", file, CREDENTIAL)
    before = [Secret("present")] == [*unlocking.find_all()], unlocking.find(new=True)
    private(tmp_path / "file.next", b"new\n")

    assert (True, Secret("present")) == before
    assert Secret("present") == unlocking.find()
    assert Secret("new") == unlocking.find(new=True)
    assert [Secret("present"), Secret("new")] == [*unlocking.find_all()]


def test_new_one_becomes_the_only_one(tmp_path: Path) -> None:
    """The promotion leaves one file, 0600, with the new one."""
    file = private(tmp_path / "file", b"present")
    private(tmp_path / "file.next", b"new")

    Unlocking("PIN", file, CREDENTIAL).promote_next()

    assert ["file"] == os.listdir(tmp_path)
    assert b"new" == file.read_bytes()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_killed_promotion_leaves_no_second_name_in_the_end(tmp_path: Path) -> None:
    """What a kill left beside the file is gone after the next promotion."""
    file = private(tmp_path / "file", b"present")
    private(tmp_path / "file.next", b"new")
    unlocking = Unlocking("PIN", file, CREDENTIAL)
    assert killed_at(unlocking.promote_next, 2)
    assert 3 == len(os.listdir(tmp_path))

    unlocking.promote_next()

    assert ["file"] == os.listdir(tmp_path)


def test_without_a_file_nothing_is_promoted() -> None:
    """A passphrase that is typed has no place that could be changed."""
    unlocking = Unlocking("PIN", None, CREDENTIAL, typed)

    unlocking.promote_next()

    assert unlocking.find_next() is None

"""The passphrase provider: the contract of every key provider, its file, and its passphrases."""

import base64
import hashlib
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderLocked, KeyProviderUnavailable, SystemFault
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault import cipher
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.passphrase import PassphraseProvider
from sesguard.vault.providers.unlocking import Unlocking

PASSPHRASE = "correct horse battery"
OTHER = "staple staple staple"


class Person:
    """Somebody at a terminal: answers with what is typed, and counts the questions."""

    def __init__(self, typed: str, *, typed_new: str | None = None) -> None:
        self.typed = typed
        self.typed_new = typed if typed_new is None else typed_new
        self.questions: list[tuple[str, bool]] = []

    def __call__(self, what: str, *, new: bool) -> Secret | None:
        self.questions.append((what, new))
        return Secret(self.typed_new if new else self.typed)


def by_hand(path: Path, person: Person) -> PassphraseProvider:
    """A provider whose passphrase a person types."""
    return PassphraseProvider(path, Unlocking("passphrase", None, "no-such-credential", person))


def by_file(path: Path) -> PassphraseProvider:
    """A provider whose passphrase is in a file."""
    file = path.with_name("passphrase")
    return PassphraseProvider(path, Unlocking("passphrase", file, "no-such-credential"))


def write_private(path: Path, content: str) -> None:
    """Make or overwrite a file that is 0600 from the beginning."""
    path.touch(0o600)
    path.write_text(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a file that `PASSPHRASE` opens."""
    path = tmp_path_factory.mktemp("made") / "vault.key"
    by_hand(path, Person(PASSPHRASE)).ensure_key()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, made: bytes) -> Path:
    """A file that `PASSPHRASE` opens."""
    path = tmp_path / "vault.key"
    path.touch(0o600)
    path.write_bytes(made)
    return path


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    """Holds `PASSPHRASE`, where `by_file` looks."""
    file = tmp_path / "passphrase"
    write_private(file, f"{PASSPHRASE}\n")
    return file


class TestPassphraseProvider(KeyProviderContract):
    """The contract."""

    @pytest.fixture
    def provider(self, path: Path) -> KeyProvider:
        return by_hand(path, Person(PASSPHRASE))

    @pytest.fixture
    def fresh(self, path: Path) -> KeyProvider:
        return by_hand(path, Person(PASSPHRASE))

    @pytest.fixture
    def other_provider(self, tmp_path: Path) -> KeyProvider:
        provider = by_hand(tmp_path / "other.key", Person(PASSPHRASE))
        provider.ensure_key()
        return provider


def test_file_says_how_it_is_opened(path: Path) -> None:
    """Two lines of ASCII: the parameters of scrypt, and 60 sealed bytes; 0600."""
    first, second = path.read_text("ascii").splitlines()
    title, parameters, salt = first.split(" ")

    assert "sesguard-key-passphrase/1" == title
    assert "ln=17,r=8,p=1" == parameters
    assert 16 == len(base64.b64decode(salt, validate=True))
    assert 12 + 32 + 16 == len(base64.b64decode(second, validate=True))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_file_is_opened_by_its_description(tmp_path: Path) -> None:
    """Whoever has the passphrase and the module's docstring gets the key."""
    provider = by_hand(tmp_path / "vault.key", Person(PASSPHRASE))
    provider.ensure_key()

    first, second = (tmp_path / "vault.key").read_bytes().splitlines(keepends=True)
    sealed = base64.b64decode(second)
    derived = hashlib.scrypt(
        PASSPHRASE.encode(),
        salt=base64.b64decode(first.split()[2]),
        n=2**17,
        r=8,
        p=1,
        maxmem=2**28,
        dklen=32,
    )

    assert [cipher.unseal(derived, sealed[:12], sealed[12:], first)] == [*provider._keys.values()]


def test_salts_and_keys_are_random(path: Path, tmp_path: Path) -> None:
    """The same passphrase makes another file each time."""
    by_hand(tmp_path / "second.key", Person(PASSPHRASE)).ensure_key()

    first, second = path.read_text().split(), (tmp_path / "second.key").read_text().split()

    assert ([True] * 2, [False] * 2) == (
        [first[index] == second[index] for index in (0, 1)],
        [first[index] == second[index] for index in (2, 3)],
    )


def test_wrong_passphrase_is_said(path: Path) -> None:
    """The error names both things that it can be, says what to do, and shows no passphrase."""
    with pytest.raises(KeyProviderLocked) as caught:
        by_hand(path, Person(OTHER)).load()

    assert f"the passphrase is wrong, or {path} was changed" == str(caught.value)
    assert "backup" in str(caught.value.hint)
    assert OTHER not in f"{caught.value.parameters}{caught.value.hint}"
    assert caught.value.__cause__ is None


def test_wrong_passphrase_can_be_typed_again(path: Path) -> None:
    """A mistake at the terminal is not remembered."""
    person = Person(OTHER)
    provider = by_hand(path, person)
    with pytest.raises(KeyProviderLocked):
        provider.load()
    person.typed = PASSPHRASE

    provider.load()

    assert bytes(32) == provider.unwrap(provider.wrap(bytes(32), CONTEXT), CONTEXT)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: re.sub(r"ln=17", "ln=18", text),
        lambda text: re.sub(r" [^ ]{22}==\n", f" {'A' * 22}==\n", text),
        lambda text: re.sub(r"\n.", "\nX" if "\nX" not in text else "\nY", text, count=1),
    ],
    ids=["parameters", "salt", "sealed"],
)
def test_changed_file_looks_like_a_wrong_passphrase(
    path: Path, change: Callable[[str], str]
) -> None:
    """What is well formed and was changed does not open."""
    path.write_text(change(path.read_text()))

    with pytest.raises(KeyProviderLocked, match=r"was changed$"):
        by_hand(path, Person(PASSPHRASE)).load()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace("ln=17", "ln=20"),
        lambda text: text.replace("ln=17", "ln=63"),
        lambda text: text.replace("ln=17", "ln=017"),
        lambda text: text.replace("ln=17", "ln=1"),
        lambda text: text.replace("r=8", "r=1000000"),
        lambda text: text.replace("p=1", "p=1000000"),
        lambda text: text.replace("/1 ", "/2 "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text + "\n",
        lambda text: text[:-5] + "\n",
        lambda text: text.partition("\n")[0] + "\n",
        lambda text: "\0" * 4000,
    ],
)
def test_other_content_is_no_key_and_costs_nothing(
    path: Path, change: Callable[[str], str]
) -> None:
    """A file that asks for gigabytes or minutes, or is not ours, is refused before anybody asks."""
    path.write_bytes(change(path.read_text()).encode())
    person = Person(PASSPHRASE)

    with pytest.raises(KeyProviderUnavailable) as caught:
        by_hand(path, person).load()

    assert f"{path} holds no vault key" == str(caught.value)
    assert not person.questions


def test_little_memory_is_said(path: Path) -> None:
    """A host that is too small gets an error with the figure, not a crash."""
    completed = subprocess.run(
        [sys.executable, "-c", _WITH_LITTLE_MEMORY, path],
        input=PASSPHRASE,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "let sesguard have 129 MiB more memory, for a second at its start\n" == completed.stdout


_WITH_LITTLE_MEMORY = """
import pathlib, resource, sys
from sesguard.core.secret import Secret
from sesguard.errors import SystemFault
from sesguard.vault.providers.passphrase import PassphraseProvider
from sesguard.vault.providers.unlocking import Unlocking
typed = Secret(sys.stdin.read())
unlocking = Unlocking("passphrase", None, "none", lambda what, *, new: typed)
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    PassphraseProvider(pathlib.Path(sys.argv[1]), unlocking).load()
except SystemFault as fault:
    print(fault.hint)
"""


@pytest.mark.parametrize("short", ["a", "elevenchars", "e\u0301" * 11])
def test_short_passphrase_is_refused_for_a_new_key(tmp_path: Path, short: str) -> None:
    """A new passphrase has 12 characters, as a person counts them; nothing is written."""
    path = tmp_path / "vault.key"

    with pytest.raises(KeyProviderLocked) as caught:
        by_hand(path, Person(short)).ensure_key()

    assert "the passphrase is too short: it needs 12 characters or more" == str(caught.value)
    assert "words" in str(caught.value.hint)
    assert not path.exists()


def test_empty_passphrase_is_none(tmp_path: Path) -> None:
    """Pressing Enter is no passphrase."""
    path = tmp_path / "vault.key"

    with pytest.raises(KeyProviderLocked, match="there is no passphrase"):
        by_hand(path, Person("")).ensure_key()

    assert not path.exists()


def test_passphrase_is_normalised(tmp_path: Path) -> None:
    """An accent is the same whether the keyboard sends it as one character or as two."""
    path = tmp_path / "vault.key"
    by_hand(path, Person("cora\u00e7\u00e3o de le\u00e3o")).ensure_key()

    by_hand(path, Person("corac\u0327a\u0303o de lea\u0303o")).load()


def test_passphrase_of_any_bytes_opens(tmp_path: Path) -> None:
    """A passphrase file that is not UTF-8 is taken as it is."""
    path, file = tmp_path / "vault.key", tmp_path / "passphrase"
    file.touch(0o600)
    file.write_bytes(bytes(range(128, 160)) + b"\n")
    by_file(path).ensure_key()

    by_file(path).load()


def test_person_is_asked_once_for_a_new_key(tmp_path: Path) -> None:
    """Making a key and using it is one question: for a new passphrase."""
    person = Person(PASSPHRASE)
    provider = by_hand(tmp_path / "vault.key", person)

    provider.ensure_key()
    provider.unwrap(provider.wrap(bytes(32), CONTEXT), CONTEXT)

    assert [("passphrase", True)] == person.questions


def test_person_is_asked_for_the_old_and_the_new_passphrase(path: Path) -> None:
    """A change of the passphrase asks for either once; then only the new one opens."""
    person = Person(PASSPHRASE, typed_new=OTHER)
    provider = by_hand(path, person)

    provider.prepare_next()
    provider.promote_next()

    assert [("passphrase", False), ("passphrase", True)] == person.questions
    by_hand(path, Person(OTHER)).load()
    with pytest.raises(KeyProviderLocked):
        by_hand(path, Person(PASSPHRASE)).load()


def test_passphrase_file_changes_with_the_key(path: Path, passphrase_file: Path) -> None:
    """The new passphrase is in a file beside the old one, whose place it takes at the end."""
    following = passphrase_file.with_name("passphrase.next")
    write_private(following, OTHER)
    provider = by_file(path)

    provider.prepare_next()
    by_next = provider.wrap(bytes(32), CONTEXT)
    by_file(path).load()
    provider.promote_next()

    assert OTHER == passphrase_file.read_text()
    assert 0o600 == stat.S_IMODE(passphrase_file.stat().st_mode)
    assert not following.exists()
    assert bytes(32) == by_file(path).unwrap(by_next, CONTEXT)


def test_change_that_was_killed_between_key_and_passphrase_is_finished(
    path: Path, passphrase_file: Path
) -> None:
    """With the new key in place and the old passphrase too, it opens, and ends when run again."""
    following = passphrase_file.with_name("passphrase.next")
    write_private(following, PASSPHRASE)
    write_private(passphrase_file, OTHER)

    by_file(path).load()
    by_file(path).promote_next()

    assert PASSPHRASE == passphrase_file.read_text()
    assert not following.exists()


def test_passphrase_for_a_later_change_is_left_alone(path: Path, passphrase_file: Path) -> None:
    """A new passphrase that the key does not know yet never takes the place of the old one."""
    following = passphrase_file.with_name("passphrase.next")
    provider = by_file(path)
    provider.prepare_next()
    write_private(following, OTHER)

    provider.promote_next()

    assert f"{PASSPHRASE}\n" == passphrase_file.read_text()
    assert OTHER == following.read_text()
    by_file(path).load()


def test_new_key_may_have_the_same_passphrase(path: Path, passphrase_file: Path) -> None:
    """Without a new passphrase the key alone is changed."""
    before = path.read_bytes()
    provider = by_file(path)

    provider.prepare_next()
    provider.promote_next()

    assert before != path.read_bytes()
    by_file(path).load()


def test_loose_key_file_is_refused(path: Path) -> None:
    """An encrypted key is kept as private as one in the clear."""
    path.chmod(0o644)

    with pytest.raises(SystemFault, match="can be read or changed by others"):
        by_hand(path, Person(PASSPHRASE)).load()


def test_passphrase_is_not_needed_after_the_load(path: Path, passphrase_file: Path) -> None:
    """The daemon drops its rights: neither file is read again."""
    provider = by_file(path)
    provider.load()
    path.unlink()
    passphrase_file.unlink()

    assert bytes(32) == provider.unwrap(provider.wrap(bytes(32), CONTEXT), CONTEXT)

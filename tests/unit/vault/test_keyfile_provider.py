"""The keyfile provider: the contract of every key provider, and the care for its file."""

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.errors import KeyProviderUnavailable, SystemFault, VaultTampered
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider


class TestKeyfileProvider(KeyProviderContract):
    """The contract."""

    @pytest.fixture
    def provider(self, keyfile: KeyfileProvider) -> KeyProvider:
        return keyfile

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> KeyProvider:
        return KeyfileProvider(tmp_path / "etc" / "vault.key")

    @pytest.fixture
    def other_provider(self, tmp_path: Path) -> KeyProvider:
        return KeyfileProvider.create(tmp_path / "other.key")


@pytest.fixture
def path(tmp_path: Path, keyfile: KeyfileProvider) -> Path:
    """The file of `keyfile`, which has not been read yet."""
    return tmp_path / "etc" / "vault.key"


def test_created_key_is_one_private_line(path: Path) -> None:
    """The file is ``sesguard-key/1``, 32 random bytes in base64, and 0600."""
    header, _, encoded = path.read_text().partition(" ")

    assert "sesguard-key/1" == header
    assert 32 == len(base64.b64decode(encoded.removesuffix("\n"), validate=True))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path.name] == [each.name for each in path.parent.iterdir()]


def test_keys_are_random(tmp_path: Path) -> None:
    """No two keys are equal."""
    for number in range(3):
        KeyfileProvider.create(tmp_path / str(number))

    assert 3 == len({(tmp_path / str(number)).read_bytes() for number in range(3)})


def test_key_is_never_overwritten(path: Path) -> None:
    """Making a key where there is one, even as a dangling link, is refused."""
    before = path.read_bytes()

    with pytest.raises(SystemFault, match="exists already"):
        KeyfileProvider.create(path)
    (path.parent / "link").symlink_to(path.parent / "nowhere")
    with pytest.raises(SystemFault, match="exists already"):
        KeyfileProvider.create(path.parent / "link")

    assert before == path.read_bytes()


def test_missing_key_is_made_once(tmp_path: Path) -> None:
    """`ensure_key` makes the key file and its directory, and then keeps them."""
    provider = KeyfileProvider(tmp_path / "new" / "vault.key")

    assert provider.ensure_key()
    content = (tmp_path / "new" / "vault.key").read_bytes()
    assert not provider.ensure_key()
    assert not KeyfileProvider(tmp_path / "new" / "vault.key").ensure_key()
    assert content == (tmp_path / "new" / "vault.key").read_bytes()


def test_missing_key_is_named(tmp_path: Path) -> None:
    """Without a key file the error says where it should be and what to do."""
    with pytest.raises(KeyProviderUnavailable) as caught:
        KeyfileProvider(tmp_path / "none").load()

    assert f"there is no vault key {tmp_path}/none" == str(caught.value)
    assert "backup" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_loose_mode_is_refused_with_the_command(path: Path, mode: int) -> None:
    """A key that others may read or change is refused; the hint has the chmod to run."""
    path.chmod(mode)

    with pytest.raises(SystemFault) as caught:
        KeyfileProvider(path).load()

    assert f"{path} can be read or changed by others (mode {mode:04o})" == str(caught.value)
    assert f"run: chmod 600 {path}" == caught.value.hint


def test_symbolic_link_to_the_key_is_refused(path: Path) -> None:
    """A link is refused even when it points to a good key."""
    link = path.with_name("link")
    link.symlink_to(path)

    with pytest.raises(SystemFault, match="is a symbolic link"):
        KeyfileProvider(link).load()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_foreign_owner_is_refused(path: Path) -> None:
    """A key that another user owns could be exchanged by it."""
    os.chown(path, 65534, 65534)

    with pytest.raises(SystemFault) as caught:
        KeyfileProvider(path).load()

    assert f"{path} belongs to uid 65534" == str(caught.value)
    assert f"run: chown root: {path}" == caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda line: b"",
        lambda line: line[:-1],
        lambda line: line + b"\n",
        lambda line: line.replace(b"/1", b"/2"),
        lambda line: line.removeprefix(b"sesguard-key/1 "),
        lambda line: line.replace(b" ", b"  "),
        lambda line: line[:-5] + b"\n",
        lambda line: line[:-2] + b"\n",
        lambda line: line[:-3] + b"==\n",
        lambda line: b"sesguard-key/1 " + base64.b64encode(bytes(31)) + b"\n",
        lambda line: b"sesguard-key/1 " + base64.b64encode(bytes(33)) + b"\n",
        lambda line: b"sesguard-key/1 \xff\n",
        lambda line: b"\0" * 4000,
    ],
)
def test_other_content_is_not_taken_for_a_key(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Only exactly what `create` writes is a key, and the error does not show the content."""
    path.write_bytes(change(path.read_bytes()))

    with pytest.raises(KeyProviderUnavailable) as caught:
        KeyfileProvider(path).wrap(bytes(32), CONTEXT)

    assert f"{path} holds no vault key" == str(caught.value)
    assert caught.value.__cause__ is None


def test_large_file_is_not_read(path: Path) -> None:
    """A file of any size costs nothing."""
    path.write_bytes(bytes(20_000))

    with pytest.raises(SystemFault, match="larger than"):
        KeyfileProvider(path).load()


def test_key_is_read_once(path: Path) -> None:
    """After `load` the file is not needed: the daemon drops its rights."""
    provider = KeyfileProvider(path)
    provider.load()
    path.unlink()

    wrapped = provider.wrap(bytes(32), CONTEXT)

    assert bytes(32) == provider.unwrap(wrapped, CONTEXT)


def test_provider_of_the_same_file_unwraps(path: Path, keyfile: KeyfileProvider) -> None:
    """The key is in the file, not in the process."""
    wrapped = keyfile.wrap(bytes(32), CONTEXT)

    assert bytes(32) == KeyfileProvider(path).unwrap(wrapped, CONTEXT)


def test_unknown_format_is_refused(keyfile: KeyfileProvider) -> None:
    """A format that this release does not know is not guessed at."""
    wrapped = keyfile.wrap(bytes(32), CONTEXT)

    with pytest.raises(VaultTampered, match="does not have the form"):
        keyfile.unwrap(b"\x02" + wrapped[1:], CONTEXT)

"""The systemd provider with the real systemd-creds and its host key; what a service is passed."""

import base64
import os
import stat
import subprocess
from pathlib import Path

import pytest

from rigs.host import public_directory
from rigs.swtpm import needs_systemd_creds
from sesguard.config.schema import Settings, SystemdSettings, VaultSettings
from sesguard.errors import (
    KeyProviderDenied,
    KeyProviderUnavailable,
    SystemFault,
)
from sesguard.system.files import find_program
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.opening import make_provider
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.providers.systemd import SystemdProvider

pytestmark = [pytest.mark.real, needs_systemd_creds]

DATA_KEY = bytes(range(32))


def by_host(path: Path) -> SystemdProvider:
    """A provider with the host key."""
    return SystemdProvider(path, with_key="host")


def made(provider: SystemdProvider) -> SystemdProvider:
    """The provider, with a new key."""
    provider.ensure_key()
    return provider


def decrypted(path: Path) -> bytes:
    """What systemd passes to a service for LoadCredentialEncrypted=sesguard-vault-key:PATH."""
    command = ["systemd-creds", "decrypt", "--name=sesguard-vault-key", str(path), "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a key that the host key opens, not read yet."""
    path = tmp_path / "credstore" / "sesguard-vault-key"
    made(by_host(path))
    return path


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credentials directory of this process, empty."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


class TestSystemdHostProvider(KeyProviderContract):
    """The contract, with the host key."""

    @pytest.fixture
    def provider(self, path: Path) -> KeyProvider:
        return by_host(path)

    @pytest.fixture
    def fresh(self, path: Path) -> KeyProvider:
        return by_host(path)

    @pytest.fixture
    def other_provider(self, tmp_path: Path) -> KeyProvider:
        return made(by_host(tmp_path / "other"))


def test_file_is_an_encrypted_key_file(tmp_path: Path, path: Path) -> None:
    """It is 0600, and decrypted it is what the provider keyfile takes."""
    wrapped = by_host(path).wrap(DATA_KEY, CONTEXT)
    keyfile = tmp_path / "keyfile"
    keyfile.touch(0o600)
    keyfile.write_bytes(decrypted(path))

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert b"sesguard-key/1 " not in base64.b64decode(path.read_bytes())
    assert DATA_KEY == KeyfileProvider(keyfile).unwrap(wrapped, CONTEXT)


def test_settings_make_the_provider(tmp_path: Path) -> None:
    """What the settings say is handed on to systemd-creds."""
    own = SystemdSettings(path=tmp_path / "key", with_key="tpm2", tpm2_device="/dev/no-such-tpm")
    provider = make_provider(
        Settings(vault=VaultSettings(key_provider="systemd", systemd=own)),
    )

    with pytest.raises(KeyProviderUnavailable) as caught:
        provider.ensure_key()

    assert caught.value.parameters["path"] == str(tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_promoted_key_has_the_name_that_systemd_asks_for(path: Path) -> None:
    """After a change the file is still what LoadCredentialEncrypted= takes."""
    provider = by_host(path)
    before = decrypted(path)
    provider.prepare_next()
    provider.promote_next()

    after = decrypted(path)

    assert before != after
    assert after.startswith(b"sesguard-key/1 ")
    assert [path.name] == os.listdir(path.parent)


def test_service_takes_the_key_that_it_is_passed(path: Path, credentials: Path) -> None:
    """With a credentials directory the file is not looked at: it may not even be there."""
    provider = KeyfileProvider.create(credentials / "sesguard-vault-key")
    wrapped = provider.wrap(DATA_KEY, CONTEXT)
    path.unlink()

    service = by_host(path)

    assert not service.ensure_key()
    assert DATA_KEY == service.unwrap(wrapped, CONTEXT)


def test_credential_of_systemd_need_not_be_private(path: Path, credentials: Path) -> None:
    """Who may read it there is systemd's affair: newer ones use an access list, seen as 0440."""
    credential = credentials / "sesguard-vault-key"
    credential.write_bytes(decrypted(path))
    credential.chmod(0o440)

    by_host(path).load()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"sesguard-key/1 AAAA\n", bytes(32)])
def test_service_without_the_key_fails(
    path: Path, credentials: Path, content: bytes | None
) -> None:
    """An empty credentials directory, or a credential that is no key, is a hard error."""
    (credentials / "another").write_text("PIN")
    if content is not None:
        (credentials / "sesguard-vault-key").write_bytes(content)

    for act in (by_host(path).load, by_host(path).ensure_key):
        with pytest.raises(KeyProviderUnavailable) as caught:
            act()

        assert "systemd did not pass the vault key to this service" == str(caught.value)
        assert f"LoadCredentialEncrypted=sesguard-vault-key:{path} " in str(caught.value.hint)
        assert f"{credentials} is empty, run: mount --make-rshared /" in str(caught.value.hint)


def test_credentials_directory_that_is_gone_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the directory is not there at all."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nonexistent")

    with pytest.raises(KeyProviderUnavailable, match="did not pass"):
        by_host(path).load()


def test_service_opens_what_the_next_key_wrapped(
    path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started in the middle of a change, the daemon opens what either key wrapped."""
    (credentials / "sesguard-vault-key").write_bytes(decrypted(path))
    command = by_host(path)
    by_old = command.wrap(DATA_KEY, CONTEXT)
    with monkeypatch.context() as shell:
        shell.delenv("CREDENTIALS_DIRECTORY")
        command.prepare_next()
    by_next = command.wrap(DATA_KEY, CONTEXT)

    service = by_host(path)

    assert [DATA_KEY] * 2 == [service.unwrap(each, CONTEXT) for each in (by_old, by_next)]


def test_service_does_not_change_the_key(
    path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on with the key that it was passed: refused before anything is written."""
    (credentials / "sesguard-vault-key").write_bytes(decrypted(path))
    service = by_host(path)

    with pytest.raises(SystemFault, match="cannot be changed by a service"):
        service.prepare_next()
    assert [path.name] == os.listdir(path.parent)
    with monkeypatch.context() as shell:
        shell.delenv("CREDENTIALS_DIRECTORY")
        by_host(path).prepare_next()
    with pytest.raises(SystemFault, match="cannot be changed by a service"):
        service.promote_next()

    assert {path.name, f"{path.name}.next"} == set(os.listdir(path.parent))


@pytest.mark.parametrize("content", [b"", b"sesguard-key/1 AAAA\n", b"\0" * 4000, b"A" * 4000])
def test_other_content_does_not_open(path: Path, content: bytes) -> None:
    """What systemd-creds did not make is refused, with its reason and without the content."""
    path.write_bytes(content)

    with pytest.raises(KeyProviderUnavailable) as caught:
        by_host(path).load()

    assert f"systemd-creds does not encrypt or open {path}: " in str(caught.value)
    assert caught.value.parameters["reason"]
    assert "backup" in str(caught.value.hint)


def test_changed_file_does_not_open(path: Path) -> None:
    """A change in every eighth of the file is found."""
    content = base64.b64decode(path.read_bytes())

    for part in range(8):
        changed = bytearray(content)
        changed[part * len(content) // 8] ^= 1
        path.write_bytes(base64.b64encode(changed))
        with pytest.raises(KeyProviderUnavailable):
            by_host(path).load()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("another-name", b"sesguard-key/1 " + base64.b64encode(bytes(32)) + b"\n", "another-name"),
        ("sesguard-vault-key", b"a PIN, say", "holds no vault key"),
        ("sesguard-vault-key", b"", "holds no vault key"),
    ],
)
def test_credential_of_another_kind_is_refused(
    path: Path, name: str, content: bytes, error: str
) -> None:
    """Only a key file that was encrypted for this name is a vault key."""
    command = ["systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", "-"]
    path.write_bytes(subprocess.run(command, input=content, check=True, capture_output=True).stdout)

    with pytest.raises(KeyProviderUnavailable, match=error):
        by_host(path).load()


def test_loose_file_is_refused(path: Path) -> None:
    """Whoever could change the file could lock the vault."""
    path.chmod(0o622)

    with pytest.raises(SystemFault, match="can be read or changed by others"):
        by_host(path).load()


def test_missing_program_is_said(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without systemd-creds gets a hint, not a traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if find_program("systemd-creds") is not None:
        pytest.skip("left out: systemd-creds is in an sbin directory here")

    with pytest.raises(KeyProviderUnavailable) as caught:
        by_host(path).load()

    assert "systemd-creds is not installed" == str(caught.value)
    assert "another key provider" in str(caught.value.hint)


def test_user_who_is_not_root_is_refused() -> None:
    """systemd-creds reads the host key as root only; nothing is written."""
    with public_directory() as directory:
        os.chown(directory, 65534, 65534)
        os.seteuid(65534)
        try:
            with pytest.raises(KeyProviderDenied) as caught:
                by_host(directory / "key").ensure_key()
        finally:
            os.seteuid(0)

        assert "Permission denied" in str(caught.value)
        assert "run the command as root" == caught.value.hint
        assert [] == os.listdir(directory)


def test_key_is_read_once(path: Path) -> None:
    """After `load` neither the file nor systemd-creds is needed."""
    provider = by_host(path)
    provider.load()
    path.unlink()

    assert DATA_KEY == provider.unwrap(provider.wrap(DATA_KEY, CONTEXT), CONTEXT)

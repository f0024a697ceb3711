"""From the settings to the vault."""

import os
import stat
from pathlib import Path

import pytest

from sesguard.config.schema import DaemonSettings, KeyfileSettings, Settings, VaultSettings
from sesguard.errors import KeyProviderUnavailable, SystemFault, VaultError
from sesguard.vault.opening import init_vault, make_provider, open_vault


@pytest.fixture
def configuration(tmp_path: Path) -> Settings:
    return _configuration(tmp_path, user="no-such-user-here")


def _configuration(directory: Path, *, user: str) -> Settings:
    return Settings(
        vault=VaultSettings(
            directory=directory / "lib" / "vault",
            keyfile=KeyfileSettings(path=directory / "etc" / "vault.key"),
        ),
        daemon=DaemonSettings(user=user),
    )


def test_settings_name_the_key_provider(configuration: Settings) -> None:
    """The provider is the one of the settings, and nothing is read before it is used."""
    provider = make_provider(configuration)

    assert "keyfile" == provider.name
    with pytest.raises(KeyProviderUnavailable):
        provider.load()


def test_initialised_vault_opens_by_the_settings(configuration: Settings) -> None:
    """After `init_vault` a vault opened from the same settings reads."""
    made = init_vault(configuration)

    opened = open_vault(configuration)

    assert made.read() == opened.read()
    assert configuration.vault.directory == opened.directory
    assert 0o700 == stat.S_IMODE(opened.directory.stat().st_mode)


def test_initialising_keeps_a_key_that_is_there(configuration: Settings) -> None:
    """A key that was put in place first, or is left of an old vault, is used."""
    path = configuration.vault.keyfile.path
    make_provider(configuration).ensure_key()
    key = path.read_bytes()

    init_vault(configuration)

    assert key == path.read_bytes()


def test_initialising_twice_is_refused(configuration: Settings) -> None:
    """A second vault is not made, and a lost key is not replaced by a useless new one."""
    init_vault(configuration)
    configuration.vault.keyfile.path.unlink()

    with pytest.raises(VaultError, match="already"):
        init_vault(configuration)

    assert not configuration.vault.keyfile.path.exists()


def test_initialising_with_a_loose_key_makes_no_vault(configuration: Settings) -> None:
    """The care for the key comes first."""
    make_provider(configuration).ensure_key()
    configuration.vault.keyfile.path.chmod(0o644)

    with pytest.raises(SystemFault, match="can be read or changed by others"):
        init_vault(configuration)

    assert not open_vault(configuration).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to a group")
def test_daemon_group_may_read(tmp_path: Path) -> None:
    """Root makes the files readable for the group of the daemon's user."""
    vault = init_vault(_configuration(tmp_path, user="daemon"))

    for path, mode in ((vault.directory, 0o750), (vault.directory / "vault", 0o640)):
        status = path.stat()
        assert (mode, "daemon") == (stat.S_IMODE(status.st_mode), path.group())
    assert 0o600 == stat.S_IMODE((vault.directory / "lock").stat().st_mode)

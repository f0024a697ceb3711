"""The systemd provider with the real systemd-creds and a TPM in software."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.swtpm import SoftwareTpm, needs_swtpm, needs_systemd_creds, software_tpm
from sesguard.errors import KeyProviderLocked, KeyProviderUnavailable
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.systemd import SystemdProvider

pytestmark = [pytest.mark.real, needs_systemd_creds, needs_swtpm]

DATA_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """A TPM for all tests that leave it as it is."""
    with software_tpm(tmp_path_factory.mktemp("tpm")) as tpm:
        yield tpm


@pytest.fixture
def own_tpm(tmp_path: Path) -> Iterator[SoftwareTpm]:
    """A TPM for one test."""
    directory = tmp_path / "tpm"
    directory.mkdir()
    with software_tpm(directory) as tpm:
        yield tpm


def by_tpm(path: Path, tpm: SoftwareTpm, with_key: str = "tpm2") -> SystemdProvider:
    """A provider with a TPM."""
    return SystemdProvider(path, with_key=with_key, tpm2_device=tpm.device)


def made(provider: SystemdProvider) -> SystemdProvider:
    """The provider, with a new key."""
    provider.ensure_key()
    return provider


class TestSystemdTpmProvider(KeyProviderContract):
    """The contract, with a TPM."""

    @pytest.fixture
    def provider(self, tmp_path: Path, tpm: SoftwareTpm) -> KeyProvider:
        return made(by_tpm(tmp_path / "key", tpm))

    @pytest.fixture
    def fresh(self, tmp_path: Path, tpm: SoftwareTpm) -> KeyProvider:
        return by_tpm(tmp_path / "key", tpm)

    @pytest.fixture
    def other_provider(self, tmp_path: Path, tpm: SoftwareTpm) -> KeyProvider:
        return made(by_tpm(tmp_path / "other", tpm))


@pytest.mark.parametrize("with_key", ["tpm2", "host+tpm2"])
def test_changed_firmware_locks_the_key(
    tmp_path: Path, own_tpm: SoftwareTpm, with_key: str
) -> None:
    """After another measurement into PCR 7 the TPM refuses; the hint says what to do."""
    path = tmp_path / "key"
    provider = made(by_tpm(path, own_tpm, with_key))
    by_tpm(path, own_tpm, with_key).load()
    own_tpm.extend(7)

    with pytest.raises(KeyProviderLocked) as caught:
        by_tpm(path, own_tpm, with_key).load()

    assert f"the TPM does not open {path}: firmware or Secure Boot is not as it was" == str(
        caught.value
    )
    assert "as they were" in str(caught.value.hint)
    assert "backup" in str(caught.value.hint)
    # The daemon that has loaded it goes on.
    assert DATA_KEY == provider.unwrap(provider.wrap(DATA_KEY, CONTEXT), CONTEXT)


def test_other_pcrs_do_not_matter(tmp_path: Path, own_tpm: SoftwareTpm) -> None:
    """Only the PCRs of the settings bind the key."""
    made(by_tpm(tmp_path / "key", own_tpm))
    own_tpm.extend(8)

    by_tpm(tmp_path / "key", own_tpm).load()


def test_several_pcrs_bind(tmp_path: Path, own_tpm: SoftwareTpm) -> None:
    """Each of several PCRs counts."""
    own_tpm.extend(4)
    path = tmp_path / "key"
    made(SystemdProvider(path, with_key="tpm2", tpm2_device=own_tpm.device, tpm2_pcrs=(4, 7)))
    own_tpm.extend(4)

    with pytest.raises(KeyProviderLocked):
        by_tpm(path, own_tpm).load()


def test_empty_pcrs_are_refused(tmp_path: Path, tpm: SoftwareTpm) -> None:
    """Where the firmware measures nothing, a key would only seem to be bound to it."""
    path = tmp_path / "key"
    provider = SystemdProvider(path, with_key="tpm2", tpm2_device=tpm.device, tpm2_pcrs=(9, 10))

    with pytest.raises(KeyProviderUnavailable) as caught:
        provider.ensure_key()

    assert "leaves the PCRs 9+10 of the TPM empty" in str(caught.value)
    assert "vault.systemd.tpm2_pcrs" in str(caught.value.hint)
    assert not path.exists()


def test_key_that_would_not_open_is_not_stored(tmp_path: Path, tpm: SoftwareTpm) -> None:
    """systemd 252 seals to no PCR at all, and then cannot open it: nothing is written."""
    path = tmp_path / "key"
    provider = SystemdProvider(path, with_key="tpm2", tpm2_device=tpm.device, tpm2_pcrs=())

    try:
        provider.ensure_key()
    except KeyProviderUnavailable:
        assert not path.exists()
    else:
        by_tpm(path, tpm).load()


def test_tpm_that_is_gone_is_unavailable(tmp_path: Path, own_tpm: SoftwareTpm) -> None:
    """A TPM that does not answer is no reason to make another key."""
    path = tmp_path / "key"
    provider = made(by_tpm(path, own_tpm))
    content = path.read_bytes()
    own_tpm.take_away()

    for act in (by_tpm(path, own_tpm).load, by_tpm(path, own_tpm).ensure_key):
        with pytest.raises(KeyProviderUnavailable) as caught:
            act()
        assert "see that the TPM answers" in str(caught.value.hint)
    with pytest.raises(KeyProviderUnavailable):
        by_tpm(tmp_path / "new", own_tpm).ensure_key()

    assert content == path.read_bytes()
    assert not (tmp_path / "new").exists()
    assert DATA_KEY == provider.unwrap(provider.wrap(DATA_KEY, CONTEXT), CONTEXT)


def test_another_machine_does_not_open_the_key(
    tmp_path: Path, tpm: SoftwareTpm, own_tpm: SoftwareTpm
) -> None:
    """A stolen disk is worth nothing beside another TPM."""
    path = tmp_path / "key"
    made(by_tpm(path, tpm))

    with pytest.raises(KeyProviderUnavailable, match="does not encrypt or open"):
        by_tpm(path, own_tpm).load()


def test_description_follows_what_the_key_was_made_with(tmp_path: Path, tpm: SoftwareTpm) -> None:
    """It claims a TPM's protection only for a key that needs the TPM."""
    by = {
        with_key: by_tpm(tmp_path / with_key, tpm, with_key)
        for with_key in ("host", "tpm2", "host+tpm2")
    }
    before = [provider.describe() for provider in by.values()]
    after = [made(provider).describe() for provider in by.values()]
    (tmp_path / "tpm2").write_bytes(b"A")
    (tmp_path / "host").unlink()
    (tmp_path / "host").mkdir()

    host, tpm2, _ = before
    assert before == after
    assert [host, tpm2, tpm2] == before
    assert any("whole disk" in each for each in host.does_not_protect)
    assert any("cleared or broken TPM" in each for each in tpm2.does_not_protect)
    assert host == SystemdProvider(tmp_path / "tpm2", with_key="auto").describe()
    assert host == by["host"].describe()

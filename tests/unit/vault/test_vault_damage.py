"""G9: changed, cut, exchanged, old or wrongly keyed data is refused; the last good one opens."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.core.credential import Credential
from sesguard.errors import (
    KeyProviderUnavailable,
    VaultError,
    VaultRolledBack,
    VaultTampered,
    WrongKey,
)
from sesguard.vault.format import MARK_HEADER, VAULT_HEADER, Mark, sign_document
from sesguard.vault.generation import VaultContents, open_manifest
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]

REFUSED = (VaultTampered, WrongKey)


def _flips(data: bytes, every: int) -> list[bytes]:
    """`data` with one bit changed: one of each byte, and all of every `every`-th byte."""
    changed = []
    for index in range(len(data)):
        for bit in range(8) if index % every == 0 else [index % 8]:
            copy = bytearray(data)
            copy[index] ^= 1 << bit
            changed.append(bytes(copy))
    return changed


def test_vault_with_any_flipped_bit_is_refused(filled: Vault, known: list[VaultContents]) -> None:
    """A flip at every byte is refused, and the previous generation opens."""
    _, previous = known
    path = filled.directory / "vault"

    for changed in _flips(path.read_bytes(), every=40):
        path.write_bytes(changed)
        with pytest.raises(REFUSED):
            filled.read()
        assert previous == filled.read_last_good()


def test_vault_cut_at_any_length_is_refused(filled: Vault, known: list[VaultContents]) -> None:
    """A truncation at every length is refused, and the previous generation opens."""
    _, previous = known
    path = filled.directory / "vault"
    data = path.read_bytes()

    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(VaultTampered):
            filled.read()
        assert previous == filled.read_last_good()


def test_mark_with_any_flipped_bit_is_reported(filled: Vault, known: list[VaultContents]) -> None:
    """A flip at every byte of the mark is refused, and the current generation opens."""
    current, _ = known
    path = filled.directory / "mark"

    for changed in _flips(path.read_bytes(), every=1):
        path.write_bytes(changed)
        with pytest.raises(VaultTampered):
            filled.read()
        assert current == filled.read_last_good()


def test_mark_cut_at_any_length_is_reported(filled: Vault, known: list[VaultContents]) -> None:
    """A truncation of the mark at every length is refused, and the current generation opens."""
    current, _ = known
    path = filled.directory / "mark"
    data = path.read_bytes()

    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(VaultTampered):
            filled.read()
        assert current == filled.read_last_good()


def test_damage_of_the_previous_generation_does_no_harm(filled: Vault, rotate: Change) -> None:
    """The current one opens and can be changed, which also heals the previous one."""
    path = filled.directory / "vault.previous"

    for changed in _flips(path.read_bytes(), every=1000)[::5]:
        path.write_bytes(changed)
        assert 4 == filled.read().generation
        assert not all(check.ok for check in filled.verify())
    filled.update("ses", rotate)

    assert all(check.ok for check in filled.verify())


def test_trailing_bytes_are_refused(filled: Vault) -> None:
    """Nothing may follow the third line."""
    path = filled.directory / "vault"
    data = path.read_bytes()

    for tail in (b"\n", b"\0", b" ", data):
        path.write_bytes(data + tail)
        with pytest.raises(VaultTampered):
            filled.read()


def test_no_error_of_a_damaged_vault_shows_a_secret(filled: Vault) -> None:
    """Message, hint and chain of every refusal are free of names and passwords."""
    path = filled.directory / "vault"

    for changed in _flips(path.read_bytes(), every=100_000)[::7]:
        path.write_bytes(changed)
        with pytest.raises(VaultError) as caught:
            filled.read()
        chain = f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}{caught.value.args}"
        assert "AKIA" not in chain
        assert "BMPP" not in chain


def test_old_vault_put_back_is_refused(filled: Vault, rotate: Change) -> None:
    """Every older generation is refused by the mark; the newest that is left opens."""
    path = filled.directory / "vault"
    old = {4: path.read_bytes()}
    for generation in (5, 6, 7):
        filled.update("ses", rotate)
        old[generation] = path.read_bytes()

    for generation in (4, 5, 6):
        path.write_bytes(old[generation])
        with pytest.raises(VaultRolledBack) as caught:
            filled.read()
        assert f"{path} is generation {generation}, older than the 7 that was in use already" == (
            str(caught.value)
        )
        assert 6 == filled.read_last_good().generation
    with pytest.raises(VaultRolledBack):
        filled.update("ses", rotate)


def test_old_vault_as_current_and_previous_is_refused(filled: Vault, rotate: Change) -> None:
    """What is too old does not open as the last good generation either."""
    old = (filled.directory / "vault").read_bytes()
    for _ in range(3):
        filled.update("ses", rotate)
    (filled.directory / "vault").write_bytes(old)
    (filled.directory / "vault.previous").write_bytes(old)

    for act in (filled.read, filled.read_last_good, filled.restore_previous):
        with pytest.raises(VaultRolledBack):
            act()
    assert [False, True] == sorted({check.ok for check in filled.verify()})


def test_old_vault_without_a_mark_is_refused(filled: Vault, rotate: Change) -> None:
    """Removing the mark does not let an old generation through, even in both places."""
    old = (filled.directory / "vault").read_bytes()
    for _ in range(3):
        filled.update("ses", rotate)
    (filled.directory / "mark").unlink()

    (filled.directory / "vault").write_bytes(old)
    for act in (filled.read, filled.read_last_good):
        with pytest.raises(VaultTampered, match="mark is gone"):
            act()
    (filled.directory / "vault.previous").write_bytes(old)
    for act in (filled.read, filled.read_last_good):
        with pytest.raises(VaultTampered, match="mark is gone"):
            act()


def test_old_mark_put_back_is_refused(filled: Vault, rotate: Change) -> None:
    """A mark that is more than one behind was not left by a crash."""
    mark = filled.directory / "mark"
    old = mark.read_bytes()
    filled.update("ses", rotate)
    mark.write_bytes(old)

    assert 5 == filled.read().generation, "one behind is what a crash leaves"

    filled.update("ses", rotate)
    mark.write_bytes(old)

    with pytest.raises(VaultTampered, match="is of generation 4: too old for a vault of gen"):
        filled.read()
    assert 6 == filled.read_last_good().generation


def test_mark_that_is_one_behind_is_caught_up_with(filled: Vault, rotate: Change) -> None:
    """After a crash between commit and mark the next change brings the mark up to date."""
    mark = filled.directory / "mark"
    old = mark.read_bytes()
    filled.update("ses", rotate)
    mark.write_bytes(old)

    filled.update("ses", rotate)

    assert b'"generation":6,' in mark.read_bytes()
    assert 6 == filled.read().generation


def test_vault_file_of_another_vault_is_refused(
    filled: Vault, known: list[VaultContents], sibling: Vault
) -> None:
    """A vault that is whole but not this one is told by the mark."""
    _, previous = known
    (filled.directory / "vault").write_bytes((sibling.directory / "vault").read_bytes())

    with pytest.raises(VaultTampered):
        filled.read()
    assert previous == filled.read_last_good()


def test_mark_of_another_vault_is_refused(
    filled: Vault, known: list[VaultContents], sibling: Vault
) -> None:
    """A mark counts for its own vault only."""
    current, _ = known
    (filled.directory / "mark").write_bytes((sibling.directory / "mark").read_bytes())

    with pytest.raises(VaultTampered):
        filled.read()
    assert current == filled.read_last_good()


def test_newer_vault_file_of_another_vault_is_passed_over(
    filled: Vault, known: list[VaultContents], sibling: Vault, rotate: Change
) -> None:
    """The last good generation is one of this vault, however new the foreign one is."""
    _, previous = known
    sibling.update("ses", rotate)
    (filled.directory / "vault").write_bytes((sibling.directory / "vault").read_bytes())

    assert previous == filled.read_last_good()


def test_mark_of_another_vault_signed_with_this_key_is_refused(filled: Vault) -> None:
    """The vault id in the mark is checked, not only its signature."""
    path = filled.directory / "vault"
    _, key = open_manifest(path.read_bytes(), path, filled.provider)
    foreign = sign_document(MARK_HEADER, Mark(4, "0" * 32), key)
    (filled.directory / "mark").write_bytes(foreign)

    with pytest.raises(VaultTampered, match="belongs to another vault"):
        filled.read()


def test_mark_does_not_pass_for_a_vault(filled: Vault) -> None:
    """The header is signed: no document passes for one of the other kind."""
    path = filled.directory / "vault"
    path.write_bytes((filled.directory / "mark").read_bytes().replace(MARK_HEADER, VAULT_HEADER))

    with pytest.raises(VaultTampered):
        filled.read()


def test_wrong_key_is_told_from_tampering(tmp_path: Path, filled: Vault) -> None:
    """With another key file nothing opens, and the error says that it is the key."""
    other = KeyfileProvider.create(tmp_path / "other.key")
    vault = Vault(filled.directory, other)

    for act in (vault.read, vault.read_last_good, vault.restore_previous):
        with pytest.raises(WrongKey) as caught:
            act()
        assert f"the data key was not wrapped by the key in {tmp_path}/other.key" == (
            str(caught.value)
        )
    assert 4 == filled.read().generation


def test_key_that_is_gone_is_not_damage(tmp_path: Path, filled: Vault) -> None:
    """A key provider without a key is reported as such, whatever is asked for."""
    vault = Vault(filled.directory, KeyfileProvider(tmp_path / "none.key"))

    for act in (vault.read, vault.read_last_good, vault.restore_previous):
        with pytest.raises(KeyProviderUnavailable):
            act()


def test_key_that_goes_while_looking_for_the_last_good_is_not_damage(
    tmp_path: Path, filled: Vault
) -> None:
    """The form is checked first; then the missing key is what is reported."""
    (filled.directory / "vault").write_bytes(b"")
    vault = Vault(filled.directory, KeyfileProvider(tmp_path / "none.key"))

    with pytest.raises(KeyProviderUnavailable):
        vault.read_last_good()


def test_other_key_provider_is_named(filled: Vault) -> None:
    """A vault of another key provider says which one it needs."""

    class Other(KeyfileProvider):
        name = "other"

    with pytest.raises(WrongKey) as caught:
        Vault(filled.directory, Other(Path("/none"))).read()

    assert "says that its key provider is 'keyfile'; the settings say 'other'" in str(caught.value)

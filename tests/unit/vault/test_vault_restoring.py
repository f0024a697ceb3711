"""G9: the last good version, putting it back, and the check of every record."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.core.credential import Credential
from sesguard.errors import (
    Error,
    KeyProviderError,
    SystemFault,
    VaultError,
    VaultMissing,
    VaultRolledBack,
    VaultTampered,
)
from sesguard.vault.generation import VaultContents
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]


def test_removed_vault_file_is_tampering(filled: Vault, known: list[VaultContents]) -> None:
    """A vault file that is gone beside its previous generation was removed by somebody."""
    _, previous = known
    (filled.directory / "vault").unlink()

    with pytest.raises(VaultTampered, match="/vault is gone"):
        filled.read()
    assert previous == filled.read_last_good()


def test_removed_vault_and_previous_is_a_missing_vault(filled: Vault) -> None:
    """With both generations gone there is no vault."""
    (filled.directory / "vault").unlink()
    (filled.directory / "vault.previous").unlink()

    with pytest.raises(VaultMissing):
        filled.read_last_good()


@pytest.mark.parametrize("name", ["vault", "mark"])
def test_symbolic_link_is_not_followed(filled: Vault, name: str) -> None:
    """A link in the place of a file is refused; the last good version opens."""
    path = filled.directory / name
    path.rename(filled.directory / "elsewhere")
    path.symlink_to(filled.directory / "elsewhere")

    with pytest.raises(SystemFault):
        filled.read()
    assert filled.read_last_good().generation in {3, 4}
    assert not filled.verify()[-1].ok

    assert 5 == filled.restore_previous().generation
    assert not path.is_symlink()
    assert 5 == filled.read().generation


def test_directory_in_the_place_of_the_vault_is_refused(filled: Vault) -> None:
    """Whatever lies there instead of a file, the last good version opens."""
    (filled.directory / "vault").unlink()
    (filled.directory / "vault").mkdir()

    with pytest.raises(SystemFault):
        filled.read()
    assert 3 == filled.read_last_good().generation


def _break_vault(vault: Vault) -> None:
    (vault.directory / "vault").write_bytes(b"\0" * 10)


def _break_mark(vault: Vault) -> None:
    (vault.directory / "mark").write_bytes(b"\0" * 10)


def _break_both(vault: Vault) -> None:
    _break_vault(vault)
    _break_mark(vault)


def _put_back_previous(vault: Vault) -> None:
    previous = (vault.directory / "vault.previous").read_bytes()
    (vault.directory / "vault").write_bytes(previous)


def _remove_vault(vault: Vault) -> None:
    (vault.directory / "vault").unlink()


def _remove_mark(vault: Vault) -> None:
    (vault.directory / "mark").unlink()


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (_break_vault, 3),
        (_break_mark, 4),
        (_break_both, 3),
        (_put_back_previous, 3),
        (_remove_vault, 3),
        (_remove_mark, 4),
    ],
)
def test_restored_vault_is_in_order_again(
    filled: Vault,
    known: list[VaultContents],
    rotate: Change,
    damage: Callable[[Vault], None],
    kept: int,
) -> None:
    """The newest whole generation becomes a new one that reads, changes and has a predecessor."""
    generations = {contents.generation: contents for contents in known}
    damage(filled)

    restored = filled.restore_previous()

    assert generations[kept].credentials == restored.credentials
    assert restored.generation > kept
    assert restored == filled.read()
    assert all(check.ok for check in filled.verify())
    (filled.directory / "vault").write_bytes(b"")
    assert restored.credentials == filled.read_last_good().credentials
    filled.restore_previous()
    filled.update("ses", rotate)
    assert filled.read().generation > restored.generation


def test_restoring_needs_damage(filled: Vault) -> None:
    """A vault in order is not put back: that would undo a change by mistake."""
    with pytest.raises(VaultError, match="in order: there is nothing to restore"):
        filled.restore_previous()

    assert 4 == filled.read().generation


def test_restoring_needs_a_whole_generation(filled: Vault) -> None:
    """With both generations damaged there is nothing to restore from, and nothing is written."""
    for name in ("vault", "vault.previous"):
        (filled.directory / name).write_bytes(b"damaged")

    with pytest.raises(VaultTampered):
        filled.restore_previous()
    assert b"damaged" == (filled.directory / "vault").read_bytes()


def test_refused_generation_does_not_come_back_by_restoring(filled: Vault) -> None:
    """After a restoration the generation that was damaged is told as old."""
    path = filled.directory / "vault"
    undamaged = path.read_bytes()
    _break_vault(filled)
    filled.restore_previous()
    path.write_bytes(undamaged)

    with pytest.raises(VaultRolledBack):
        filled.read()


def test_verify_names_every_record(filled: Vault) -> None:
    """A check of each file, each record in it, and the vault as a whole."""
    checks = filled.verify()

    assert [
        ("vault", 4, None, None),
        ("vault", 4, "other", 1),
        ("vault", 4, "ses", 1),
        ("vault", 4, "ses", 2),
        ("vault.previous", 3, None, None),
        ("vault.previous", 3, "other", 1),
        ("vault.previous", 3, "ses", 1),
        ("vault", 4, None, None),
    ] == [(c.path.name, c.generation, c.credential_id, c.version) for c in checks]
    assert filled.directory == checks[-1].path
    assert all(check.ok for check in checks)


def test_verify_shows_no_secret(filled: Vault) -> None:
    """The checks are safe to print."""
    shown = repr(filled.verify())

    assert "AKIA" not in shown
    assert "BMPP" not in shown


def test_verify_goes_on_after_damage(filled: Vault) -> None:
    """A damaged file does not hide the state of the other one."""
    _break_vault(filled)

    checks = filled.verify()

    assert [False, True, True, True, False] == [check.ok for check in checks]
    assert isinstance(checks[0].error, VaultTampered)
    assert isinstance(checks[-1].error, VaultTampered)


def test_verify_tells_an_old_previous_generation(filled: Vault, rotate: Change) -> None:
    """A previous generation that could not stand in is reported."""
    old = (filled.directory / "vault.previous").read_bytes()
    filled.update("ses", rotate)
    (filled.directory / "vault.previous").write_bytes(old)

    bad = [check for check in filled.verify() if not check.ok]

    assert ["vault.previous"] == [check.path.name for check in bad]
    assert isinstance(bad[0].error, VaultRolledBack)


def test_verify_of_nothing_says_so(tmp_path: Path, keyfile: KeyfileProvider) -> None:
    """Without a vault there is one check, and it is negative."""
    (check,) = Vault(tmp_path / "none", keyfile).verify()

    assert isinstance(check.error, VaultMissing)


def test_every_refusal_has_a_hint_or_names_the_file(filled: Vault) -> None:
    """An admin who meets a refusal is told what to do or where to look."""
    errors: list[Error] = []
    for damage in (_break_vault, _break_mark, _remove_vault):
        damage(filled)
        errors += [check.error for check in filled.verify() if check.error is not None]

    assert errors
    for error in errors:
        assert isinstance(error, VaultError | SystemFault | KeyProviderError)
        assert error.hint
        assert str(filled.directory) in str(error)

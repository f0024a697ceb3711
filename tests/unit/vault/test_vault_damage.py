"""G9: changed, cut, exchanged, old or wrongly keyed data is refused; the last good one opens."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.credential import Credential
from sesguard.errors import (
    Error,
    KeyProviderError,
    KeyProviderUnavailable,
    SystemFault,
    VaultError,
    VaultMissing,
    VaultRolledBack,
    VaultTampered,
    WrongKey,
)
from sesguard.vault import cipher
from sesguard.vault.format import MARK_HEADER, VAULT_HEADER, Mark, parse_document, sign_document
from sesguard.vault.generation import VaultContents, open_manifest
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]

REFUSED = (VaultTampered, WrongKey)


def _good_contents(vault: Vault) -> list[VaultContents]:
    """The current and the previous contents of a vault that is in order."""
    current = vault.read()
    path = vault.directory / "vault"
    kept = path.read_bytes()
    path.write_bytes(b"")
    previous = vault.read_last_good()
    path.write_bytes(kept)
    assert (4, 3) == (current.generation, previous.generation)
    return [current, previous]


def _flips(data: bytes, every: int) -> list[bytes]:
    """`data` with one bit changed: one of each byte, and all of every `every`-th byte."""
    changed = []
    for index in range(len(data)):
        for bit in range(8) if index % every == 0 else [index % 8]:
            copy = bytearray(data)
            copy[index] ^= 1 << bit
            changed.append(bytes(copy))
    return changed


def test_vault_with_any_flipped_bit_is_refused(filled: Vault) -> None:
    """A flip at every byte is refused, and the previous generation opens."""
    _, previous = _good_contents(filled)
    path = filled.directory / "vault"

    for changed in _flips(path.read_bytes(), every=40):
        path.write_bytes(changed)
        with pytest.raises(REFUSED):
            filled.read()
        assert previous == filled.read_last_good()


def test_vault_cut_at_any_length_is_refused(filled: Vault) -> None:
    """A truncation at every length is refused, and the previous generation opens."""
    _, previous = _good_contents(filled)
    path = filled.directory / "vault"
    data = path.read_bytes()

    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(VaultTampered):
            filled.read()
        assert previous == filled.read_last_good()


def test_mark_with_any_flipped_bit_is_reported(filled: Vault) -> None:
    """A flip at every byte of the mark is refused, and the current generation opens."""
    current, _ = _good_contents(filled)
    path = filled.directory / "mark"

    for changed in _flips(path.read_bytes(), every=1):
        path.write_bytes(changed)
        with pytest.raises(VaultTampered):
            filled.read()
        assert current == filled.read_last_good()


def test_mark_cut_at_any_length_is_reported(filled: Vault) -> None:
    """A truncation of the mark at every length is refused, and the current generation opens."""
    current, _ = _good_contents(filled)
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


@pytest.fixture
def sibling(tmp_path: Path, filled: Vault, rotate: Change) -> Vault:
    """Another vault with the same key, as many generations and the same credential ids."""
    sibling = Vault(tmp_path / "sibling", filled.provider)
    sibling.create()
    sibling.update("ses", rotate)
    sibling.update("other", rotate)
    sibling.update("ses", rotate)
    return sibling


def test_vault_file_of_another_vault_is_refused(filled: Vault, sibling: Vault) -> None:
    """A vault that is whole but not this one is told by the mark."""
    _, previous = _good_contents(filled)
    (filled.directory / "vault").write_bytes((sibling.directory / "vault").read_bytes())

    with pytest.raises(VaultTampered):
        filled.read()
    assert previous == filled.read_last_good()


def test_mark_of_another_vault_is_refused(filled: Vault, sibling: Vault) -> None:
    """A mark counts for its own vault only."""
    current, _ = _good_contents(filled)
    (filled.directory / "mark").write_bytes((sibling.directory / "mark").read_bytes())

    with pytest.raises(VaultTampered):
        filled.read()
    assert current == filled.read_last_good()


def test_newer_vault_file_of_another_vault_is_passed_over(
    filled: Vault, sibling: Vault, rotate: Change
) -> None:
    """The last good generation is one of this vault, however new the foreign one is."""
    _, previous = _good_contents(filled)
    sibling.update("ses", rotate)
    (filled.directory / "vault").write_bytes((sibling.directory / "vault").read_bytes())

    assert previous == filled.read_last_good()


def test_mark_of_another_vault_signed_with_this_key_is_refused(filled: Vault) -> None:
    """The vault id in the mark is checked, not only its signature."""
    _, key = _manifest(filled)
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


def _manifest(vault: Vault) -> tuple[Any, bytes]:
    path = vault.directory / "vault"
    manifest, key = open_manifest(path.read_bytes(), path, vault.provider)
    return json.loads(msgspec.json.encode(manifest)), key


def _signed(body: bytes, key: bytes) -> bytes:
    covered = VAULT_HEADER + b"\n" + body + b"\n"
    return covered + base64.b64encode(cipher.authenticate(key, covered)) + b"\n"


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _swap_credentials(document: Any) -> None:
    first, second = document["credentials"]
    first["versions"], second["versions"] = second["versions"], first["versions"]


def _swap_versions(document: Any) -> None:
    first, second = document["credentials"][1]["versions"]
    for name in ("wrapped_key", "nonce", "ciphertext"):
        first[name], second[name] = second[name], first[name]


def _swap_ciphertexts(document: Any) -> None:
    first, second = document["credentials"][1]["versions"]
    first["ciphertext"], second["ciphertext"] = second["ciphertext"], first["ciphertext"]


def _renumber(document: Any) -> None:
    document["credentials"][1]["versions"][1]["version"] = 3
    document["credentials"][1]["next_number"] = 4
    document["credentials"][1]["labels"]["CURRENT"] = 3


def _short_nonce(document: Any) -> None:
    document["credentials"][1]["versions"][1]["nonce"] = "AAAA"


@pytest.mark.parametrize(
    "change", [_swap_credentials, _swap_versions, _swap_ciphertexts, _renumber, _short_nonce]
)
def test_exchanged_records_are_refused_even_when_signed(
    filled: Vault, change: Callable[[Any], None]
) -> None:
    """A record opens only as the version of the credential for which it was sealed."""
    document, key = _manifest(filled)
    change(document)
    (filled.directory / "vault").write_bytes(_signed(_compact(document), key))

    with pytest.raises(VaultTampered):
        filled.read()
    assert 3 == filled.read_last_good().generation
    bad = [check for check in filled.verify() if not check.ok]
    assert bad
    assert all(isinstance(check.error, VaultTampered) for check in bad)


def test_record_of_another_vault_is_refused_even_when_signed(filled: Vault, sibling: Vault) -> None:
    """A record opens only in the vault for which it was sealed."""
    document, key = _manifest(filled)
    foreign, _ = _manifest(sibling)
    document["credentials"] = foreign["credentials"]
    (filled.directory / "vault").write_bytes(_signed(_compact(document), key))

    with pytest.raises(VaultTampered):
        filled.read()


def test_record_that_holds_something_else_is_refused(filled: Vault) -> None:
    """What opens but is not a credential version is refused without being quoted."""
    document, key = _manifest(filled)
    record = document["credentials"][1]["versions"][1]
    context = {
        "purpose": "credential-version",
        "vault": document["vault_id"],
        "credential": "ses",
        "version": "2",
    }
    data_key = filled.provider.unwrap(base64.b64decode(record["wrapped_key"]), context)
    nonce, ciphertext = cipher.seal(
        data_key, b'{"username":"AKIASECRET', cipher.canonical_context(context)
    )
    record["nonce"] = base64.b64encode(nonce).decode()
    record["ciphertext"] = base64.b64encode(ciphertext).decode()
    (filled.directory / "vault").write_bytes(_signed(_compact(document), key))

    with pytest.raises(VaultTampered, match="version 2 of credential ses does not hold") as caught:
        filled.read()
    assert caught.value.__cause__ is None


def _edit_label(document: Any) -> None:
    document["credentials"][1]["labels"] = {"CURRENT": 1, "PREVIOUS": 2}


def _remove_version(document: Any) -> None:
    del document["credentials"][1]["versions"][0]
    del document["credentials"][1]["labels"]["PREVIOUS"]


def _remove_credential(document: Any) -> None:
    del document["credentials"][0]


def _raise_generation(document: Any) -> None:
    document["generation"] += 1


@pytest.mark.parametrize(
    "change", [_edit_label, _remove_version, _remove_credential, _raise_generation]
)
def test_edited_manifest_is_refused(filled: Vault, change: Callable[[Any], None]) -> None:
    """What is not secret is signed too: labels, versions, credentials, generation."""
    document, _ = _manifest(filled)
    change(document)
    path = filled.directory / "vault"
    header, _, signature, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join((header, _compact(document), signature, b"")))

    with pytest.raises(VaultTampered, match="signature does not fit"):
        filled.read()


def _duplicate_key(body: bytes) -> bytes:
    return body.replace(b'"generation":4', b'"generation":9,"generation":4')


def _duplicate_labels(body: bytes) -> bytes:
    return body.replace(b'"CURRENT":2', b'"CURRENT":1,"CURRENT":2')


def _space(body: bytes) -> bytes:
    return body.replace(b",", b", ", 1)


def _unknown_field(body: bytes) -> bytes:
    return body.replace(b'{"generation"', b'{"comment":"","generation"')


def _other_order(body: bytes) -> bytes:
    return _compact(json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs))))


def _escaped(body: bytes) -> bytes:
    return body.replace(b"keyfile", b"key\\u0066ile")


def _not_utf8(body: bytes) -> bytes:
    return body.replace(b"keyfile", b"keyfil\xe9")


def _float(body: bytes) -> bytes:
    return body.replace(b'"generation":4', b'"generation":4.0')


def _negative(body: bytes) -> bytes:
    return body.replace(b'"generation":4', b'"generation":-4')


def _loose_base64(body: bytes) -> bytes:
    start = body.index(b'"wrapped_key":"') + len(b'"wrapped_key":"')
    return body[:start] + b"\\n" + body[start:]


@pytest.mark.parametrize(
    "respell",
    [
        _duplicate_key,
        _duplicate_labels,
        _space,
        _unknown_field,
        _other_order,
        _escaped,
        _not_utf8,
        _float,
        _negative,
        _loose_base64,
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"[" * 100_000,
    ],
)
def test_other_spellings_are_refused_even_when_signed(
    filled: Vault, respell: Callable[[bytes], bytes]
) -> None:
    """There is one spelling of a manifest: the one that sesguard writes."""
    path = filled.directory / "vault"
    body = path.read_bytes().split(b"\n")[1]
    _, key = _manifest(filled)
    assert respell(body) != body
    path.write_bytes(_signed(respell(body), key))

    with pytest.raises(VaultTampered, match="does not have the form"):
        filled.read()


def test_other_spellings_of_the_signature_are_refused(filled: Vault) -> None:
    """The unused bits of the last base64 character are part of the spelling."""
    path = filled.directory / "vault"
    data = path.read_bytes()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(data[-3])
    same_bytes = data[:-3] + alphabet[last ^ 1 : (last ^ 1) + 1] + data[-2:]
    assert base64.b64decode(data.split(b"\n")[2]) == base64.b64decode(same_bytes.split(b"\n")[2])

    for changed in (
        same_bytes,
        data[:-1] + b"=\n",
        data[:-3] + b"\n",
        data.replace(b"\n", b"\r\n"),
    ):
        path.write_bytes(changed)
        with pytest.raises(VaultTampered):
            filled.read()


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: VAULT_HEADER + b))
def test_any_bytes_are_refused_as_a_vault(data: bytes) -> None:
    """Reading arbitrary bytes raises `VaultTampered` and nothing else."""
    with pytest.raises(VaultTampered):
        open_manifest(data, Path("/vault"), KeyfileProvider(Path("/none")))


@given(
    generation=st.integers(1, 2**63),
    vault_id=st.text(st.characters(exclude_categories=["Cs"])),
    key=st.binary(min_size=1),
)
def test_accepted_document_serialises_to_itself(generation: int, vault_id: str, key: bytes) -> None:
    """``serialise(parse(b)) == b`` and ``parse(serialise(x)) == x``."""
    mark = Mark(generation, vault_id)
    data = sign_document(MARK_HEADER, mark, key)

    parsed = parse_document(data, MARK_HEADER, Mark, Path("/mark")).verify(key)

    assert mark == parsed
    assert data == sign_document(MARK_HEADER, parsed, key)


def test_removed_vault_file_is_tampering(filled: Vault) -> None:
    """A vault file that is gone beside its previous generation was removed by somebody."""
    _, previous = _good_contents(filled)
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
    filled: Vault, rotate: Change, damage: Callable[[Vault], None], kept: int
) -> None:
    """The newest whole generation becomes a new one that reads, changes and has a predecessor."""
    known = {contents.generation: contents for contents in _good_contents(filled)}
    damage(filled)

    restored = filled.restore_previous()

    assert known[kept].credentials == restored.credentials
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

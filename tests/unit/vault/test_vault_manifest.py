"""G9: a manifest has one spelling and a record one place; even a good signature changes neither."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.errors import (
    VaultTampered,
)
from sesguard.vault import cipher
from sesguard.vault.format import MARK_HEADER, VAULT_HEADER, Mark, parse_document, sign_document
from sesguard.vault.generation import open_manifest
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault


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

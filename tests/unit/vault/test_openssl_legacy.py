"""Reading what PHP's openssl_encrypt and `openssl enc` wrote, by vectors from those programs."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.secret import Secret
from sesguard.errors import CredentialError
from sesguard.vault.cipher import aes_256_cbc_decrypt
from sesguard.vault.openssl_legacy import CredentialPart, candidates, decrypt_credential_part

VECTORS = Path(__file__).with_name("vectors")
USERNAME = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS"


@dataclass(frozen=True)
class Vector:
    """
    A file of the directory `vectors`: a header, an empty line, the encrypted file.

    ``expect`` is ``username``, ``password``, ``pair`` or ``refused``; ``variant`` the way that
    gives the ``plaintext`` (with escapes as in Python), or ``none``; ``encoding: hexadecimal``
    marks a file that was not text.
    """

    expect: str
    source: str
    variant: str
    key: Secret
    iv: bytes | None
    plaintext: str
    data: bytes


def _read_vector(path: Path) -> Vector:
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in head.decode().split("\n"))
    }
    return Vector(
        expect=fields["expect"],
        source=fields["source"],
        variant=fields["variant"],
        key=Secret(fields["key"]),
        iv=fields["iv"].encode() if "iv" in fields else None,
        plaintext=fields["plaintext"].encode().decode("unicode_escape"),
        data=bytes.fromhex(body.decode()) if "encoding" in fields else body,
    )


@pytest.fixture(params=sorted(path.name for path in VECTORS.iterdir()))
def vector(request: pytest.FixtureRequest) -> Vector:
    return _read_vector(VECTORS / request.param)


def _shown(part: CredentialPart) -> tuple[str | None, str | None]:
    return part.username, part.password.reveal() if part.password else None


def test_vector_is_decrypted(vector: Vector) -> None:
    """The plaintext of each vector is among the candidates, under the name of its variant."""
    found = {
        each.variant: each.plaintext.reveal()
        for each in candidates(vector.data, vector.key, vector.iv)
    }

    if vector.variant == "none":
        assert {} == found
    else:
        assert vector.plaintext == found[vector.variant]


def test_vector_is_taken_only_as_a_credential(vector: Vector) -> None:
    """What has the shape of an SES credential is given, everything else is refused."""
    if vector.expect == "refused":
        with pytest.raises(CredentialError, match="no SES user name or SMTP password"):
            decrypt_credential_part(vector.data, vector.key, vector.iv)
        return

    part = decrypt_credential_part(vector.data, vector.key, vector.iv)

    assert vector.variant == part.variant
    assert {
        "username": (USERNAME, None),
        "password": (None, PASSWORD),
        "pair": (USERNAME, PASSWORD),
    }[vector.expect] == _shown(part)


def test_vectors_cover_every_expectation() -> None:
    """The directory holds each kind of result, and says of each file where it came from."""
    vectors = [_read_vector(path) for path in VECTORS.iterdir()]

    assert {"username", "password", "pair", "refused"} == {each.expect for each in vectors}
    assert all(each.source for each in vectors)


def test_wrong_keys_never_give_a_credential() -> None:
    """Some wrong keys pass the padding; none of them passes the shape."""
    data = _read_vector(VECTORS / "php-no-iv-password").data
    padded = 0
    for number in range(3000):
        key = Secret(f"wrong-{number}")
        raw = key.reveal().encode().ljust(32, b"\0")
        padded += aes_256_cbc_decrypt(raw, bytes(16), os.urandom(48)) is not None
        with pytest.raises(CredentialError):
            decrypt_credential_part(data, key)

    assert 1 <= padded <= 60, "a padding of one byte fits once in 256 times"


def test_refusal_shows_neither_key_nor_plaintext() -> None:
    """The error is safe to print."""
    vector = _read_vector(VECTORS / "php-no-iv-not-a-credential")

    with pytest.raises(CredentialError) as caught:
        decrypt_credential_part(vector.data, vector.key)

    shown = f"{caught.value}{caught.value.hint}{caught.value.parameters}"
    assert vector.key.reveal() not in shown
    assert vector.plaintext not in shown
    assert {} == caught.value.parameters


def test_results_show_no_secret() -> None:
    """Candidate and part are safe to log."""
    vector = _read_vector(VECTORS / "php-pair")
    (candidate,) = candidates(vector.data, vector.key)

    shown = f"{candidate!r}{decrypt_credential_part(vector.data, vector.key)!r}"

    assert PASSWORD not in shown


@given(
    data=st.binary(max_size=300), key=st.text(max_size=40), iv=st.binary(max_size=40) | st.none()
)
def test_any_file_is_read_without_a_fault(data: bytes, key: str, iv: bytes | None) -> None:
    """Arbitrary input gives a `CredentialError` and nothing else."""
    with pytest.raises(CredentialError):
        decrypt_credential_part(data, Secret(key), iv)


@given(data=st.binary(max_size=100))
def test_any_salted_file_is_read_without_a_fault(data: bytes) -> None:
    """What begins like a file of `openssl enc` may be cut anywhere."""
    with pytest.raises(CredentialError):
        decrypt_credential_part(b"Salted__" + data, Secret("k"))

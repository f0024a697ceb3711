"""
Reads what scripts encrypted with PHP's ``openssl_encrypt`` or with ``openssl enc``, AES-256-CBC.

A well-known recipe keeps the SES user and password in such files. What they were encrypted with is
not in the file, so each way is tried:

    openssl_encrypt   key: the first 32 bytes, filled up with NUL; IV: the first 16 bytes, filled up
                      with NUL, all NUL when it was forgotten; base64 in one line
    openssl enc -K    key and IV in hexadecimal, filled up with zeros
    openssl enc -k    ``Salted__``, 8 bytes of salt; key and IV by EVP_BytesToKey with SHA-256
                      (OpenSSL 1.1 and later), with MD5 (before), or by PBKDF2 with ``-pbkdf2``

each raw or as base64, with lines that are not base64 left out (PHP prints its warnings into a file
that is made from its output), and with one ciphertext a line.

There is no authentication in these files. A wrong key passes the padding about once in 256 times,
so `decrypt_credential_part` takes nothing that does not have the shape of an SES credential.

Measured with PHP 8.2 and OpenSSL 3.0; the vectors are in tests/unit/vault/vectors.
"""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sesguard.core.secret import Secret
from sesguard.core.shapes import is_access_key_id, is_smtp_password
from sesguard.errors import CredentialError
from sesguard.vault import cipher

_SALT_HEADER: Final = b"Salted__"
_SALT_END: Final = 16
_PBKDF2_ROUNDS: Final = 10_000
_BASE64_LINE: Final = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_HEXADECIMAL: Final = re.compile(rb"[0-9A-Fa-f]+")
_SEPARATORS: Final = re.compile(r"[\s:]+")

_Decrypt = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plaintext that may be the right one."""

    variant: str
    """How it was decrypted, for people."""
    plaintext: Secret


@dataclass(frozen=True, slots=True)
class CredentialPart:
    """An SES user name, an SES SMTP password, or both."""

    variant: str
    """How it was decrypted, for people."""
    username: str | None
    password: Secret | None


def decrypt_credential_part(
    data: bytes, passphrase: Secret, iv: bytes | None = None
) -> CredentialPart:
    """
    Decrypt a file that holds a user name, a password, or both (``user:password`` or two lines).

    Args:
        data: The file.
        passphrase: The key as it stands in the script or command.
        iv: The IV as it stands there, text or hexadecimal; None when there is none.

    Raises:
        CredentialError: No way of decryption gives an SES credential.
    """
    for candidate in candidates(data, passphrase, iv):
        part = _credential_part(candidate)
        if part is not None:
            return part
    raise CredentialError(
        "under this key there is no SES user name or SMTP password in the encrypted file",
        hint="check the key, and give the IV if the script sets one",
    )


def candidates(data: bytes, passphrase: Secret, iv: bytes | None = None) -> Iterator[Candidate]:
    """
    Every plaintext that is text, the likeliest way first; see `decrypt_credential_part`.

    It may be meaningless: nothing authenticates it.
    """
    for ciphertexts in _ciphertexts(data):
        for variant, decrypt in _variants(ciphertexts, passphrase.reveal().encode(), iv or b""):
            plaintexts = [decrypt(ciphertext) for ciphertext in ciphertexts]
            text = _as_text(plaintexts)
            if text is not None:
                yield Candidate(variant, text)


def _credential_part(candidate: Candidate) -> CredentialPart | None:
    words = [word for word in _SEPARATORS.split(candidate.plaintext.reveal()) if word]
    usernames = [word for word in words if is_access_key_id(word)]
    passwords = [word for word in words if is_smtp_password(word)]
    one_of_each = len(usernames) <= 1 and len(passwords) <= 1
    if not words or not one_of_each or len(usernames) + len(passwords) != len(words):
        return None
    return CredentialPart(
        candidate.variant,
        usernames[0] if usernames else None,
        Secret(passwords[0]) if passwords else None,
    )


def _ciphertexts(data: bytes) -> Iterator[list[bytes]]:
    """The ways to read a file: one ciphertext, or one in each line."""
    stripped = (line.strip() for line in data.splitlines())
    lines = [line for line in stripped if _BASE64_LINE.fullmatch(line)]
    yield from _decoded([b"".join(lines)])
    if len(lines) > 1:
        yield from _decoded(lines)
    if data and len(data) % cipher.CBC_BLOCK_BYTES == 0:
        yield [data]


def _decoded(texts: list[bytes]) -> Iterator[list[bytes]]:
    try:
        ciphertexts = [base64.b64decode(text, validate=True) for text in texts]
    except ValueError:
        return
    if all(each and len(each) % cipher.CBC_BLOCK_BYTES == 0 for each in ciphertexts):
        yield ciphertexts


def _variants(
    ciphertexts: list[bytes], passphrase: bytes, iv: bytes
) -> Iterator[tuple[str, _Decrypt]]:
    if all(ciphertext.startswith(_SALT_HEADER) for ciphertext in ciphertexts):
        yield (
            "openssl enc, SHA-256",
            _salted(lambda salt: cipher.evp_bytes_to_key("sha256", passphrase, salt)),
        )
        yield (
            "openssl enc, MD5",
            _salted(lambda salt: cipher.evp_bytes_to_key("md5", passphrase, salt)),
        )
        yield (
            "openssl enc -pbkdf2",
            _salted(lambda salt: cipher.pbkdf2_to_key(passphrase, salt, _PBKDF2_ROUNDS)),
        )
        return
    for key_form, key in _forms(passphrase, cipher.KEY_BYTES):
        for iv_form, vector in _forms(iv, cipher.CBC_BLOCK_BYTES):
            variant = f"AES-256-CBC, key as {key_form}, IV as {iv_form if iv else 'none'}"
            yield variant, _unsalted(key, vector)


def _forms(value: bytes, length: int) -> Iterator[tuple[str, bytes]]:
    """A key or IV as PHP takes it, and as ``openssl enc`` takes it."""
    yield "text", value[:length].ljust(length, b"\0")
    if _HEXADECIMAL.fullmatch(value):
        digits = value[: 2 * length].ljust(2 * length, b"0")
        yield "hexadecimal", bytes.fromhex(digits.decode())


def _salted(derive: Callable[[bytes], tuple[bytes, bytes]]) -> _Decrypt:
    def decrypt(data: bytes) -> bytes | None:
        key, vector = derive(data[len(_SALT_HEADER) : _SALT_END])
        return cipher.aes_256_cbc_decrypt(key, vector, data[_SALT_END:])

    return decrypt


def _unsalted(key: bytes, vector: bytes) -> _Decrypt:
    return lambda data: cipher.aes_256_cbc_decrypt(key, vector, data)


def _as_text(plaintexts: list[bytes | None]) -> Secret | None:
    parts = [plaintext for plaintext in plaintexts if plaintext is not None]
    if len(parts) != len(plaintexts):
        return None
    try:
        return Secret(b"\n".join(parts).decode())
    except UnicodeDecodeError:
        return None

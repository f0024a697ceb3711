"""
Every cryptographic primitive that sesguard uses, and the only import of `cryptography`.

AES-256-GCM (NIST SP 800-38D) for all that we encrypt ourselves: 32-byte keys, a random 12-byte
nonce, a 16-byte tag at the end of the ciphertext. A data key encrypts one message, so that nonces
cannot meet. HMAC-SHA256 (RFC 2104) for what is authenticated and not encrypted.

scrypt (RFC 7914) for a key from a passphrase. AES-256-CBC and EVP_BytesToKey are here to read what
others wrote; nothing is made with them.

Raises `VaultTampered` where a tag does not fit; the message says nothing of the data.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag  # noqa: TID251 - this is the one module
from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: TID251
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: TID251
from cryptography.hazmat.primitives.ciphers.algorithms import AES256  # noqa: TID251
from cryptography.hazmat.primitives.ciphers.modes import CBC  # noqa: TID251
from cryptography.hazmat.primitives.padding import PKCS7  # noqa: TID251

from sesguard.errors import SystemFault, VaultTampered

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MAC_BYTES: Final = 32
CBC_BLOCK_BYTES: Final = 16

_SCRYPT_BLOCK: Final = 8


def new_key() -> bytes:
    """A random 32-byte key from the kernel."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> tuple[bytes, bytes]:
    """
    Encrypt and authenticate `plaintext`, and authenticate `associated`.

    Returns:
        Nonce, and ciphertext with its tag.
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce, AESGCM(key).encrypt(nonce, plaintext, associated)


def unseal(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """
    Decrypt what `seal` made.

    Raises:
        VaultTampered: Another key, or any of the four differs from what was sealed.
    """
    try:
        # A nonce of a length that GCM does not take is a ValueError; ours have one length only.
        if len(nonce) == NONCE_BYTES:
            return AESGCM(key).decrypt(nonce, ciphertext, associated)
    except InvalidTag:
        pass
    raise VaultTampered("sealed data was changed, cut short or put in another place")


def authenticate(key: bytes, message: bytes) -> bytes:
    """The HMAC-SHA256 of `message`."""
    return hmac.digest(key, message, "sha256")


def is_authentic(key: bytes, message: bytes, mac: bytes) -> bool:
    """Whether `mac` is the HMAC-SHA256 of `message`; takes the same time for every wrong one."""
    return hmac.compare_digest(authenticate(key, message), mac)


def canonical_context(context: Mapping[str, str]) -> bytes:
    """
    An encryption context as bytes: compact ASCII JSON with sorted keys.

    Equal contexts give equal bytes, and different contexts different bytes.
    """
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode("ascii")


def scrypt_key(passphrase: bytes, salt: bytes, log2_n: int) -> bytes:
    """
    A 32-byte key from a passphrase: scrypt with r=8 and p=1.

    It takes 2 ** `log2_n` KiB of memory, and 0.4 s with 17 (doubled by each one more).

    Raises:
        SystemFault: There is not so much memory.
    """
    n = 1 << log2_n
    # OpenSSL counts three more blocks of 128 * r bytes: one for p, two to work in.
    memory = 128 * _SCRYPT_BLOCK * (n + 3)
    try:
        return hashlib.scrypt(
            passphrase, salt=salt, n=n, r=_SCRYPT_BLOCK, p=1, maxmem=memory, dklen=KEY_BYTES
        )
    except (ValueError, MemoryError) as error:
        raise SystemFault(
            "there is not enough memory to make a key from the passphrase",
            hint="let sesguard have {mebibytes} MiB more memory, for a second at its start",
            mebibytes=(memory >> 20) + 1,
        ) from error


def aes_256_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes | None:
    """
    Decrypt AES-256-CBC with PKCS#7 padding.

    Returns:
        The plaintext, or None when the padding is wrong. There is no authentication: about one
        wrong key in 256 gives a well-padded, meaningless plaintext.
    """
    decryptor = Cipher(AES256(key), CBC(iv)).decryptor()
    unpadder = PKCS7(CBC_BLOCK_BYTES * 8).unpadder()
    try:
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def evp_bytes_to_key(digest: str, passphrase: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """
    Key and IV as ``openssl enc`` derives them by default: EVP_BytesToKey with one round.

    Args:
        digest: ``sha256`` since OpenSSL 1.1, ``md5`` before.
        passphrase: What was given to ``-k`` or ``-pass``.
        salt: The 8 bytes after ``Salted__``.
    """
    derived = block = b""
    while len(derived) < KEY_BYTES + CBC_BLOCK_BYTES:
        block = hashlib.new(digest, block + passphrase + salt, usedforsecurity=False).digest()
        derived += block
    return derived[:KEY_BYTES], derived[KEY_BYTES : KEY_BYTES + CBC_BLOCK_BYTES]


def pbkdf2_to_key(passphrase: bytes, salt: bytes, rounds: int) -> tuple[bytes, bytes]:
    """Key and IV as ``openssl enc -pbkdf2`` derives them: PBKDF2-HMAC-SHA256."""
    derived = hashlib.pbkdf2_hmac(
        "sha256", passphrase, salt, rounds, dklen=KEY_BYTES + CBC_BLOCK_BYTES
    )
    return derived[:KEY_BYTES], derived[KEY_BYTES:]

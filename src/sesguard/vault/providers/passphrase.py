"""
The key provider ``passphrase``: the vault key lies in a file, encrypted under a passphrase.

The file is two lines of ASCII:

    sesguard-key-passphrase/1 ln=17,r=8,p=1 SALT
    SEALED

The first one, with its line end, says how the passphrase becomes a key: scrypt (RFC 7914) with N =
2 ** ln and 16 bytes of salt. SEALED is a 12-byte nonce and the AES-256-GCM of the vault key, with
the first line as associated data. SALT and SEALED are base64.

Each guess, and so each start of the daemon, takes 128 MiB of memory and 0.4 s of one core (measured
with OpenSSL 3.0). A file may ask for ``ln`` up to 19, which is 512 MiB and 2 s; one that asks for
anything else is no key. So a hostile file costs no more than that.

A passphrase is what a person types: it is normalised to NFC, as RFC 8265 has it, so that two
keyboards give the same bytes. A new one has at least 12 characters. It is not kept in memory; what
scrypt made of it is, so that it is asked for once.

To change the passphrase is to change the vault key: put the new one into the file with ``.next`` at
the end of its name, or have a terminal, and run ``sesguard credential rewrap --to passphrase``.

Known fault: a wrong passphrase and a changed file look the same, by the nature of it.
"""

import base64
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderLocked, VaultTampered
from sesguard.system.files import read_file
from sesguard.vault import cipher
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.stored import FileKeyProvider
from sesguard.vault.providers.unlocking import Unlocking

MIN_CHARACTERS: Final = 12
"""Least length of a new passphrase."""

_LOG2_N: Final = 17
_HEADER: Final = "sesguard-key-passphrase/1 ln={log2_n},r=8,p=1 {salt}\n"
_SALT_BYTES: Final = 16
_Parts = re.Match[bytes]
_FILE: Final = re.compile(
    rb"(?P<header>sesguard-key-passphrase/1 ln=(?P<log2_n>1[7-9]),r=8,p=1"
    rb" (?P<salt>[A-Za-z0-9+/]{22}==)\n)(?P<sealed>[A-Za-z0-9+/]{80})\n"
)

_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "whoever has the disk, or a snapshot or backup of it, has to guess a passphrase, slowly",
        "a web user or another local user gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "where the passphrase lies in a file on the same disk, whoever reads the disk has both",
        "a passphrase that others can guess, or that is used elsewhere, protects nothing",
        "root on this host can take the key from the memory of the daemon",
    ),
)


class PassphraseProvider(FileKeyProvider):
    """
    Wraps data keys with a key from a file that a passphrase opens; see the module docstring.

    Args:
        path: The file. It is read at the first use or by `load`.
        unlocking: Finds the passphrase.
    """

    name: ClassVar[str] = "passphrase"

    def __init__(self, path: Path, unlocking: Unlocking) -> None:
        super().__init__(path)
        self._unlocking: Final = unlocking
        self._derived: Final[dict[bytes, bytes]] = {}
        """First line of a file to the key that scrypt made for it."""

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def promote_next(self) -> None:
        """Make the next vault key, and the passphrase that opens it, the only ones."""
        super().promote_next()
        following = self._unlocking.find_next()
        parts = _FILE.fullmatch(read_file(Path(self.place)).content)
        # It may be for a change that has not begun.
        if following and parts and _unseal(_derive_for(parts, following), parts):
            self._unlocking.promote_next()

    def _protect(self, key: bytes) -> bytes:
        passphrase = self._unlocking.find(new=True)
        if len(_reveal_normalised(passphrase)) < MIN_CHARACTERS:
            raise KeyProviderLocked(
                "the passphrase is too short: it needs {minimum} characters or more",
                hint="take a longer one: five words that were drawn at random, say",
                minimum=MIN_CHARACTERS,
            )
        salt = os.urandom(_SALT_BYTES)
        header = _HEADER.format(log2_n=_LOG2_N, salt=base64.b64encode(salt).decode()).encode()
        derived = _derive(passphrase, salt, _LOG2_N)
        self._derived[header] = derived
        nonce, ciphertext = cipher.seal(derived, key, header)
        return header + base64.b64encode(nonce + ciphertext) + b"\n"

    def _open(self, content: bytes) -> bytes:
        parts = _FILE.fullmatch(content)
        if parts is None:
            return b""
        for derived in self._derive_all(parts):
            key = _unseal(derived, parts)
            if key is not None:
                self._derived[parts["header"]] = derived
                return key
        raise KeyProviderLocked(
            "the passphrase is wrong, or {path} was changed",
            hint="give the passphrase that the key was made with; if that is the one, put {path}"
            " back from its backup",
            path=self.place,
        )

    def _derive_all(self, parts: _Parts) -> Iterator[bytes]:
        known = self._derived.get(parts["header"])
        if known is not None:
            yield known
        else:
            yield from (_derive_for(parts, each) for each in self._unlocking.find_all())


def _reveal_normalised(passphrase: Secret) -> str:
    return unicodedata.normalize("NFC", passphrase.reveal())


def _derive(passphrase: Secret, salt: bytes, log2_n: int) -> bytes:
    encoded = _reveal_normalised(passphrase).encode("utf-8", "surrogateescape")
    return cipher.scrypt_key(encoded, salt, log2_n)


def _derive_for(parts: _Parts, passphrase: Secret) -> bytes:
    return _derive(passphrase, base64.b64decode(parts["salt"]), int(parts["log2_n"]))


def _unseal(derived: bytes, parts: _Parts) -> bytes | None:
    sealed = base64.b64decode(parts["sealed"])
    nonce, ciphertext = sealed[: cipher.NONCE_BYTES], sealed[cipher.NONCE_BYTES :]
    try:
        return cipher.unseal(derived, nonce, ciphertext, parts["header"])
    except VaultTampered:
        return None

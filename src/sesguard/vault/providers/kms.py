"""
The key provider ``kms``: the vault key lies in a file, encrypted by AWS KMS.

KMS makes the vault key (GenerateDataKey) and decrypts it at each start (Decrypt), with the AWS
credentials of the host: an instance role, say. Neither key leaves memory in the clear, and the KMS
key does not leave KMS. What goes away later stops nothing. The file is two lines,

    sesguard-kms/1 ARN ID
    the encrypted key in base64

ARN is that of the KMS key. ID is random and, with a purpose, the encryption context, so that a
ciphertext fits into no other file, and a policy of IAM can let a host decrypt its own key only:

    {"purpose": "sesguard-vault-key", "id": ID}

Decrypt is always asked for with the key of the settings, never with the one that the file names,
and the ARN in its answer has to be the one in the file; of a multi-Region key the replicas are the
same key. So an alias that is moved to another KMS key, or another key in the settings, is
`WrongKey`. To go to another KMS key, move the vault key to another provider, remove the file,
change the settings, and move it back. That KMS rotates the key's material changes nothing.

Calls are given up within 45 s where nobody answers (`sesguard.aws.session.START`).

Raises, beside what every provider does: `KeyProviderDenied` (no right, no credentials, a wrong
clock; a key that is disabled or about to be deleted), `KeyProviderUnavailable` (no answer, too many
calls, no such key), `WrongKey` and `VaultTampered` (another or a changed file).

Known fault: a KMS key that was deleted is gone, and so is the vault.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from sesguard.aws import kms
from sesguard.aws.session import AwsSession
from sesguard.errors import (
    AwsError,
    Error,
    KeyProviderDenied,
    KeyProviderUnavailable,
    VaultTampered,
    WrongKey,
)
from sesguard.vault.providers.aws_refusals import aws_refusals
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.stored import FileKeyProvider

_PURPOSE: Final = "sesguard-vault-key"
_ID_BYTES: Final = 16
_FILE: Final = re.compile(
    r"sesguard-kms/1 (?P<arn>arn:[!-~]+) (?P<id>[0-9a-f]{32})\n(?P<data>[A-Za-z0-9+/]+={0,2})\n"
)
_MULTI_REGION: Final = re.compile(r"(?P<before>arn:[^:]+:kms:)[^:]+(?P<after>:[^:]+:key/mrk-.+)")

_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "the disk, or a snapshot or backup of it, is worth nothing without a right to the KMS key",
        "AWS logs each use of the KMS key, and while that is disabled no new start opens the vault",
        "a web user or another local user gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "who has the file and a right to the KMS key, as AWS administrators have, has the key",
        "when the KMS key is deleted, the vault is lost",
        "root on this host can use the key",
    ),
)


class KmsProvider(FileKeyProvider):
    """
    Wraps data keys with a key that KMS decrypts; see the module docstring.

    Args:
        path: The file. It is read at the first use or by `load`.
        key_id: ARN, id or alias of a symmetric KMS key.
        connect: Makes the session, in the region of the KMS key. It is kept until `load` is done.
    """

    name: ClassVar[str] = "kms"

    def __init__(self, path: Path, key_id: str, connect: Callable[[], AwsSession]) -> None:
        super().__init__(path)
        self._key_id: Final = key_id
        self._connect: Final = connect
        self._session: AwsSession | None = None

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def _protect(self, key: bytes) -> bytes:  # noqa: ARG002 - KMS makes a key of its own
        key_id = os.urandom(_ID_BYTES).hex()
        with aws_refusals(self._key_id, self._better):
            made = self._kms().generate_data_key(_context(key_id))
        data = base64.b64encode(made.ciphertext).decode()
        return f"sesguard-kms/1 {made.key_arn} {key_id}\n{data}\n".encode()

    def _open(self, content: bytes) -> bytes:
        parts = _FILE.fullmatch(content.decode("latin-1"))
        ciphertext = _decode(parts["data"]) if parts else b""
        if parts is None or not ciphertext:
            return b""
        with aws_refusals(self._key_id, self._better):
            decrypted = self._kms().decrypt(ciphertext, _context(parts["id"]))
        if _same_everywhere(decrypted.key_arn) != _same_everywhere(parts["arn"]):
            raise self._wrong_key()
        return decrypted.key

    def _forget(self) -> None:
        self._session = None

    def _kms(self) -> kms.KmsKey:
        self._session = self._session or self._connect()
        return kms.KmsKey(self._session, self._key_id)

    def _wrong_key(self) -> WrongKey:
        return WrongKey(
            "{path} was made with another KMS key than {key}",
            hint="set vault.kms.key_id to the ARN in the first line of {path}; to change the KMS"
            " key, move the vault key to another key provider, remove {path}, and move it back",
            path=self.place,
            key=self._key_id,
        )

    def _better(self, error: AwsError) -> Error | None:
        """What KMS says of its key, or of the file."""
        match error.parameters["code"]:
            case kms.INCORRECT_KEY:
                return self._wrong_key()
            case kms.INVALID_CIPHERTEXT:
                return VaultTampered(
                    "{path} was changed: KMS does not decrypt it",
                    hint="put {path} back from its backup",
                    path=self.place,
                )
            case kms.DISABLED:
                return KeyProviderDenied(
                    "the KMS key {key} is disabled",
                    hint="enable it again: aws kms enable-key --key-id {key}",
                    key=self._key_id,
                )
            case kms.INVALID_STATE:
                return KeyProviderDenied(
                    "the KMS key {key} is out of use: {problem}",
                    hint="if it is about to be deleted, run: aws kms cancel-key-deletion --key-id"
                    " {key}, and then: aws kms enable-key --key-id {key}",
                    key=self._key_id,
                    problem=error,
                )
            case kms.NOT_FOUND | kms.INVALID_USAGE:
                return KeyProviderUnavailable(
                    "{key} is no symmetric KMS key: {problem}",
                    hint="correct vault.kms.key_id or vault.kms.region",
                    key=self._key_id,
                    problem=error,
                )
        return None


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except binascii.Error:
        return b""


def _context(key_id: str) -> Mapping[str, str]:
    return {"purpose": _PURPOSE, "id": key_id}


def _same_everywhere(arn: str) -> str:
    """The ARN, without the region where the key is the same in several."""
    return _MULTI_REGION.sub(r"\g<before>\g<after>", arn)

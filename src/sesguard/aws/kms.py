"""
One key in AWS KMS, which makes data keys and decrypts them.

Every call names the key, so that KMS never decrypts with another one that a ciphertext happens to
be of, and gives an encryption context, without which nothing decrypts. KMS chooses among the key
materials of a key by itself: rotating them changes nothing here.

Everything raises the classes of `sesguard.aws.errors`. The codes of KMS that say something of the
key are constants here; all but `NOT_FOUND` (an `AwsMissing`) are those of an `AwsPermanent`.

Source: the AWS KMS API reference, GenerateDataKey and Decrypt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sesguard.aws.errors import aws_errors
from sesguard.aws.session import AwsSession

NOT_FOUND: Final = "NotFoundException"
"""There is no such key."""
DISABLED: Final = "DisabledException"
"""Somebody disabled the key."""
INVALID_STATE: Final = "KMSInvalidStateException"
"""The key is about to be deleted, say."""
INVALID_USAGE: Final = "InvalidKeyUsageException"
"""The key is for signatures, or has two halves."""
INCORRECT_KEY: Final = "IncorrectKeyException"
"""The ciphertext is of another key."""
INVALID_CIPHERTEXT: Final = "InvalidCiphertextException"
"""The ciphertext or the encryption context is not what it was."""


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """A data key that KMS made."""

    ciphertext: bytes
    key_arn: str
    """The KMS key that it is encrypted under, also where the caller named an alias."""


@dataclass(frozen=True, slots=True)
class DecryptedKey:
    """A data key in the clear."""

    key: bytes = field(repr=False)
    key_arn: str
    """The KMS key that decrypted it."""


class KmsKey:
    """
    The calls.

    Args:
        session: Its region is the key's.
        key_id: ARN or id of a symmetric key, or its alias.
    """

    def __init__(self, session: AwsSession, key_id: str) -> None:
        self._session = session
        self.key_id: Final = key_id

    def generate_data_key(self, context: Mapping[str, str]) -> EncryptedKey:
        """Make a data key of 256 bits, bound to `context`; only its ciphertext is kept."""
        with aws_errors("kms:GenerateDataKey"):
            answer = self._session.kms.generate_data_key(
                KeyId=self.key_id, KeySpec="AES_256", EncryptionContext=context
            )
        return EncryptedKey(answer["CiphertextBlob"], answer["KeyId"])

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> DecryptedKey:
        """
        Decrypt a data key with this key and no other.

        Raises:
            AwsPermanent: It is of another key (`INCORRECT_KEY`), or was changed, or was bound to
                another context (`INVALID_CIPHERTEXT`).
        """
        with aws_errors("kms:Decrypt"):
            answer = self._session.kms.decrypt(
                KeyId=self.key_id, CiphertextBlob=ciphertext, EncryptionContext=context
            )
        return DecryptedKey(answer["Plaintext"], answer["KeyId"])

"""
Where moto's KMS and Secrets Manager are more lenient than those of AWS.

KMS: a key that is disabled or about to be deleted does nothing, one that is not symmetric makes no
data key, and Decrypt with the id of a key decrypts what that key made and nothing else. Secrets
Manager: a read without a stage gives the current version, also after the stage was moved.

Source: the AWS KMS API reference, GenerateDataKey and Decrypt.
"""

import base64
import binascii
from typing import Final

from sesguard.sandbox import backends
from sesguard.sandbox.backends import MotoKmsKey
from sesguard.sandbox.calls import Answer, ApiCall, error_answer

_DATA_KEY_CALLS: Final = frozenset({"GenerateDataKey", "GenerateDataKeyWithoutPlaintext"})
_CALLS: Final = _DATA_KEY_CALLS | {"Encrypt", "Decrypt"}


def key_store_answer(call: ApiCall) -> Answer | None:
    """Our answer to a call of KMS or Secrets Manager, or None when it is moto's to answer."""
    if call.service == "secretsmanager":
        backends.mend_current_versions(call.region)
    if call.service != "kms" or call.operation not in _CALLS:
        return None
    made_by = _made_by(call)
    key = named_kms_key(call) or made_by
    return _refusal(call, key, made_by) if key is not None else None


def named_kms_key(call: ApiCall) -> MotoKmsKey | None:
    """The key that a call of KMS names; None when it names none that there is."""
    key_id = call.parameters.get("KeyId")
    return backends.find_kms_key(call.region, key_id) if isinstance(key_id, str) else None


def _refusal(call: ApiCall, key: MotoKmsKey, made_by: MotoKmsKey | None) -> Answer | None:
    if key.state == "PendingDeletion":
        message = f"{key.arn} is pending deletion."
        return error_answer(call, 409, "KMSInvalidStateException", message)
    if key.state == "Disabled":
        return error_answer(call, 409, "DisabledException", f"{key.arn} is disabled.")
    if call.operation in _DATA_KEY_CALLS and not key.symmetric:
        message = f"{key.arn} key usage is not compatible with the operation."
        return error_answer(call, 400, "InvalidKeyUsageException", message)
    if call.operation != "Decrypt":
        return None
    if made_by is None:
        return error_answer(call, 400, "InvalidCiphertextException", "")
    if made_by.key_id != key.key_id:
        message = (
            "The key ID in the request does not identify a CMK that can perform this operation."
        )
        return error_answer(call, 400, "IncorrectKeyException", message)
    return None


def _made_by(call: ApiCall) -> MotoKmsKey | None:
    try:
        ciphertext = base64.b64decode(str(call.parameters.get("CiphertextBlob", "")))
    except binascii.Error:
        return None
    return backends.find_kms_key_of(call.region, ciphertext)

"""
Whether IAM lets a user call KMS or Secrets Manager.

The policies of the user (`sesguard.sandbox.policy`) are evaluated for the action on the ARN of the
key or secret that the call names. Where the call names none, or a secret that does not exist, only
a policy for ``*`` fits: so AWS answers AccessDenied to who may use one secret and asks for another.

Condition keys that have a value: ``aws:CurrentTime``, ``aws:SourceIp``, ``aws:SecureTransport``
(false: the sandbox speaks HTTP); ``kms:EncryptionContext:NAME``, ``kms:EncryptionContextKeys``,
``kms:RequestAlias``; ``secretsmanager:SecretId``, ``secretsmanager:Name``,
``secretsmanager:VersionStage``.

Left out: key policies of KMS (each is taken for the default one, which leaves it to IAM), grants,
resource policies of secrets, and the KMS key of a secret. No other service is limited.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from sesguard.sandbox import backends
from sesguard.sandbox.accounts import Principal
from sesguard.sandbox.calls import Answer, ApiCall
from sesguard.sandbox.key_stores import named_kms_key
from sesguard.sandbox.model import ACCOUNT_ID
from sesguard.sandbox.policy import evaluate
from sesguard.sandbox.refusals import denied

_SERVICES: Final = frozenset({"kms", "secretsmanager"})

_log = logging.getLogger(__name__)


def refuse_unless_allowed(call: ApiCall, principal: Principal) -> Answer | None:
    """The refusal, where the policies of the user do not allow the call."""
    if call.service not in _SERVICES:
        return None
    resource = _kms_resource(call) if call.service == "kms" else _secret_resource(call)
    context = {name.lower(): values for name, values in _context(call)}
    decision = evaluate(backends.list_policies(principal.user_name), call.action, resource, context)
    if decision.allowed:
        return None
    _log.info("%s: %s on %s: %s", principal.user_name, call.action, resource, decision.reason)
    return denied(call, principal.arn, resource)


def _kms_resource(call: ApiCall) -> str:
    key = named_kms_key(call)
    return str(call.parameters.get("KeyId", "*")) if key is None else key.arn


def _secret_resource(call: ApiCall) -> str:
    if call.operation == "CreateSecret":
        name = call.parameters.get("Name")
        return f"arn:aws:secretsmanager:{call.region}:{ACCOUNT_ID}:secret:{name}-XXXXXX"
    secret_id = str(call.parameters.get("SecretId", "*"))
    return backends.find_secret(call.region, secret_id) or secret_id


def _context(call: ApiCall) -> Iterator[tuple[str, list[str]]]:
    yield "aws:CurrentTime", [datetime.now(UTC).isoformat()]
    yield "aws:SourceIp", [call.source_address]
    yield "aws:SecureTransport", ["false"]
    given = call.parameters
    encryption_context = given.get("EncryptionContext")
    if isinstance(encryption_context, dict) and encryption_context:
        yield "kms:EncryptionContextKeys", list(encryption_context)
        for name, value in encryption_context.items():
            yield f"kms:EncryptionContext:{name}", [str(value)]
    if str(given.get("KeyId", "")).startswith("alias/"):
        yield "kms:RequestAlias", [str(given["KeyId"])]
    if "SecretId" in given:
        yield "secretsmanager:SecretId", [_secret_resource(call)]
    for name in ("Name", "VersionStage"):
        if name in given:
            yield f"secretsmanager:{name}", [str(given[name])]

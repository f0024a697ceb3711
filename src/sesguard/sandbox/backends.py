"""
What moto knows, as our own records: the only module that looks into moto's objects.

moto keeps everything in process-wide dictionaries that its HTTP handlers change from other threads,
so every function here copies what it iterates over. moto compares nothing and checks nothing: an
identity in it counts as verified as soon as it exists.

Known fault: one account (`ACCOUNT_ID`); keys and policies of an assumed role are not seen.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from moto.backends import get_backend
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.core.utils import utcnow
from moto.iam.models import AccessKeyLastUsed, IAMBackend, ManagedPolicy, iam_backends
from moto.ses.models import ConfigurationSet, SESBackend, ses_backends

from sesguard.core.secret import Secret
from sesguard.sandbox.model import ACCOUNT_ID

_KMS_KEY_ID_BYTES: Final = 36
"""moto's ciphertexts begin with the id of the key."""


@dataclass(frozen=True, slots=True)
class MotoKey:
    """An access key as IAM has it at this moment."""

    access_key_id: str
    secret_key: Secret
    active: bool
    user_name: str
    user_arn: str


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A policy that applies to a user."""

    name: str
    document: str
    """JSON text, as it was given to IAM."""


@dataclass(frozen=True, slots=True)
class MotoKmsKey:
    """A KMS key at this moment."""

    key_id: str
    """Without the ARN around it; replicas in several regions have the same."""
    arn: str
    state: str
    """``Enabled``, ``Disabled``, ``PendingDeletion``."""
    symmetric: bool


def list_access_keys() -> list[MotoKey]:
    """Every access key of every IAM user."""
    return [
        MotoKey(
            key.access_key_id,
            Secret(key.secret_access_key),
            key.status == "Active",
            user.name,
            user.arn,
        )
        for user in list(_iam().users.values())
        for key in list(user.access_keys)
    ]


def record_key_use(access_key_id: str, service: str, region: str) -> None:
    """Let IAM know that a key was used now; nothing when IAM has no such key (any more)."""
    key = _iam().access_keys.get(access_key_id)
    if key is not None:
        key.last_used = AccessKeyLastUsed(utcnow(), service, region)


def list_policies(user_name: str) -> list[PolicyDocument]:
    """The inline, attached and group policies of a user; none when the user is gone."""
    user = _iam().users.get(user_name)
    if user is None:
        return []
    groups = [group for group in list(_iam().groups.values()) if user in group.users]
    found = _policies(user.policies, user.managed_policies)
    for group in groups:
        found += _policies(group.policies, group.managed_policies)
    return found


def list_identities(region: str) -> frozenset[str]:
    """Every email address and domain that is an identity in `region`."""
    return frozenset(_ses(region).email_identities)


def default_configuration_set(region: str, identity: str) -> str | None:
    """The configuration set that mail from `identity` uses when it names none."""
    found = _ses(region).email_identities.get(identity)
    return found.configuration_set_name if found is not None else None


def set_default_configuration_set(region: str, identity: str, name: str | None) -> bool:
    """Choose that set, or none. False when there is no such identity."""
    found = _ses(region).email_identities.get(identity)
    if found is None:
        return False
    found.configuration_set_name = name
    return True


def configuration_set_sending(region: str, name: str) -> bool | None:
    """Whether a configuration set may send; None when there is no such set."""
    found = _configuration_set(region, name)
    return None if found is None else _may_send(found)


def describe_configuration_set(region: str, name: str) -> dict[str, Any] | None:
    """A configuration set as version 2 of the API shows it; None when there is no such set."""
    found = _configuration_set(region, name)
    if found is None:
        return None
    # moto shows what it stores for SendingEnabled, which need not be a boolean.
    return found.to_dict_v2() | {"SendingOptions": {"SendingEnabled": _may_send(found)}}


def set_configuration_set_sending(region: str, name: str, enabled: bool) -> bool:
    """Pause or resume a configuration set. False when there is no such set."""
    found = _configuration_set(region, name)
    if found is None:
        return False
    found.enabled = enabled  # type: ignore[assignment]
    return True


def find_kms_key(region: str, key_id: str) -> MotoKmsKey | None:
    """The KMS key of that id, ARN, alias or ARN of an alias; None when there is none."""
    backend = _backend("kms", region)
    alias = backend.get_alias_name(key_id)
    found = backend.get_key_id_from_alias(alias) if alias.startswith("alias/") else key_id
    key = backend.keys.get(backend.get_key_id(found)) if found else None
    if key is None:
        return None
    return MotoKmsKey(key.id, key.arn, key.key_state, key.key_spec == "SYMMETRIC_DEFAULT")


def find_kms_key_of(region: str, ciphertext: bytes) -> MotoKmsKey | None:
    """The KMS key that made a ciphertext; None when that is not known in `region`."""
    with suppress(UnicodeDecodeError):
        return find_kms_key(region, ciphertext[:_KMS_KEY_ID_BYTES].decode())
    return None


def find_secret(region: str, secret_id: str) -> str | None:
    """The ARN of the secret of that name or ARN; None when there is none."""
    secrets = _backend("secretsmanager", region).secrets
    return str(secrets[secret_id].arn) if secret_id in secrets else None


def mend_current_versions(region: str) -> None:
    """
    Tell moto which version of each secret is current.

    It does not notice when the stage is moved, and reads and demotes another one afterwards.
    """
    for secret in list(_backend("secretsmanager", region).secrets.values()):
        for version_id, version in list(secret.versions.items()):
            if "AWSCURRENT" in version["version_stages"]:
                secret.default_version_id = version_id


def reset() -> None:
    """Forget everything in every AWS service."""
    BackendDict.reset()
    reset_model_data()


def _backend(service: Any, region: str) -> Any:
    # Found when it is first needed: moto is slow to import.
    return get_backend(service)[ACCOUNT_ID][region]


def _iam() -> IAMBackend:
    return iam_backends[ACCOUNT_ID]["aws"]


def _ses(region: str) -> SESBackend:
    return ses_backends[ACCOUNT_ID][region]


def _configuration_set(region: str, name: str) -> ConfigurationSet | None:
    return _ses(region).config_sets.get(name)


def _may_send(configuration_set: ConfigurationSet) -> bool:
    # moto stores nothing (the default: may send), the SendingOptions of v2, or what we store.
    enabled: object = configuration_set.enabled
    return bool(enabled.get("SendingEnabled", True)) if isinstance(enabled, dict) else bool(enabled)


def _policies(inline: dict[str, str], attached: dict[str, ManagedPolicy]) -> list[PolicyDocument]:
    found = [PolicyDocument(name, text) for name, text in dict(inline).items()]
    found += [
        PolicyDocument(policy.name, version.document)
        for policy in list(attached.values())
        for version in policy.versions
        if version.version_id == policy.default_version_id
    ]
    return found

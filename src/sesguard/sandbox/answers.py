"""
SES calls that moto lacks or answers with fixed numbers.

Sending can be paused for the account in a region and for a configuration set, in both versions of
the API; the quota is that of the SMTP endpoint; a default configuration set can be given to an
identity. While the account is paused, sends by the API are refused as well. GetConfigurationSet is
moto's, with the state of sending put right.

Left out: the checks of names and lengths that AWS makes, and every other field of GetAccount.
"""

from collections.abc import Callable
from typing import Any, Final

from sesguard.sandbox import backends
from sesguard.sandbox.calls import Answer, ApiCall, Protocol, answer, error_answer
from sesguard.sandbox.state import SandboxState

Handler = Callable[[ApiCall, SandboxState], Answer]

_SEND_OPERATIONS: Final = frozenset(
    {"SendEmail", "SendRawEmail", "SendTemplatedEmail", "SendBulkTemplatedEmail", "SendBulkEmail"}
)


def ses_answer(call: ApiCall, state: SandboxState) -> Answer | None:
    """Our answer to an SES call, or None when it is moto's to answer."""
    if call.service not in {"ses", "sesv2"}:
        return None
    if call.operation in _SEND_OPERATIONS:
        return _refuse_while_paused(call, state)
    handler = _HANDLERS.get((call.service, call.operation))
    return handler(call, state) if handler is not None else None


def _refuse_while_paused(call: ApiCall, state: SandboxState) -> Answer | None:
    if state.sending_enabled(call.region):
        return None
    code = "AccountSendingPausedException" if call.service == "ses" else "SendingPausedException"
    return error_answer(call, 400, code, "Email sending is disabled for your account.")


def _get_account(call: ApiCall, state: SandboxState) -> Answer:
    enabled = state.sending_enabled(call.region)
    return answer(
        call,
        {
            "EnforcementStatus": "HEALTHY",
            "ProductionAccessEnabled": state.settings.production_access,
            "SendQuota": _quota(state),
            "SendingEnabled": enabled,
        },
    )


def _get_send_quota(call: ApiCall, state: SandboxState) -> Answer:
    return answer(call, _quota(state))


def _quota(state: SandboxState) -> dict[str, Any]:
    return {
        "Max24HourSend": state.settings.max_24_hour_send,
        "MaxSendRate": state.settings.max_send_rate,
        "SentLast24Hours": float(state.quota.sent_last_24_hours()),
    }


def _get_account_sending(call: ApiCall, state: SandboxState) -> Answer:
    return answer(call, {"Enabled": str(state.sending_enabled(call.region)).lower()})


def _put_account_sending(call: ApiCall, state: SandboxState) -> Answer:
    state.set_sending_enabled(call.region, _flag(call, "Enabled", "SendingEnabled"))
    return answer(call, {})


def _put_configuration_set_sending(call: ApiCall, _state: SandboxState) -> Answer:
    name = str(call.parameters.get("ConfigurationSetName"))
    enabled = _flag(call, "Enabled", "SendingEnabled")
    if backends.set_configuration_set_sending(call.region, name, enabled):
        return answer(call, {})
    return _no_configuration_set(call, name)


def _get_configuration_set(call: ApiCall, _state: SandboxState) -> Answer:
    name = str(call.parameters.get("ConfigurationSetName"))
    document = backends.describe_configuration_set(call.region, name)
    return _no_configuration_set(call, name) if document is None else answer(call, document)


def _put_identity_configuration_set(call: ApiCall, _state: SandboxState) -> Answer:
    name = call.parameters.get("ConfigurationSetName")
    if name is not None and backends.configuration_set_sending(call.region, str(name)) is None:
        return _no_configuration_set(call, str(name))
    identity = str(call.parameters.get("EmailIdentity"))
    if backends.set_default_configuration_set(call.region, identity, name):
        return answer(call, {})
    return error_answer(
        call, 404, "NotFoundException", f"Email identity {identity} does not exist."
    )


def _no_configuration_set(call: ApiCall, name: str) -> Answer:
    message = f"Configuration set <{name}> does not exist."
    if call.protocol is Protocol.QUERY:
        return error_answer(call, 400, "ConfigurationSetDoesNotExist", message)
    return error_answer(call, 404, "NotFoundException", message)


def _flag(call: ApiCall, query_name: str, json_name: str) -> bool:
    """A boolean, which AWS takes to be false where it is missing."""
    if call.protocol is Protocol.QUERY:
        return call.parameters.get(query_name) == "true"
    return call.parameters.get(json_name) is True


_HANDLERS: Final[dict[tuple[str, str], Handler]] = {
    ("ses", "GetAccountSendingEnabled"): _get_account_sending,
    ("ses", "GetSendQuota"): _get_send_quota,
    ("ses", "UpdateAccountSendingEnabled"): _put_account_sending,
    ("ses", "UpdateConfigurationSetSendingEnabled"): _put_configuration_set_sending,
    ("sesv2", "GetAccount"): _get_account,
    ("sesv2", "GetConfigurationSet"): _get_configuration_set,
    ("sesv2", "PutAccountSendingAttributes"): _put_account_sending,
    ("sesv2", "PutConfigurationSetSendingOptions"): _put_configuration_set_sending,
    ("sesv2", "PutEmailIdentityConfigurationSetAttributes"): _put_identity_configuration_set,
}

"""
How AWS refuses a call: status, code and text, which depend on the protocol of the service.

Sources: the pages "Common errors" of the references of IAM, SES, SES v2, Secrets Manager,
CloudTrail, EC2 and KMS.
"""

from typing import Final

from sesguard.sandbox.calls import Answer, ApiCall, Protocol, error_answer
from sesguard.sandbox.model import ApiFaultKind

_INVALID_KEY: Final = "The security token included in the request is invalid."
_RATE: Final = "Rate exceeded"
_UNKNOWN: Final = (
    "The request processing has failed because of an unknown error, exception or failure."
)


def invalid_key(call: ApiCall) -> Answer:
    """The access key does not exist, or is not active."""
    if call.service == "ec2":
        return error_answer(call, 401, "AuthFailure", _INVALID_KEY)
    if call.protocol is Protocol.QUERY:
        return error_answer(call, 403, "InvalidClientTokenId", _INVALID_KEY)
    return error_answer(call, 403, "UnrecognizedClientException", _INVALID_KEY)


def fault_answer(kind: ApiFaultKind, call: ApiCall) -> Answer | None:
    """What a fault on demand answers; None for one that answers nothing."""
    match kind:
        case ApiFaultKind.THROTTLED:
            return _throttled(call)
        case ApiFaultKind.INTERNAL:
            query = call.protocol is Protocol.QUERY
            return error_answer(
                call, 500, "ServiceFailure" if query else "InternalFailure", _UNKNOWN
            )
        case ApiFaultKind.DENIED:
            return _denied(
                call,
                f"The caller is not authorized to perform: {call.action} "
                f"because no identity-based policy allows the {call.action} action",
            )
        case ApiFaultKind.SKEWED:
            return _skewed(call)
        case ApiFaultKind.LOST | ApiFaultKind.UNREACHABLE:
            return None


def _throttled(call: ApiCall) -> Answer:
    match call.protocol:
        case Protocol.QUERY:
            return error_answer(call, 400, "Throttling", _RATE)
        case Protocol.JSON:
            return error_answer(call, 400, "ThrottlingException", _RATE)
        case Protocol.REST_JSON:
            return error_answer(call, 429, "TooManyRequestsException", _RATE)


def denied(call: ApiCall, user_arn: str, resource: str) -> Answer:
    """No policy of the user allows the call on that resource, or one denies it."""
    return _denied(
        call,
        f"User: {user_arn} is not authorized to perform: {call.action} on resource: {resource}"
        f" because no identity-based policy allows the {call.action} action",
    )


def _skewed(call: ApiCall) -> Answer:
    message = "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z"
    if call.service == "ec2":
        return error_answer(call, 400, "RequestExpired", "Request has expired.")
    if call.protocol is Protocol.QUERY:
        return error_answer(call, 403, "SignatureDoesNotMatch", message)
    status = 400 if call.protocol is Protocol.JSON else 403
    return error_answer(call, status, "InvalidSignatureException", message)


def _denied(call: ApiCall, message: str) -> Answer:
    if call.service == "ec2":
        return error_answer(call, 403, "UnauthorizedOperation", message)
    if call.protocol is Protocol.QUERY:
        return error_answer(call, 403, "AccessDenied", message)
    status = 400 if call.protocol is Protocol.JSON else 403
    return error_answer(call, status, "AccessDeniedException", message)

"""
What botocore raises, as our errors.

    AwsDenied      the caller may not, or its key is not valid (or there is none), or its clock is
                   wrong
    AwsThrottled   fewer calls, please
    AwsTransient   no connection, a time-out, a fault on the AWS side or an answer that cannot be
                   read: the call may have taken effect
    AwsMissing     there is no such thing (an AwsPermanent)
    AwsPermanent   everything else: the same call gets the same answer

The parameters of the error are `operation`, `code` (AWS's own, or botocore's class) and `reason`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's, and only here
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    WaiterError,
)
from botocore.parsers import ResponseParserError

from sesguard.errors import AwsDenied, AwsError, AwsPermanent, AwsThrottled, AwsTransient


class AwsMissing(AwsPermanent):
    """What the call names does not exist."""


_CLASS_OF_CODE: Final[dict[str, type[AwsError]]] = {
    "AccessDenied": AwsDenied,
    "AccessDeniedException": AwsDenied,
    "AuthFailure": AwsDenied,
    "ExpiredToken": AwsDenied,
    "ExpiredTokenException": AwsDenied,
    "InvalidClientTokenId": AwsDenied,
    "InvalidSignatureException": AwsDenied,
    "OptInRequired": AwsDenied,
    "RequestExpired": AwsDenied,
    "RequestTimeTooSkewed": AwsDenied,
    "SignatureDoesNotMatch": AwsDenied,
    "UnauthorizedOperation": AwsDenied,
    "UnrecognizedClientException": AwsDenied,
    "PriorRequestNotComplete": AwsThrottled,
    "RequestLimitExceeded": AwsThrottled,
    "SlowDown": AwsThrottled,
    "Throttling": AwsThrottled,
    "ThrottlingException": AwsThrottled,
    "TooManyRequestsException": AwsThrottled,
    "ConcurrentModification": AwsTransient,
    "EntityTemporarilyUnmodifiable": AwsTransient,
    "InternalFailure": AwsTransient,
    "RequestTimeout": AwsTransient,
    "ServiceFailure": AwsTransient,
    "ServiceUnavailable": AwsTransient,
    "NoSuchEntity": AwsMissing,
    "NotFoundException": AwsMissing,
    "ResourceNotFoundException": AwsMissing,
}
RIGHTS: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
"""Codes of the `AwsDenied` that a policy cures."""

_CLOCK: Final = re.compile(
    r"RequestExpired|RequestTimeTooSkewed|Signature (expired|not yet current)"
)
_NO_IDENTITY: Final = (NoCredentialsError, PartialCredentialsError)
_NO_ANSWER: Final = (ConnectionError, HTTPClientError, ResponseParserError, WaiterError)


@contextmanager
def aws_errors(operation: str) -> Iterator[None]:
    """
    Turn what botocore raises inside the block into our errors.

    Args:
        operation: Name of the call, such as ``iam:CreateAccessKey``, for the message.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(operation, error) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise _without_answer(operation, error) from error


def _from_answer(operation: str, error: ClientError) -> AwsError:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", "Unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    fallback = AwsTransient if status >= 500 else AwsPermanent
    kind = _CLASS_OF_CODE.get(code, fallback)
    message = str(answer.get("Message", ""))
    if _CLOCK.search(f"{code} {message}"):
        hint = "set the clock of this host, which differs from that of AWS by minutes"
    elif issubclass(kind, AwsDenied):
        hint = "give the AWS identity of this command the right to {operation}, or use another one"
    elif issubclass(kind, AwsThrottled | AwsTransient):
        hint = "run the command again in a minute"
    else:
        hint = None
    return kind(
        "AWS refused {operation}: {reason} ({code})",
        hint=hint,
        operation=operation,
        code=code,
        reason=message.rstrip(".") or "no reason given",
    )


def _without_answer(operation: str, error: BotoCoreError | ResponseParserError) -> AwsError:
    code = type(error).__name__
    if isinstance(error, _NO_IDENTITY):
        return AwsDenied(
            "no AWS credentials for {operation}",
            hint="give this host an instance role, or set AWS_PROFILE",
            operation=operation,
            code=code,
        )
    if isinstance(error, ProfileNotFound | NoRegionError):
        return AwsPermanent("{reason}", operation=operation, code=code, reason=_plain(error))
    kind = AwsTransient if isinstance(error, _NO_ANSWER) else AwsPermanent
    return kind(
        "AWS did not answer {operation}: {reason}",
        hint="look at the network, then run the command again",
        operation=operation,
        code=code,
        reason=_plain(error),
    )


def _plain(error: Exception) -> str:
    """The first line only: botocore appends whole answers to some of its messages."""
    return str(error).partition("\n")[0].rstrip(".")

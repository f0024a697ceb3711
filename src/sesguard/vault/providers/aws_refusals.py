"""
What AWS answers to a key provider, as the errors of key providers.

    AwsDenied                     KeyProviderDenied: no right, no credentials, a wrong clock
    AwsThrottled, AwsTransient    KeyProviderUnavailable: it may be there later
    AwsPermanent                  KeyProviderUnavailable; the provider knows better for some codes
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sesguard.aws.errors import RIGHTS
from sesguard.errors import (
    AwsDenied,
    AwsError,
    Error,
    KeyProviderDenied,
    KeyProviderUnavailable,
)


def nothing_better(_error: AwsError) -> None:
    """A provider that knows no code of its own."""


@contextmanager
def aws_refusals(
    place: str, better: Callable[[AwsError], Error | None] = nothing_better
) -> Iterator[None]:
    """
    Turn an `AwsError` of the block into an error of a key provider.

    Args:
        place: The key or secret that the calls are for.
        better: The error for what only the provider knows; None: it knows nothing of it.
    """
    try:
        yield
    except AwsError as error:
        raise better(error) or _refusal(error, place) from error


def _refusal(error: AwsError, place: str) -> Error:
    if error.parameters["code"] in RIGHTS:
        return KeyProviderDenied(
            "{problem}",
            hint="allow {operation} on {place} to the AWS identity of this host; where the policy"
            " names it, see that it exists in that account and region",
            problem=error,
            operation=error.parameters["operation"],
            place=place,
        )
    kind = KeyProviderDenied if isinstance(error, AwsDenied) else KeyProviderUnavailable
    return kind(
        "the vault key {place} cannot be had: {problem}",
        hint=error.hint_template or "correct the settings of the key provider, or {place} in AWS",
        **error.parameters,
        problem=error,
        place=place,
    )

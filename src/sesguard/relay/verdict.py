"""
What an attempt to deliver means for each recipient, and for the credential it was made with.

A reply is about the mail only where SES refuses the message or an address. A refused login, a
paused account, a quota and an upstream that is not reached are trouble of the credential: they are
no fault of the message, and count as no attempt of it. An IAM policy that denies the sending may
mean one sender address only: that message is tried again by itself, and others go on.

Source: docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html (retry after 5 s, 10 s, 30 s, then
20 min).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sesguard.core.envelope import Envelope, Recipient
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Outcome, Reply

_FIRST_DELAYS_S: Final = (5.0, 10.0, 30.0)
_LATER_DELAY_S: Final = 1200.0
_JITTER: Final = 0.2


class Trouble(StrEnum):
    """What is wrong with a credential, or with the way to its upstream."""

    REFUSED = "refused"
    """The login or the account."""
    UNREACHABLE = "unreachable"
    RATE = "rate"
    """Too many messages a second, or too many connections."""
    QUOTA = "quota"
    """The messages of a day are used up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the recipients."""

    delivered: Sequence[Recipient]
    refused: Mapping[str, Reply]
    """For good; by address."""
    later: Mapping[str, Reply]
    """To be tried again; by address."""
    trouble: Trouble | None


def judge(envelope: Envelope, result: Result) -> Verdict:
    """Say what `result` means for the recipients of `envelope`."""
    delivered: list[Recipient] = []
    refused: dict[str, Reply] = {}
    later: dict[str, Reply] = {}
    for recipient in envelope.recipients:
        reply = result.refused.get(recipient.address, result.reply)
        is_own = recipient.address in result.refused
        if result.uncertain and not is_own:
            later[recipient.address] = reply
        elif reply.outcome is Outcome.ACCEPTED:
            delivered.append(recipient)
        elif _is_for_now(reply, result):
            later[recipient.address] = reply
        else:
            refused[recipient.address] = reply
    return Verdict(delivered, refused, later, _trouble(later, result))


def retry_delay_s(attempts: int, chance: Callable[[], float]) -> float:
    """
    How long to wait after so many attempts.

    Args:
        attempts: Made so far, at least one.
        chance: Gives numbers from 0 to 1, so that what failed together is not tried together.
    """
    if attempts <= len(_FIRST_DELAYS_S):
        return _FIRST_DELAYS_S[attempts - 1]
    return _LATER_DELAY_S * (1 - _JITTER + 2 * _JITTER * chance())


def _is_for_now(reply: Reply, result: Result) -> bool:
    # Whoever wrote the policy can mend it, so mail waits for that as for a refused login.
    is_denied = reply.outcome is Outcome.DENIED
    return is_denied or reply.outcome.is_temporary or _trouble_of(reply, result) is not None


def _trouble(later: Mapping[str, Reply], result: Result) -> Trouble | None:
    if result.uncertain:
        return None
    return next((t for reply in later.values() if (t := _trouble_of(reply, result))), None)


def _trouble_of(reply: Reply, result: Result) -> Trouble | None:
    match reply.outcome:
        case Outcome.AUTH_REFUSED | Outcome.PAUSED:
            return Trouble.REFUSED
        case Outcome.THROTTLED:
            return Trouble.QUOTA if "daily" in reply.text.lower() else Trouble.RATE
        case Outcome.TEMPORARY if result.host is None:
            return Trouble.UNREACHABLE
        case _:
            return None

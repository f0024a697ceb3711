"""
What a reply of the SES SMTP endpoint means.

SES says with one code (554) that a policy forbids the send, that an address is not verified, that
the account is paused and that the message is rejected, so the text decides. One table; the first
row that fits wins.

Promises: a reply that is not understood is TEMPORARY, so that nobody bounces a mail because of it;
the text of a `Reply` is one line of at most `MAX_TEXT` characters without control characters;
what `text_for_apps` gives names no key and no ARN (IAM's refusals hold those of our user).

Source: docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_TEXT: Final = 500
"""Characters kept of a reply's text."""


class Outcome(StrEnum):
    """What became of what was asked."""

    ACCEPTED = "accepted"
    TEMPORARY = "temporary"
    """Try again later."""
    THROTTLED = "throttled"
    """A quota or the number of connections is used up: try again later, and slower."""
    AUTH_REFUSED = "auth-refused"
    """Wrong, deleted or inactive key, or no AUTH at all."""
    DENIED = "denied"
    """A policy forbids it: source address, From address, configuration set or an explicit Deny."""
    UNVERIFIED = "unverified"
    """An address or domain is not verified in this region."""
    PAUSED = "paused"
    """AWS has paused sending for the account."""
    TOO_LARGE = "too-large"
    BAD_ADDRESS = "bad-address"
    PERMANENT = "permanent"
    """Refused for another reason; the same message will be refused again."""

    @property
    def is_temporary(self) -> bool:
        """Whether the same message may be taken later."""
        return self in (Outcome.TEMPORARY, Outcome.THROTTLED)


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply, understood."""

    code: int
    text: str
    outcome: Outcome
    message_id: str | None = None
    """The id that SES gave an accepted message; its events carry the same id."""
    told: str | None = None
    """What an app hears instead of the text, where that is about our side; None: the text."""

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


_TABLE: Final = (
    (r"2\d\d ", Outcome.ACCEPTED),
    (r"454 .*throttling failure", Outcome.THROTTLED),
    (r"421 .*too many concurrent", Outcome.THROTTLED),
    (r"4\d\d ", Outcome.TEMPORARY),
    (r"(530|534|535|538) ", Outcome.AUTH_REFUSED),
    (r"552 ", Outcome.TOO_LARGE),
    (r"(553|501) ", Outcome.BAD_ADDRESS),
    (r"554 .*(access denied|not authorized)", Outcome.DENIED),
    (r"554 .*not verified", Outcome.UNVERIFIED),
    (r"554 .*sending paused", Outcome.PAUSED),
    (r"5\d\d ", Outcome.PERMANENT),
)
_RULES: Final = tuple((re.compile(pattern, re.IGNORECASE), outcome) for pattern, outcome in _TABLE)
_MESSAGE_ID: Final = re.compile(r"Ok <?([A-Za-z0-9][A-Za-z0-9._-]{7,199})>?", re.IGNORECASE)
_NAME_OF_OURS: Final = re.compile(
    r"\barn:aws[a-z-]*:[^\s'`\"<>,;()]+|\b(?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{12,}\b", re.IGNORECASE
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f]+")


def text_for_apps(reply: Reply) -> str:
    """The text as an app may hear it; the whole of it is for logs."""
    if reply.outcome is Outcome.ACCEPTED:
        return reply.text
    return _NAME_OF_OURS.sub("(not shown)", reply.text if reply.told is None else reply.told)


def classify(code: int, text: str) -> Reply:
    """
    Say what a reply means.

    Args:
        code: The three-digit code; what is not one counts as TEMPORARY.
        text: Everything after the code, lines joined in any way.
    """
    line = _UNPRINTABLE.sub(" ", text).strip()[:MAX_TEXT]
    whole = f"{code} {line}"
    outcome = next((outcome for rule, outcome in _RULES if rule.match(whole)), Outcome.TEMPORARY)
    found = _MESSAGE_ID.fullmatch(line) if code == 250 else None
    return Reply(code, line, outcome, found[1] if found else None)

"""
What keeps a message from going to the upstream, as a reply to it.

It is always a 4xx: nothing of this is the mail's fault. The text begins with an enhanced status
code (RFC 3463) and holds no secret, because errors do not. It names hosts, key ids and files, which
are for the log: an app is told less (`Reply.told`).
"""

from sesguard.errors import Error, TemporaryFailure
from sesguard.upstream.replies import Outcome, Reply, classify
from sesguard.upstream.smtp import LoginRefused


class SessionRefused(TemporaryFailure):
    """The upstream does not want a session now; its own words are in the parameter ``reply``."""


def reply_of(error: Error) -> Reply:
    """The reply that stands for `error`."""
    match error:
        case SessionRefused():
            reply = error.parameters["reply"]
            assert isinstance(reply, Reply)
            return reply
        case LoginRefused():
            told = "the upstream does not take the credential"
            return deferral("4.7.0", str(error), Outcome.AUTH_REFUSED, told=told)
        case TemporaryFailure():
            return deferral("4.4.1", str(error), told="the upstream cannot be reached")
        case _:
            return deferral("4.7.0", str(error), told="the credential cannot be used now")


def deferral(
    status: str, text: str, outcome: Outcome = Outcome.TEMPORARY, *, told: str | None = None
) -> Reply:
    """
    A reply of ours that keeps the mail.

    Args:
        status: Enhanced status code.
        text: For the log.
        outcome: What became of the message.
        told: What an app hears instead of the text.
    """
    line = classify(451, f"{status} {text}").text
    return Reply(451, line, outcome, told=f"{status} {told}" if told else None)

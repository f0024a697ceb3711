"""
What a client hears of a result, in one table.

Our credential's trouble is never the mail's: a refused login, a policy that denies the sending and
a paused account keep the mail with its sender (4xx), though SES says 5xx for them. What SES says
about the message itself goes back with its own code. Hosts, keys and ARNs of ours are not told
(`text_for_apps`); the event of the message has them.

Sources: RFC 5321, 4.2; RFC 3463 for the enhanced codes.
"""

import re
from typing import Final

from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Outcome, Reply, text_for_apps

_MAX_TEXT: Final = 400
_STATUS: Final = re.compile(r"([245])\.\d{1,3}\.\d{1,3} ")
_KEPT: Final = {
    Outcome.TEMPORARY: "4.3.0",
    Outcome.THROTTLED: "4.3.2",
    Outcome.AUTH_REFUSED: "4.7.0",
    Outcome.DENIED: "4.7.0",
    Outcome.PAUSED: "4.7.0",
}
_REFUSED: Final = {
    Outcome.TOO_LARGE: "5.3.4",
    Outcome.BAD_ADDRESS: "5.1.0",
    Outcome.UNVERIFIED: "5.7.1",
    Outcome.PERMANENT: "5.0.0",
}


def is_kept(outcome: Outcome) -> bool:
    """Whether the mail stays with its sender, to be sent again."""
    return outcome in _KEPT


def reply_line(reply: Reply) -> bytes:
    """One reply line with CRLF, its class by the table, its text that of the upstream."""
    text = text_for_apps(reply)[:_MAX_TEXT]
    if reply.outcome is Outcome.ACCEPTED:
        return _line(250, "2.0.0", text)
    status = _KEPT.get(reply.outcome)
    if status is None:
        code = reply.code if 500 <= reply.code <= 599 else 554
        return _line(code, _REFUSED[reply.outcome], text)
    if 400 <= reply.code <= 499 and reply.code != 421:
        return _line(reply.code, status, text)
    # 421 would end the client's session, and 5xx would bounce its mail.
    return _line(451, status, f"kept, because the upstream said: {reply.code} {text}")


def smtp_reply(result: Result, recipients: int) -> bytes:
    """The one reply to a message that goes to all of its recipients or to none."""
    reply = result.reply
    refused = next(iter(result.refused), None)
    if refused is None or recipients == 1 or not _is_refusal(reply.outcome):
        return reply_line(reply)
    # A 5xx would speak for the other recipients too. The session remembers who was refused.
    said = f"{reply.code} {text_for_apps(reply)}"
    text = f"nothing was sent, because {refused} was refused: {said}"
    return _line(451, "4.5.0", text[:_MAX_TEXT])


def lmtp_replies(recipients: tuple[str, ...], result: Result) -> bytes:
    """One reply for each recipient, in order (RFC 2033, 4.2)."""
    return b"".join(
        reply_line(result.refused.get(recipient, result.reply)) for recipient in recipients
    )


def _is_refusal(outcome: Outcome) -> bool:
    return outcome in _REFUSED


def _line(code: int, status: str, text: str) -> bytes:
    own = _STATUS.match(text)
    if own is not None:
        text = text[own.end() :]
        if own[1] == str(code)[0]:
            status = own[0].strip()
    return f"{code} {status} {text}\r\n".encode("ascii", "backslashreplace")

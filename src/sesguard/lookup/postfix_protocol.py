"""
Postfix's question and our answer (docs/protocols/postfix-lookup.md, socketmap_table(5)).

Both are netstrings, ``LENGTH:BYTES,``. A request is ``ses KEY``; the keys that Postfix tries are

    user@example.org                             with smtp_sender_dependent_authentication
    email-smtp.us-east-1.amazonaws.com           the host
    [email-smtp.us-east-1.amazonaws.com]:587     the next hop, as in relayhost

The replies:

    OK USER:PASS     the credential
    NOTFOUND         a host that is not ours, or a sender whose domain no rule names
    TEMP REASON      ours, but there is no credential to hand out now: Postfix defers the mail
    PERM REASON      not the map ``ses``: a mistake in main.cf; Postfix defers the mail as well

NOTFOUND for a host of ours would make Postfix go on without AUTH, and SES answer 530, and the mail
bounce. So a key in which an SES host name stands in whatever dress never gets it.

The connection stays open and carries many requests. What is no netstring, or has more than 4096
bytes (the protocol allows 100,000), is answered by closing: framing is lost then.

Known fault: asked by sender, we do not know the host, so the answer is right only on a machine that
authenticates to SES alone. That is how Postfix works; the answer is given only for domains that the
settings name.
"""

import re
from typing import Final

from sesguard.core.shapes import SES_HOST
from sesguard.lookup.desk import LookupDesk
from sesguard.lookup.interface import CLOSE, Answer
from sesguard.lookup.model import Grant, Question, Reason, Refused
from sesguard.system.peers import Peer

MAX_REQUEST_BYTES: Final = 4096
MAP_NAME: Final = "ses"

_LENGTH: Final = re.compile(rb"(0|[1-9][0-9]{0,5}):")
_LENGTH_DIGITS: Final = 6
_USER: Final = re.compile(r"[^:\0\r\n]+")
_PASSWORD: Final = re.compile(r"[^\0\r\n]+")
_NEXT_HOP: Final = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<bare>[^\[\]:]+))(?::[^:]*)?")


def take_netstring(received: bytearray) -> bytes | None:
    """
    Take the first netstring off `received`.

    Returns:
        Its content, or None while it is not complete.

    Raises:
        Refused: It is none, or too long.
    """
    header = _LENGTH.match(received)
    if header is None:
        if len(received) <= _LENGTH_DIGITS and (not received or received.isdigit()):
            return None
        raise Refused(Reason.MALFORMED, "the request is not a netstring")
    length = int(header[1])
    if length > MAX_REQUEST_BYTES:
        raise Refused(Reason.TOO_LONG, "the request has over {max} bytes", max=MAX_REQUEST_BYTES)
    start, end = header.end(), header.end() + length
    if len(received) <= end:
        return None
    if received[end] != ord(","):
        raise Refused(Reason.MALFORMED, "the netstring does not end with a comma")
    content = bytes(received[start:end])
    del received[: end + 1]
    return content


def netstring(content: bytes) -> bytes:
    """Wrap `content`."""
    return b"%d:%s," % (len(content), content)


def host_of_key(key: str) -> str | None:
    """The host in a key: ``host``, ``[host]``, and both with ``:port``; or None."""
    match = _NEXT_HOP.fullmatch(key)
    return (match["bracketed"] or match["bare"]) if match else None


def reveal_pair(grant: Grant) -> bytes:
    """
    Write a grant down for Postfix: ``OK USER:PASS``.

    Raises:
        Refused: Postfix could not tell user and password apart, or would cut them short.
    """
    user, password = grant.version.username, grant.password.reveal()
    if not _USER.fullmatch(user) or not _PASSWORD.fullmatch(password):
        raise Refused(
            Reason.UNSENDABLE,
            "version {number} of credential {id} cannot be sent by Postfix",
            number=grant.version.number,
            id=grant.credential_id,
        )
    return f"OK {user}:{password}".encode()


class PostfixDialogue:
    """Many questions on one connection."""

    keeps_open = True

    def __init__(self, desk: LookupDesk) -> None:
        self.protocol = desk.protocol
        self._desk = desk

    def answer(self, received: bytearray, peer: Peer) -> Answer | None:
        """See `sesguard.lookup.interface.Dialogue`."""
        try:
            request = take_netstring(received)
        except Refused as refusal:
            self._desk.report(refusal, peer, Question())
            return CLOSE
        if request is None:
            return None
        return Answer(netstring(self._reply(request, peer)), close=False)

    def _reply(self, request: bytes, peer: Peer) -> bytes:
        name, _, key = request.decode("utf-8", "backslashreplace").partition(" ")
        question = self._question(key)
        if name != MAP_NAME:
            refusal = Refused(Reason.MALFORMED, "there is no map of that name")
            self._desk.report(refusal, peer, question or Question())
            return b"PERM no such map"
        if question is None:
            return b"NOTFOUND "
        try:
            return self._desk.reveal_answer(question, peer, reveal_pair)
        except Refused as refusal:
            return b"TEMP " + refusal.reason.encode()

    def _question(self, key: str) -> Question | None:
        """The question behind a key; None when the key is none of our business."""
        if "@" in key:
            return Question(sender=key) if self._desk.is_our_sender(key) else None
        host = host_of_key(key)
        if host is not None and self._desk.is_our_host(host):
            return Question(host=host)
        return Question(host=key) if SES_HOST.search(key) else None

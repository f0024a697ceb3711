"""
Exim's question and our answer (docs/protocols/exim-lookup.md).

Exim connects with ``${readsocket{...}}``, sends one line and reads until we close:

    plain NAME
    plainx HOST|ADDRESS|CIPHER|MESSAGE_ID|SENDER

The sender is the rest of the line and may hold ``|`` and blanks. The answer is ``^USER^PASS``
without a newline: the form of ``client_send`` for PLAIN, in which Exim turns ``^`` into NUL and
``^^`` into ``^``.

A refusal is a close without one byte. Text would be worse than nothing: Exim would send it as AUTH.

Limits: a line has at most 4096 bytes with its newline; nothing may follow it. A user or password
that is empty, begins with ``^``, or holds NUL, CR or LF cannot be sent and is refused.

Sources: Exim specification, chapters 11 (readsocket) and 34 (plaintext authenticator).
"""

import re
from typing import Final

from sesguard.lookup.desk import LookupDesk
from sesguard.lookup.interface import CLOSE, Answer
from sesguard.lookup.model import Grant, Question, Reason, Refused
from sesguard.system.peers import Peer

MAX_REQUEST_BYTES: Final = 4096

_FIELDS: Final = 5
_SENDABLE: Final = re.compile(r"[^^\0\r\n][^\0\r\n]*")


def parse_request(line: bytes) -> Question:
    """
    Read a request.

    Args:
        line: All that the client sent, with its newline.

    Raises:
        Refused: It is not one line of one of the two forms.
    """
    if len(line) > MAX_REQUEST_BYTES:
        raise Refused(Reason.TOO_LONG, "the request has over {max} bytes", max=MAX_REQUEST_BYTES)
    if line.find(b"\n") != len(line) - 1:
        raise Refused(Reason.MALFORMED, "the request is not one line")
    word, _, rest = line[:-1].decode("utf-8", "backslashreplace").partition(" ")
    if word == "plain" and rest:
        return Question(credential=rest)
    fields = rest.split("|", _FIELDS - 1)
    if word != "plainx" or len(fields) != _FIELDS or not fields[0]:
        raise Refused(Reason.MALFORMED, "the request has no form that is known")
    host, _address, cipher, message_id, sender = fields
    return Question(host=host, sender=sender, message_id=message_id, cipher=cipher)


def reveal_plain(grant: Grant) -> bytes:
    """
    Write a grant down for Exim: ``^USER^PASS``.

    Raises:
        Refused: Exim could not send this user or password unharmed.
    """
    parts = (grant.version.username, grant.password.reveal())
    for part in parts:
        if not _SENDABLE.fullmatch(part):
            raise Refused(
                Reason.UNSENDABLE,
                "version {number} of credential {id} cannot be sent by Exim",
                number=grant.version.number,
                id=grant.credential_id,
            )
    return "".join("^" + part.replace("^", "^^") for part in parts).encode()


class EximDialogue:
    """One question, one answer, close."""

    keeps_open = False

    def __init__(self, desk: LookupDesk) -> None:
        self.protocol = desk.protocol
        self._desk = desk

    def answer(self, received: bytearray, peer: Peer) -> Answer | None:
        """See `sesguard.lookup.interface.Dialogue`."""
        if b"\n" not in received and len(received) <= MAX_REQUEST_BYTES:
            return None
        question = Question()
        try:
            question = parse_request(bytes(received))
        except Refused as refusal:
            self._desk.report(refusal, peer, question)
            return CLOSE
        try:
            return Answer(self._desk.reveal_answer(question, peer, reveal_plain), close=True)
        except Refused:
            return CLOSE

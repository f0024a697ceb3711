"""
Messages that tell a sender what became of mail: not delivered, or handed on.

`bounce` is sent when SES refuses queued mail for good or it has become too old; `relayed` when a
sender asked to hear of success (NOTIFY=SUCCESS), since SES sends no receipts of its own. Both are
delivery status notifications (RFC 3464): a text for people in English and Portuguese, a part for
programs, and the header of the message.

A notification comes from the address that it goes to. SES takes no null sender (501), and no
address that it has not verified; the one that the mail itself came from is the only one that every
account has.

Promises
    Nobody is told who must not be: the null sender, and recipients whose NOTIFY says otherwise.
    CRLF line ends only, and nothing that a recipient's address, a reply or a header holds makes a
    line of its own. The same arguments give the same message; there is no clock and no chance in
    it.

Limits
    The header is returned, never the body, whatever RET asked for (RFC 3461, 4.3, lets it be).

Raises nothing.

Sources: RFC 3461 (ENVID, ORCPT, NOTIFY), RFC 3464, RFC 3834 (Auto-Submitted), RFC 6522, RFC 6533
(addresses beyond ASCII); of the null sender, docker-mailserver's issue 2403.
"""

import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.upstream.replies import Outcome, Reply, text_for_apps

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_STATUS: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\S)")
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")

_STATUS_OF_OUTCOME: Final = {
    Outcome.BAD_ADDRESS: "5.1.3",
    Outcome.TOO_LARGE: "5.3.4",
    Outcome.DENIED: "5.7.1",
    Outcome.UNVERIFIED: "5.7.1",
}
_EXPIRED: Final = "4.4.7"
"""Delivery time expired (RFC 3463, 3.5)."""

_REFUSED_TEXT: Final = (
    """\
Your message was not delivered to the recipients below. It will not be tried again.
""",
    """\
Sua mensagem não foi entregue aos destinatários acima. Não haverá nova tentativa.
""",
)
_EXPIRED_TEXT: Final = (
    """\
Your message waited for {hours} hours and was not delivered to the recipients below.
It will not be tried again. The last answer is beside each address.
""",
    """\
Sua mensagem esperou por {hours} horas e não foi entregue aos destinatários acima.
Não haverá nova tentativa. A última resposta está junto de cada endereço.
""",
)
_RELAYED_TEXT: Final = (
    """\
Your message was handed on to Amazon SES for the recipients below.
SES sends no receipts: you will hear again only if it cannot be delivered.
""",
    """\
Sua mensagem foi repassada ao Amazon SES para os destinatários acima.
O SES não envia confirmações: só haverá outro aviso se a entrega falhar.
""",
)


@dataclass(frozen=True, slots=True)
class _Report:
    """What one notification says."""

    subject: str
    action: str
    text: tuple[str, str]
    told: tuple[tuple[Recipient, str, Reply], ...]
    """Recipient, status and reply."""


def bounce(
    envelope: Envelope,
    header: bytes,
    failures: Mapping[str, Reply],
    *,
    reporting_host: str,
    arrived_at: float,
    now: float,
    reason_expired: bool,
) -> bytes | None:
    """
    Write what tells the sender that mail was not delivered.

    Args:
        envelope: Of the message.
        header: Of the message, dots not doubled; with or without its empty line.
        failures: What was said last, by recipient.
        reporting_host: Name of this host.
        arrived_at: When the message was received, wall clock in seconds.
        now: Likewise.
        reason_expired: Whether we gave up, rather than the upstream refused.

    Returns:
        The whole message, dots not doubled; None where nobody is to be told.
    """
    told = tuple(
        (recipient, _EXPIRED if reason_expired else _status(reply), reply)
        for recipient, reply in _among(envelope, failures)
        if not recipient.notify or Notify.FAILURE in recipient.notify
    )
    hours = max(1, round((now - arrived_at) / 3600))
    english, portuguese = _EXPIRED_TEXT if reason_expired else _REFUSED_TEXT
    text = (english.format(hours=hours), portuguese.format(hours=hours))
    report = _Report("Undelivered mail", "failed", text, told)
    return _message(envelope, header, report, reporting_host, arrived_at=arrived_at, now=now)


def relayed(
    envelope: Envelope,
    header: bytes,
    replies: Mapping[str, Reply],
    *,
    reporting_host: str,
    arrived_at: float,
    now: float,
) -> bytes | None:
    """
    Write what tells the sender that mail was handed on; arguments and result as for `bounce`.

    Only recipients with NOTIFY=SUCCESS are told of.
    """
    told = tuple(
        (recipient, "2.0.0", reply)
        for recipient, reply in _among(envelope, replies)
        if Notify.SUCCESS in recipient.notify
    )
    report = _Report("Mail handed on", "relayed", _RELAYED_TEXT, told)
    return _message(envelope, header, report, reporting_host, arrived_at=arrived_at, now=now)


def _among(envelope: Envelope, replies: Mapping[str, Reply]) -> list[tuple[Recipient, Reply]]:
    found = ((recipient, replies.get(recipient.address)) for recipient in envelope.recipients)
    return [(recipient, reply) for recipient, reply in found if reply is not None]


def _status(reply: Reply) -> str:
    match = _STATUS.match(reply.text)
    if match is not None and match[1][0] == str(reply.code)[0]:
        return match[1]
    return _STATUS_OF_OUTCOME.get(reply.outcome, "5.0.0")


def _message(
    envelope: Envelope,
    header: bytes,
    report: _Report,
    host: str,
    *,
    arrived_at: float,
    now: float,
) -> bytes | None:
    if not envelope.sender or not report.told:
        return None
    status = _delivery_status(envelope, report, host, arrived_at, now)
    # Addresses beyond ASCII need the part types of RFC 6533.
    names = ("delivery-status", "text/rfc822-headers")
    if not status.isascii():
        names = ("global-delivery-status", "message/global-headers")
    digest = hashlib.sha256(b"\0".join((status, header, repr(now).encode()))).hexdigest()
    mark = f"=_{digest[:40]}"
    address = _line(envelope.sender)
    front = (
        f"From: MAILER-DAEMON <{address}>",
        f"To: <{address}>",
        f"Subject: {report.subject}",
        f"Date: {_date(now)}",
        f"Message-ID: <{digest[:32]}@{_line(host)}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{mark}"',
    )
    parts = (
        _part("text/plain; charset=utf-8", "quoted-printable", _text(report)),
        _part(f"message/{names[0]}", _encoding(status), status),
        _part(
            names[1], _encoding(header), _LINE_END.sub(b"\r\n", header.rstrip(b"\r\n")) + b"\r\n"
        ),
    )
    between = f"\r\n--{mark}\r\n".encode()
    end = f"\r\n--{mark}--\r\n".encode()
    return "\r\n".join((*front, "")).encode() + between + between.join(parts) + end


def _part(kind: str, encoding: str, content: bytes) -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


def _encoding(content: bytes) -> str:
    return "7bit" if content.isascii() else "8bit"


def _said(reply: Reply) -> str:
    return _line(f"{reply.code} {text_for_apps(reply)}")


def _text(report: _Report) -> bytes:
    """The part for people."""
    told = "\n".join(f"  <{_line(r.address)}>\n    {_said(reply)}" for r, _, reply in report.told)
    english, portuguese = report.text
    text = f"{english}\n{told}\n\n{portuguese}"
    return _LINE_END.sub(b"\r\n", binascii.b2a_qp(text.encode(), istext=True))


def _delivery_status(
    envelope: Envelope, report: _Report, host: str, arrived_at: float, now: float
) -> bytes:
    """The part for programs (RFC 3464, 2)."""
    message = [f"Reporting-MTA: dns; {_line(host)}"]
    if envelope.envelope_id:
        message.insert(0, f"Original-Envelope-Id: {_decoded(envelope.envelope_id)}")
    message.append(f"Arrival-Date: {_date(arrived_at)}")
    groups = [message]
    for recipient, status, reply in report.told:
        group = (
            [f"Original-Recipient: {_decoded(recipient.original)}"] if recipient.original else []
        )
        kind = "rfc822" if recipient.address.isascii() else "utf-8"
        group += (
            f"Final-Recipient: {kind}; {_line(recipient.address)}",
            f"Action: {report.action}",
            f"Status: {status}",
            f"Diagnostic-Code: smtp; {_said(reply)}",
            f"Last-Attempt-Date: {_date(now)}",
        )
        groups.append(group)
    return "\r\n".join(line for group in groups for line in (*group, "")).encode()


def _line(text: str) -> str:
    """`text` as part of one line."""
    return _CONTROLS.sub(" ", text)


def _decoded(xtext: str) -> str:
    """What was written as xtext (RFC 3461, 4), or the xtext where it stands for no plain text."""
    text = _XTEXT.sub(lambda match: chr(int(match[1], 16)), xtext)
    return _line(text if text.isascii() and text.isprintable() else xtext)


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(at), UTC))

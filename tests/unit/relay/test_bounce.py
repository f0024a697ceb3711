"""Notifications: who is told, what they say, and that nothing gets into them."""

from email import message_from_bytes, policy
from email.message import EmailMessage, Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.envelope import Envelope, Notify, Recipient
from sesguard.relay.bounce import bounce, relayed
from sesguard.upstream.replies import Outcome, Reply, classify

HEADER = b"From: Shop <shop@a.example>\r\nSubject: hello\r\nX-Folded: a\r\n b\r\n"
REFUSED = classify(554, "Message rejected: Email address is not verified.")
ARRIVED = 1_785_000_000.0
NOW = ARRIVED + 48 * 3600


def _bounce(
    envelope: Envelope,
    failures: dict[str, Reply],
    *,
    header: bytes = HEADER,
    expired: bool = False,
) -> bytes | None:
    return bounce(
        envelope,
        header,
        failures,
        reporting_host="web1.a.example",
        arrived_at=ARRIVED,
        now=NOW,
        reason_expired=expired,
    )


def _parsed(text: bytes | None) -> EmailMessage:
    assert text is not None
    assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")
    assert text.endswith(b"\r\n")
    message = message_from_bytes(text, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not [part for part in message.walk() if part.defects]
    return message


def _groups(message: EmailMessage) -> list[dict[str, str]]:
    """The groups of the part for programs."""
    _, status, _ = message.iter_parts()
    groups = status.get_payload()
    assert isinstance(groups, list)
    return [{k: str(v) for k, v in group.items()} for group in groups if isinstance(group, Message)]


def _envelope(*recipients: Recipient, sender: str = "shop@a.example") -> Envelope:
    return Envelope(sender, recipients or (Recipient("b@x.example"),))


def test_a_bounce_says_what_was_not_delivered() -> None:
    """People read the reply, programs the fields, and the header comes back."""
    message = _parsed(_bounce(_envelope(), {"b@x.example": REFUSED}))
    text, _, header = message.iter_parts()

    assert "MAILER-DAEMON <shop@a.example>" == message["From"]
    assert "shop@a.example" == message["To"].addresses[0].addr_spec
    assert "auto-replied" == message["Auto-Submitted"]
    assert "multipart/report" == message.get_content_type()
    assert "delivery-status" == message.get_param("report-type")
    assert "not delivered" in text.get_content()
    assert "não foi entregue" in text.get_content()
    assert f"<b@x.example>\r\n    {REFUSED}" in text.get_content()
    assert HEADER == header.get_payload(decode=True)
    whole, one = _groups(message)
    assert {
        "Reporting-MTA": "dns; web1.a.example",
        "Arrival-Date": "Sat, 25 Jul 2026 17:20:00 +0000",
    } == whole
    assert {
        "Final-Recipient": "rfc822; b@x.example",
        "Action": "failed",
        "Status": "5.7.1",
        "Diagnostic-Code": f"smtp; {REFUSED}",
        "Last-Attempt-Date": "Mon, 27 Jul 2026 17:20:00 +0000",
    } == one


def test_nothing_of_ours_is_told() -> None:
    """No ARN of the account and no reason that is about our side comes into a bounce."""
    arn = "arn:aws:iam::123456789012:user/ses"
    failures = {
        "b@x.example": Reply(554, f"Access denied: User `{arn}' is not", Outcome.DENIED),
        "c@x.example": Reply(451, "key AKIAX is refused", Outcome.AUTH_REFUSED, told="not now"),
    }
    envelope = _envelope(Recipient("b@x.example"), Recipient("c@x.example"))

    text = _bounce(envelope, failures)

    assert text is not None
    assert b"123456789012" not in text
    assert b"AKIAX" not in text
    assert b"Diagnostic-Code: smtp; 451 not now" in text


def test_old_mail_is_said_to_be_old() -> None:
    """Mail that was given up has the status of that, and the time it was tried."""
    later = classify(454, "Throttling failure: Daily message quota exceeded")
    message = _parsed(_bounce(_envelope(), {"b@x.example": later}, expired=True))
    text, *_ = message.iter_parts()

    assert "4.4.7" == _groups(message)[1]["Status"]
    assert "waited for 48 hours" in text.get_content()
    assert "por 48 horas" in text.get_content()


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (classify(550, "5.1.1 no such user"), "5.1.1"),
        (classify(550, "5.1.1"), "5.1.1"),
        (classify(550, "4.1.1 odd"), "5.0.0"),
        (classify(550, "5.1.1x odd"), "5.0.0"),
        (classify(552, "Message is too long."), "5.3.4"),
        (classify(553, "address unknown"), "5.1.3"),
        (classify(554, "Access denied: not authorized"), "5.7.1"),
        (classify(554, "Transaction failed"), "5.0.0"),
    ],
)
def test_the_status_is_that_of_the_reply_or_of_its_meaning(reply: Reply, status: str) -> None:
    """An enhanced status code is taken over; without one, what the reply means decides."""
    message = _parsed(_bounce(_envelope(), {"b@x.example": reply}))

    assert status == _groups(message)[1]["Status"]


def test_what_the_sender_said_comes_back() -> None:
    """ENVID and ORCPT come back decoded, or as they were where they would break a line."""
    failures = {"b@x.example": REFUSED, "c@x.example": REFUSED}
    envelope = Envelope(
        "shop@a.example",
        (
            Recipient("b@x.example", original="rfc822;big+2Bboss@x.example"),
            Recipient("c@x.example", original="rfc822;c+0D+0AStatus:+202.0.0@x.example"),
        ),
        envelope_id="order+3D12",
    )
    whole, first, second = _groups(_parsed(_bounce(envelope, failures)))

    assert "order=12" == whole["Original-Envelope-Id"]
    assert "rfc822;big+boss@x.example" == first["Original-Recipient"]
    assert "rfc822;c+0D+0AStatus:+202.0.0@x.example" == second["Original-Recipient"]


def test_who_wants_no_bounce_gets_none() -> None:
    """The null sender, NOTIFY=NEVER and NOTIFY=SUCCESS hear nothing; others of the same mail do."""
    never = Recipient("b@x.example", frozenset({Notify.NEVER}))
    success = Recipient("c@x.example", frozenset({Notify.SUCCESS}))
    failure = Recipient("d@x.example", frozenset({Notify.FAILURE, Notify.DELAY}))
    plain = Recipient("e@x.example")
    failures = {f"{c}@x.example": REFUSED for c in "bcdef"}

    assert None is _bounce(_envelope(sender=""), failures)
    assert None is _bounce(_envelope(never, success), failures)
    assert None is _bounce(_envelope(plain), {})
    told = _groups(_parsed(_bounce(_envelope(never, success, failure, plain), failures)))[1:]
    assert ["rfc822; d@x.example", "rfc822; e@x.example"] == [g["Final-Recipient"] for g in told]


def test_success_is_told_to_those_who_asked() -> None:
    """NOTIFY=SUCCESS hears that the mail was handed on; nobody else hears anything."""
    asked = Recipient("b@x.example", frozenset({Notify.SUCCESS, Notify.FAILURE}))
    accepted = classify(250, "Ok 0100018f5a2b3c4d")
    replies = {"b@x.example": accepted, "c@x.example": accepted}

    def notice(envelope: Envelope) -> bytes | None:
        return relayed(
            envelope,
            HEADER,
            replies,
            reporting_host="web1.a.example",
            arrived_at=ARRIVED,
            now=NOW,
        )

    message = _parsed(notice(_envelope(asked, Recipient("c@x.example"))))
    (group,) = _groups(message)[1:]
    assert ("relayed", "2.0.0") == (group["Action"], group["Status"])
    assert None is notice(_envelope(Recipient("c@x.example")))
    assert None is notice(_envelope(asked, sender=""))


def test_addresses_beyond_ascii_have_their_own_parts() -> None:
    """An address in UTF-8 is told in the part types that are for it."""
    text = _bounce(_envelope(Recipient("joão@x.example")), {"joão@x.example": REFUSED})

    assert text is not None
    assert b"Content-Type: message/global-delivery-status\r\n" in text
    assert b"Content-Type: message/global-headers\r\n" in text
    assert "Final-Recipient: utf-8; joão@x.example\r\n".encode() in text


def test_the_same_arguments_give_the_same_message() -> None:
    """There is no chance in it, and another time makes another Message-ID."""
    failures = {"b@x.example": REFUSED}

    assert _bounce(_envelope(), failures) == _bounce(_envelope(), failures)
    other = bounce(
        _envelope(),
        HEADER,
        failures,
        reporting_host="web1.a.example",
        arrived_at=ARRIVED,
        now=NOW + 1,
        reason_expired=False,
    )
    assert _parsed(other)["Message-ID"] != _parsed(_bounce(_envelope(), failures))["Message-ID"]


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.binary(max_size=80))
def test_nothing_that_is_told_makes_a_line_of_its_own(
    address: str, said: str, given_id: str, header: bytes
) -> None:
    """Whatever addresses, replies, ids and headers hold, parts and fields are as many as ever."""
    recipient = Recipient(address, original=f"rfc822;{given_id}")
    envelope = Envelope(f"a{said}@a.example", (recipient,), envelope_id=given_id)
    text = _bounce(envelope, {address: Reply(554, said, Outcome.PERMANENT)}, header=header)

    assert text is not None
    assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")
    front = text.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert 9 == len(front)
    mark = front[-1].partition(b'"')[2][:-1]
    assert 4 == text.count(b"--" + mark)
    status = text.split(b"\r\n--" + mark)[2].split(b"\r\n")
    assert (11 if given_id else 10) == len([line for line in status if line])

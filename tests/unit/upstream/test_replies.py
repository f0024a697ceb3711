"""Replies of SES and what they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.upstream.replies import MAX_TEXT, Outcome, classify, text_for_apps

DOCUMENTED = [
    (235, "Authentication successful", Outcome.ACCEPTED),
    (250, "Ok 0100018f-aaaa-bbbb", Outcome.ACCEPTED),
    (421, "Too many concurrent SMTP connections", Outcome.THROTTLED),
    (421, "Service closing transmission channel", Outcome.TEMPORARY),
    (451, "Temporary service failure", Outcome.TEMPORARY),
    (451, "Timeout waiting for data from client", Outcome.TEMPORARY),
    (454, "Throttling failure: Maximum sending rate exceeded", Outcome.THROTTLED),
    (454, "Throttling failure: Daily message quota exceeded", Outcome.THROTTLED),
    (454, "Temporary authentication failure", Outcome.TEMPORARY),
    (454, "Temporary service failure", Outcome.TEMPORARY),
    (530, "Authentication required", Outcome.AUTH_REFUSED),
    (535, "Authentication Credentials Invalid", Outcome.AUTH_REFUSED),
    (535, "Account not subscribed to SES", Outcome.AUTH_REFUSED),
    (535, "Signature Version 2 is deprecated for use with SES", Outcome.AUTH_REFUSED),
    (552, "Message is too long.", Outcome.TOO_LARGE),
    (553, "<x> Invalid email address", Outcome.BAD_ADDRESS),
    (553, "<x@y> address unknown", Outcome.BAD_ADDRESS),
    (
        554,
        "Access denied: User `arn:aws:iam::1:user/u' is not authorized to perform `ses:Send'",
        Outcome.DENIED,
    ),
    (
        554,
        "Message rejected: Email address is not verified. The following failed: a@example.com",
        Outcome.UNVERIFIED,
    ),
    (554, "Message rejected: Sending paused for this account.", Outcome.PAUSED),
    (554, "Transaction failed", Outcome.PERMANENT),
    (550, "no", Outcome.PERMANENT),
]


@pytest.mark.parametrize(("code", "text", "outcome"), DOCUMENTED)
def test_documented_reply_is_understood(code: int, text: str, outcome: Outcome) -> None:
    """Every reply of the SES documentation has its outcome, whatever its letter case."""
    assert outcome is classify(code, text).outcome
    assert outcome is classify(code, text.upper()).outcome


def test_message_id_is_read_from_the_reply() -> None:
    """The id after 250 Ok joins our log with the events of SES."""
    reply = classify(250, "Ok 0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000")

    assert reply.message_id == "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"


@pytest.mark.parametrize("text", ["Ok", "Ok queued as", "Ok a b", "2.0.0 Ok", "Ok ../../etc"])
def test_no_message_id_where_there_is_none(text: str) -> None:
    """A reply without an id, or with something else in its place, gives no id."""
    assert classify(250, text).message_id is None


def test_only_a_message_reply_has_an_id() -> None:
    """A code other than 250 carries no id."""
    assert classify(235, "Ok 0100018f5a2b3c4d").message_id is None


@given(st.integers(-1, 1200), st.text(max_size=2000))
def test_any_reply_gives_one_printable_line(code: int, text: str) -> None:
    """Whatever a peer says: one bounded, printable line, and no bounce by mistake."""
    reply = classify(code, text)

    assert len(reply.text) <= MAX_TEXT
    assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) <= 0x9F for c in reply.text)
    if not 200 <= code <= 299 and not 500 <= code <= 599:
        assert reply.outcome.is_temporary


def test_reply_reads_as_smtp() -> None:
    """A reply shows as its code and text."""
    assert (
        str(classify(535, "Authentication\nCredentials Invalid"))
        == "535 Authentication Credentials Invalid"
    )


@pytest.mark.parametrize(
    "ours",
    [
        "arn:aws:iam::123456789012:user/ses-smtp-user",
        "arn:aws-us-gov:ses:us-gov-west-1:123456789012:identity/a@example.com",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_apps_hear_no_names_of_ours(ours: str) -> None:
    """ARNs and key ids are taken out of what SES says; the rest is told as it is."""
    reply = classify(554, f"Access denied: User `{ours}' may not send as a@example.com, {ours}.")

    assert ours in reply.text
    assert (
        "Access denied: User `(not shown)' may not send as a@example.com, (not shown)"
    ) == text_for_apps(reply).rstrip(".")


def test_the_id_of_a_message_is_told_whole() -> None:
    """Whatever it looks like, it is what the app finds its message by."""
    text = "Ok 0100018f5a2b3c4d-AKIA012345678901-000000"

    assert text == text_for_apps(classify(250, text))

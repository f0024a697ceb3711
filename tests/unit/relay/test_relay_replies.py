"""What a client hears of what the upstream said, or of what kept the message from it."""

import pytest

from sesguard.errors import Error, SystemFault, TemporaryFailure, UpstreamError
from sesguard.relay.refused import RefusedRecipients
from sesguard.relay.replies import lmtp_replies, smtp_reply
from sesguard.upstream.failures import SessionRefused, reply_of
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Outcome, classify
from sesguard.upstream.smtp import LoginRefused

HOST, KEY = "vpce-0a1b.email-smtp.eu-west-1.vpce.amazonaws.com", "AKIAIOSFODNN7EXAMPLE"
ARN = "arn:aws:iam::123456789012:user/ses-smtp-user"
OURS = (HOST, KEY, ARN, "123456789012", "/etc/")


@pytest.mark.parametrize(
    "error",
    [
        LoginRefused("{host} refused the login of {key}: 535 no", host=HOST, key=KEY),
        TemporaryFailure("no connection to {host}:587: refused", host=HOST),
        UpstreamError("the TLS certificate of {host} does not verify", host=HOST),
        SystemFault("cannot read {path}", path="/etc/sesguard/ca.pem"),
        SessionRefused("{reply}", reply=classify(451, f"4.3.0 not for {KEY}")),
    ],
)
def test_an_app_does_not_hear_what_is_ours(error: Error) -> None:
    """No host, key or file is told; what is kept for the log has all of it."""
    result = Result(reply_of(error))

    for said in (smtp_reply(result, 1), lmtp_replies(("a@example.net",), result)):
        assert said.startswith(b"451 4.")
        assert not [each for each in OURS if each.encode() in said]
    assert any(each in result.reply.text for each in OURS)


def test_a_denied_message_names_no_arn() -> None:
    """The client keeps its mail and hears that access was denied, not to whom."""
    result = Result(classify(554, f"Access denied: User `{ARN}' is not authorized"))

    assert Outcome.DENIED is result.reply.outcome
    assert (
        b"451 4.7.0 kept, because the upstream said: 554 Access denied:"
        b" User `(not shown)' is not authorized\r\n"
    ) == smtp_reply(result, 1)


def test_a_refused_recipient_names_no_arn() -> None:
    """Neither the reply to the message nor the one that is remembered does."""
    refused = {"a@example.net": classify(554, f"rejected by {ARN}")}
    known = RefusedRecipients(lambda: 0.0)
    known.remember("shop", "app@example.com", refused)
    found = known.find("shop", "app@example.com", "a@example.net")
    assert known.find("blog", "app@example.com", "a@example.net") is None

    assert found is not None
    result = Result(refused["a@example.net"], refused)
    for said in (smtp_reply(result, 2), smtp_reply(result, 1), found.line()):
        assert b"(not shown)" in said
        assert b"arn:" not in said

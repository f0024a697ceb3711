"""Tests of `sesguard.lookup.exim_protocol`."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.lookup.exim_protocol import (
    MAX_REQUEST_BYTES,
    EximDialogue,
    parse_request,
    reveal_plain,
)
from sesguard.lookup.interface import CLOSE, Answer
from sesguard.lookup.model import Grant, Outcome, Question, Reason, Refused
from sesguard.system.peers import Peer

PEER = Peer(4711, 102, 105)
REQUEST = b"plainx email-smtp.us-east-1.amazonaws.com|192.0.2.1|TLS1.3|1xVhDU-1|a@example.org\n"


def _grant(username: str, password: str) -> Grant:
    secret = Secret(password)
    version = CredentialVersion(3, username, {"us-east-1": secret}, "2026-01-01T00:00:00Z", "test")
    return Grant("main", version, secret)


def _as_exim_sends(answer: bytes) -> bytes:
    """What Exim makes of a ``client_send`` value: ``^^`` is ``^``, any other ``^`` is NUL."""
    return re.sub(rb"\^(\^?)", lambda found: found[1] or b"\0", answer)


def test_a_credential_can_be_asked_for_by_name() -> None:
    """The short form."""
    assert Question(credential="main") == parse_request(b"plain main\n")


def test_the_long_form_tells_host_cipher_message_and_sender() -> None:
    """The address is not needed."""
    expected = Question(
        host="email-smtp.us-east-1.amazonaws.com",
        sender="a@example.org",
        message_id="1xVhDU-1",
        cipher="TLS1.3",
    )

    assert expected == parse_request(REQUEST)


def test_the_sender_is_the_rest_of_the_line() -> None:
    """It may hold bars and blanks, and it may be empty."""
    assert '"a|b c"@x|y' == parse_request(b'plainx h|a|c|m|"a|b c"@x|y\n').sender
    assert "" == parse_request(b"plainx h|a|c|m|\n").sender


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"plain\n",
        b"plain \n",
        b"plainx\n",
        b"plainx h|a|c|m\n",
        b"plainx |a|c|m|s\n",
        b"PLAIN main\n",
        b"user main\n",
        b"plain main\nplain main\n",
        b"plain main\n\n",
        b"plain main",
        b"",
    ],
)
def test_anything_but_one_line_of_a_known_form_is_malformed(line: bytes) -> None:
    """Nothing is guessed, and nothing may follow the line."""
    with pytest.raises(Refused) as caught:
        parse_request(line)

    assert Reason.MALFORMED is caught.value.reason


def test_a_line_may_have_4096_bytes_and_not_one_more() -> None:
    """Counted with the newline."""
    longest = b"plain " + b"x" * (MAX_REQUEST_BYTES - 7) + b"\n"

    assert MAX_REQUEST_BYTES - 7 == len(parse_request(longest).credential or "")
    with pytest.raises(Refused) as caught:
        parse_request(b"x" + longest)
    assert Reason.TOO_LONG is caught.value.reason


def test_the_answer_is_the_form_of_client_send_without_a_newline() -> None:
    """Every ^ inside a value is doubled."""
    assert b"^USER^pa^^ss^^" == reveal_plain(_grant("USER", "pa^ss^"))


@pytest.mark.parametrize(
    ("username", "password"),
    [("U", ""), ("", "p"), ("U", "^p"), ("^U", "p"), ("U", "p\0"), ("U", "p\n"), ("U\r", "p")],
)
def test_what_exim_would_distort_is_refused(username: str, password: str) -> None:
    """Empty values, a leading ^, NUL and line ends; the error does not show the value."""
    with pytest.raises(Refused, match="version 3 of credential main cannot be sent") as caught:
        reveal_plain(_grant(username, password))

    assert Reason.UNSENDABLE is caught.value.reason


@given(st.text(min_size=1), st.text(min_size=1))
def test_exim_sends_exactly_the_user_and_the_password(username: str, password: str) -> None:
    """Law: what is not refused arrives as the SASL PLAIN message, whatever it holds."""
    try:
        expected = f"\0{username}\0{password}".encode()
        answer = reveal_plain(_grant(username, password))
    except (Refused, UnicodeEncodeError):
        return

    assert expected == _as_exim_sends(answer)


def test_a_complete_request_is_answered_and_the_connection_closed(
    counter: Callable[..., Any],
) -> None:
    """The grant is one event with everything but the secret."""
    made = counter("exim")

    answer = EximDialogue(made.desk).answer(bytearray(REQUEST), PEER)

    assert Answer(b"^AKIAMAIN000000000000^main-password", close=True) == answer
    (event,) = made.events
    assert (Outcome.GRANTED, "exim", PEER) == (event.outcome, event.protocol, event.peer)
    assert ("main", 1, "1xVhDU-1") == (event.credential_id, event.version, event.message_id)
    assert "password" not in repr(event)


def test_an_answer_does_not_show_its_secret() -> None:
    """Its repr tells the length alone."""
    assert "Answer(<3 bytes>, close=True)" == repr(Answer(b"abc", close=True))


def test_the_senders_domain_chooses_the_credential(counter: Callable[..., Any]) -> None:
    """As the rules say."""
    line = REQUEST.replace(b"example.org", b"shop.example")

    answer = EximDialogue(counter("exim").desk).answer(bytearray(line), PEER)

    assert Answer(b"^AKIASHOP000000000000^shop-password", close=True) == answer


@pytest.mark.parametrize("end", range(len(REQUEST)))
def test_part_of_a_request_is_waited_for(counter: Callable[..., Any], end: int) -> None:
    """At every place it may be cut."""
    assert EximDialogue(counter("exim").desk).answer(bytearray(REQUEST[:end]), PEER) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (REQUEST.replace(b"TLS1.3", b""), Reason.NO_TLS),
        (REQUEST.replace(b"us-east-1", b"eu-west-1"), Reason.NO_CREDENTIAL),
        (b"plain other\n", Reason.NO_CREDENTIAL),
        (b"plain main\nmore", Reason.MALFORMED),
        (b"x" * (MAX_REQUEST_BYTES + 1), Reason.TOO_LONG),
    ],
)
def test_a_refusal_is_a_close_without_a_byte_and_one_event(
    counter: Callable[..., Any], line: bytes, reason: Reason
) -> None:
    """Exim would send any text of ours as AUTH."""
    made = counter("exim")

    assert CLOSE == EximDialogue(made.desk).answer(bytearray(line), PEER)
    assert [(Outcome.REFUSED, reason)] == [(e.outcome, e.reason) for e in made.events]


def test_a_session_without_tls_is_served_where_the_settings_allow_it(
    counter: Callable[..., Any],
) -> None:
    """`require_tls = false`."""
    desk = counter("exim", require_tls=False).desk

    answer = EximDialogue(desk).answer(bytearray(REQUEST.replace(b"TLS1.3", b"")), PEER)

    assert answer is not None
    assert answer.data


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: b"plainx " + rest + b"\n"))
def test_any_bytes_get_a_close_or_a_wait(data: bytes) -> None:
    """Fuzz: nothing that parses by accident names a credential that exists, nothing crashes."""
    try:
        question = parse_request(data)
    except Refused:
        return

    assert question.credential or question.host
    assert b"\n" == data[-1:]

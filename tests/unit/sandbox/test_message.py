"""Reading the header section of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.sandbox.message import Address, MessageError, read_message


def test_the_parts_of_a_message() -> None:
    """Headers, sender, configuration set and tags are found; the X-SES- headers are taken out."""
    message = read_message(
        b"Received: from a\r\n\tby b\r\n"
        b"From: =?utf-8?q?J=C3=BCrg?= <a@example.com>\r\n"
        b"X-SES-CONFIGURATION-SET: main\r\n"
        b"x-ses-message-tags: app=wp,\r\n site=shop-1\r\n"
        b"Subject: x\r\n\r\nX-SES-Message-Tags: body\r\n"
    )

    assert Address("Jürg", "a@example.com") == message.sender
    assert ("Received", "from a\tby b") == message.headers[0]
    assert message.configuration_set == "main"
    assert {"app": "wp", "site": "shop-1"} == message.tags
    assert message.delivered == (
        b"Received: from a\r\n\tby b\r\n"
        b"From: =?utf-8?q?J=C3=BCrg?= <a@example.com>\r\n"
        b"Subject: x\r\n\r\nX-SES-Message-Tags: body\r\n"
    )


def test_every_author_is_listed_once() -> None:
    """Addresses of From and Sender, in order."""
    message = read_message(b"From: a@x.y, B <b@x.y>\r\nSender: a@x.y\r\n\r\n")

    assert ("a@x.y", "b@x.y") == message.author_addresses


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"", "Missing required header 'From'."),
        (b"\r\nFrom: a@x.y\r\n", "Missing required header 'From'."),
        (b"Subject: x\r\n\r\n", "Missing required header 'From'."),
        (b" From: a@x.y\r\n\r\n", "Missing required header 'From'."),
        (b"From:\r\n\r\n", "Missing required header 'From'."),
        (b"From: somebody\r\n\r\n", "Missing final '@domain'."),
        (b"From: a@\r\n\r\n", "Missing final '@domain'."),
        (b"From: a@x.y\r\nFROM: b@x.y\r\n\r\n", "Duplicate header 'FROM'."),
        (b"From: a@x.y\r\nMIME-Version: 1\r\nMIME-Version: 1\r\n\r\n", "Duplicate header 'MIME-"),
        (b"From: a@x.y\r\nX-SES-MESSAGE-TAGS: a\r\n\r\n", "Illegal header 'X-SES-MESSAGE-TAGS'."),
    ],
)
def test_what_ses_refuses(content: bytes, reply: str) -> None:
    """A transaction failure names what is wrong."""
    with pytest.raises(MessageError) as caught:
        read_message(content)

    assert str(caught.value).startswith(f"554 Transaction failed: {reply}")


def test_headers_that_may_be_repeated() -> None:
    """Trace headers and unknown ones may occur often."""
    content = b"Received: a\r\nReceived: b\r\nX-A: 1\r\nX-A: 2\r\nFrom: a@x.y\r\n\r\n"

    assert len(read_message(content).headers) == 5


@pytest.mark.parametrize("word", ["=?bogus?q?x?=", "=?utf-8?b?=?=", "=?utf-8?b?A?="])
def test_an_encoded_word_that_cannot_be_decoded(word: str) -> None:
    """A display name that is broken does not cost the message."""
    assert read_message(f"From: {word} <a@x.y>\r\n\r\n".encode()).sender.address == "a@x.y"


def test_a_line_without_a_colon_ends_the_headers() -> None:
    """What is no header belongs to the body."""
    message = read_message(b"From: a@x.y\r\nnot a header\r\nSubject: x\r\n\r\n")

    assert (("From", "a@x.y"),) == message.headers


@given(st.binary(max_size=300))
def test_nothing_is_lost_and_nothing_crashes(noise: bytes) -> None:
    """Without X-SES- headers the delivered bytes are the bytes that came."""
    content = b"From: a@x.y\r\n" + noise
    try:
        message = read_message(content)
    except MessageError:
        return

    if b"x-ses" not in noise.lower():
        assert content == message.delivered

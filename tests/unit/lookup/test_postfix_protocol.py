"""Tests of `sesguard.lookup.postfix_protocol`."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.errors import VaultTampered
from sesguard.lookup.interface import CLOSE
from sesguard.lookup.model import Grant, Outcome, Reason, Refused
from sesguard.lookup.postfix_protocol import (
    MAX_REQUEST_BYTES,
    PostfixDialogue,
    host_of_key,
    netstring,
    reveal_pair,
    take_netstring,
)
from sesguard.system.peers import Peer

PEER = Peer(4711, 107, 114)
US = b"email-smtp.us-east-1.amazonaws.com"
GRANTED = b"OK AKIAMAIN000000000000:main-password"


def _ask(made: Any, *requests: bytes) -> list[bytes]:
    """The content of the replies to requests that were sent in one piece."""
    received = bytearray(b"".join(netstring(request) for request in requests))
    replies = []
    while (answer := PostfixDialogue(made.desk).answer(received, PEER)) is not None:
        assert not answer.close
        replies.append(take_netstring(bytearray(answer.data)) or b"")
    assert not received
    return replies


@pytest.mark.parametrize(
    "key", [US, b"[" + US + b"]:587", b"[" + US + b"]", US + b":submission", US.upper() + b"."]
)
def test_every_dress_of_the_host_gets_the_credential(
    counter: Callable[..., Any], key: bytes
) -> None:
    """The host itself and the next hop as it stands in relayhost."""
    made = counter("postfix")

    assert [GRANTED] == _ask(made, b"ses " + key)
    assert [(Outcome.GRANTED, "main", 1)] == [
        (event.outcome, event.credential_id, event.version) for event in made.events
    ]


def test_many_questions_on_one_connection_are_answered_in_order(
    counter: Callable[..., Any],
) -> None:
    """Also when they come in one piece."""
    assert [b"NOTFOUND ", GRANTED, b"NOTFOUND "] == _ask(
        counter("postfix"), b"ses mx.example.org", b"ses " + US, b"ses 192.0.2.1"
    )


@pytest.mark.parametrize(
    "key",
    [
        b"mx.example.org",
        b"[mx.example.org]:25",
        b"[2001:db8::1]",
        b"someone",
        b"",
        b"someone@other.example",
        b"@other.example",
        b"[[",
        b"x" + US,
        US + b".evil.example",
        b"\xff\xfe\0",
    ],
)
def test_what_is_not_ours_is_not_found_and_no_event(
    counter: Callable[..., Any], key: bytes
) -> None:
    """Postfix goes on to its next key, or sends to that host without AUTH, as it should."""
    made = counter("postfix")

    assert [b"NOTFOUND "] == _ask(made, b"ses " + key)
    assert [] == made.events


@pytest.mark.parametrize(
    "key",
    [
        b"email-smtp.ap-south-1.amazonaws.com",
        b"[email-smtp.ap-south-1.amazonaws.com]:587",
        b"[email-smtp.ap-south-1.amazonaws.com",
        b"[" + US + b"]]",
        US + b":587:25",
    ],
)
def test_an_ses_host_without_a_credential_is_a_temporary_failure(
    counter: Callable[..., Any], key: bytes
) -> None:
    """NOTFOUND would mean: no AUTH, 530, bounce. Odd spellings are no way around it."""
    made = counter("postfix")

    assert [b"TEMP no_credential"] == _ask(made, b"ses " + key)
    assert [Reason.NO_CREDENTIAL] == [event.reason for event in made.events]


def test_an_unusable_vault_is_a_temporary_failure(counter: Callable[..., Any]) -> None:
    """The reason is in the event, a word of it in Postfix's log."""
    made = counter("postfix")
    made.source.problem = VaultTampered("the vault was changed")

    assert [b"TEMP vault_unusable"] == _ask(made, b"ses " + US)
    assert ["the vault was changed"] == [event.detail for event in made.events]


def test_a_sender_whose_domain_a_rule_names_gets_its_credential(
    counter: Callable[..., Any],
) -> None:
    """With smtp_sender_dependent_authentication Postfix asks by sender first."""
    made = counter("postfix")

    assert [b"OK AKIASHOP000000000000:shop-password"] == _ask(made, b"ses who|ever@Shop.Example")
    assert ["shop"] == [event.credential_id for event in made.events]


def test_a_failing_lookup_by_sender_is_temporary(counter: Callable[..., Any]) -> None:
    """NOTFOUND would make Postfix use the credential of another sender."""
    made = counter("postfix")
    del made.source.versions["shop"]

    assert [b"TEMP no_credential"] == _ask(made, b"ses a@shop.example")


@pytest.mark.parametrize("name", [b"other", b"", b"SES"])
def test_another_map_is_a_permanent_failure(counter: Callable[..., Any], name: bytes) -> None:
    """A mistake in main.cf must not send mail without AUTH."""
    made = counter("postfix")

    assert [b"PERM no such map"] == _ask(made, name + b" " + US)
    assert [Reason.MALFORMED] == [event.reason for event in made.events]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x", Reason.MALFORMED),
        (b":", Reason.MALFORMED),
        (b"-1:", Reason.MALFORMED),
        (b"03:abc,", Reason.MALFORMED),
        (b" 3:abc,", Reason.MALFORMED),
        (b"3:abcd", Reason.MALFORMED),
        (b"3:abc\n", Reason.MALFORMED),
        (b"1234567", Reason.MALFORMED),
        (b"4097:", Reason.TOO_LONG),
        (b"100000:", Reason.TOO_LONG),
        (b"999999:", Reason.TOO_LONG),
    ],
)
def test_broken_framing_closes_the_connection(
    counter: Callable[..., Any], data: bytes, reason: Reason
) -> None:
    """Nothing after it could be understood."""
    made = counter("postfix")

    assert CLOSE == PostfixDialogue(made.desk).answer(bytearray(data), PEER)
    assert [reason] == [event.reason for event in made.events]


@pytest.mark.parametrize("end", range(len(netstring(b"ses " + US))))
def test_part_of_a_netstring_is_waited_for(counter: Callable[..., Any], end: int) -> None:
    """At every place it may be cut."""
    received = bytearray(netstring(b"ses " + US)[:end])

    assert PostfixDialogue(counter("postfix").desk).answer(received, PEER) is None
    assert end == len(received)


def test_the_longest_request_is_read(counter: Callable[..., Any]) -> None:
    """4096 bytes between colon and comma."""
    request = b"ses " + b"x" * (MAX_REQUEST_BYTES - 4)

    assert [b"NOTFOUND "] == _ask(counter("postfix"), request)


@given(st.lists(st.binary(max_size=50)), st.sampled_from([b"", b"x", b"12", b"3:ab"]))
def test_netstrings_come_out_as_they_went_in(contents: list[bytes], rest: bytes) -> None:
    """Law: take(wrap(x)) == x, one at a time, and what follows is left alone."""
    received = bytearray(b"".join(map(netstring, contents)) + rest)

    assert contents == [take_netstring(received) for _ in contents]
    assert rest == received


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_a_wait_or_a_refusal(data: bytes) -> None:
    """Fuzz: whatever is taken, wrapping it gives the bytes that were taken off."""
    received = bytearray(data)
    try:
        content = take_netstring(received)
    except Refused:
        return

    taken = b"" if content is None else netstring(content)
    assert data == taken + bytes(received)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("host", "host"),
        ("host:25", "host"),
        ("[host]", "host"),
        ("[host]:25", "host"),
        ("[2001:db8::1]:25", "2001:db8::1"),
        ("2001:db8::1", None),
        ("[host", None),
        ("host]", None),
        ("", None),
        (":25", None),
    ],
)
def test_the_host_is_read_from_a_key(key: str, expected: str | None) -> None:
    """With and without brackets and port."""
    assert expected == host_of_key(key)


@pytest.mark.parametrize(
    ("username", "password"),
    [("U:V", "p"), ("", "p"), ("U", ""), ("U", "p\0q"), ("U", "p\nq"), ("U\r", "p")],
)
def test_what_postfix_would_cut_or_split_is_refused(username: str, password: str) -> None:
    """It splits at the first colon; the password may hold one."""
    secret = Secret(password)
    version = CredentialVersion(3, username, {"us-east-1": secret}, "2026-01-01T00:00:00Z", "test")

    with pytest.raises(Refused, match="version 3 of credential main cannot be sent by Postfix"):
        reveal_pair(Grant("main", version, secret))
    assert b"OK U:p:q" == reveal_pair(
        Grant("main", CredentialVersion(3, "U", {"us-east-1": secret}, "", "test"), Secret("p:q"))
    )

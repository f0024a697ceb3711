"""Whom To, Cc and Bcc send to."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.relay.addresses import AddressFault, recipients


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", ()),
        (b" , ,", ()),
        (b"a@x.example", ("a@x.example",)),
        (b"A <a@x.example>, b@X.Example (B)", ("a@x.example", "b@x.example")),
        (b"old@x.example <new@x.example>", ("new@x.example",)),
        (
            b"friends: a@x.example, B <b@x.example>;, c@x.example",
            ("a@x.example", "b@x.example", "c@x.example"),
        ),
        (b"undisclosed-recipients:;", ()),
        (b"root, <www-data>, Admin <admin>", ("root", "www-data", "admin")),
        ("João <joão@x.example>".encode(), ("joão@x.example",)),
    ],
)
def test_each_mailbox_has_one_recipient(value: bytes, expected: tuple[str, ...]) -> None:
    """Names and groups are left out, and local users keep their bare names."""
    assert expected == recipients(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"<a@x.example",
        b"a@x.example>",
        b"<>",
        b"A <>",
        b'"a b"',
        b".a",
        b"a@x b@y",
        b"<a><b>",
    ],
)
def test_what_is_no_mailbox_is_refused(value: bytes) -> None:
    """Nothing is sent to a guess."""
    with pytest.raises(AddressFault):
        recipients(value)


@given(st.text(alphabet='ab@.<>(),:;" \\é', max_size=30))
def test_a_field_is_read_or_refused(value: str) -> None:
    """Nothing else comes of it, and no recipient holds what would end a command."""
    with contextlib.suppress(AddressFault):
        for one in recipients(value.encode()):
            assert not set(one) & set("<> \r\n")

"""Nobody sends as somebody else: a table of tricks, and the standard library as a second reader."""

import contextlib
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rigs.spoofs import HARMLESS, OWN, SPOOFS, Spoof, same_domain, shown_authors
from sesguard.relay.header import HeaderFault, read_header

IN_THE_HEADER = [spoof for spoof in SPOOFS if spoof.envelope_sender in (OWN, "")]


def test_the_table_is_as_long_as_promised() -> None:
    """There are more than a hundred tricks, each with a name of its own."""
    assert not [name for name, times in Counter(s.name for s in SPOOFS).items() if times > 1]
    assert len(SPOOFS) > 150
    assert {spoof.name for spoof in SPOOFS} >= HARMLESS


@pytest.mark.parametrize("spoof", IN_THE_HEADER, ids=lambda spoof: spoof.name)
def test_a_trick_does_not_make_a_message_of_the_victim(spoof: Spoof) -> None:
    """A trick is refused, or somebody whom A may not be is among its authors, or it is harmless."""
    header = None
    with contextlib.suppress(HeaderFault):
        header = read_header(spoof.header)

    passes = header is not None and all(a.endswith("@a.example") for a in header.authors)
    assert (spoof.name in HARMLESS) == passes
    if passes and header is not None:
        assert b"arn:" not in header.rewritten(b"")
        assert {OWN} == shown_authors(header.rewritten(b""))


_PIECES = st.sampled_from(
    [
        *(" ", "\t", "\r\n ", ",", ";", ":", "<", ">", "(", ")", '"', "\\", "@", ".", "[", "]"),
        *("a", "b.c", "a@a.example", "victim@b.example", "<a@a.example>", "Name ", "=?utf-8?Q?"),
        *(
            "?=",
            "=40",
            "=3C",
            "é",
            "＠",
            "%",
            "!",
            "'",
            "x@",
            "@y",
            '"q" ',
            "(c) ",
            "=?utf-8?B?QA==?=",
        ),
    ]
)
_VALUES = st.lists(_PIECES, max_size=12).map("".join)
_NAMES = st.sampled_from(["From", "Sender", "from ", "Resent-From", "X-Other", "Resent-Sender\t"])


@settings(max_examples=400)
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=3), _VALUES)
@example([], "a@a.example (b@b.example)")
@example([("Sender", "a@a.example")], '"b@b.example" <a@a.example>')
def test_the_standard_library_sees_no_author_that_was_not_judged(
    others: list[tuple[str, str]], value: str
) -> None:
    """In a header that is taken, every address that Python's readers find is among its authors."""
    fields = [("From", value), *others]
    block = "".join(f"{name}: {text}\r\n" for name, text in fields).encode() + b"\r\n"
    try:
        header = read_header(block)
    except HeaderFault:
        return

    assert shown_authors(block) <= {same_domain(author) for author in header.authors}


@given(st.binary(max_size=200), st.sampled_from([b"From: ", b"", b"From: a@a.example\r\n"]))
def test_no_octets_break_the_reader(octets: bytes, front: bytes) -> None:
    """Whatever comes, a header is read or refused."""
    with contextlib.suppress(HeaderFault):
        read_header(front + octets + b"\r\n\r\n")

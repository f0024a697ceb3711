"""Who the authors of a message are, and what is done to its header."""

import pytest

from sesguard.relay.header import MAX_FIELDS, Header, HeaderFault, read_header
from sesguard.relay.model import Reason, Refusal


def _block(*lines: str | bytes) -> bytes:
    return b"\r\n".join(x if isinstance(x, bytes) else x.encode() for x in (*lines, "", ""))


def _refusal(block: bytes) -> Refusal:
    with pytest.raises(HeaderFault) as caught:
        read_header(block)
    refusal = caught.value.refusal
    assert refusal.line().isascii()
    assert str(caught.value) == refusal.text
    return refusal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@a.example", ("a@a.example",)),
        ("<a@a.example>", ("a@a.example",)),
        ("Shop <a@a.example>", ("a@a.example",)),
        ("Shop<a@a.example>", ("a@a.example",)),
        ('"Shop, the" <a@a.example>', ("a@a.example",)),
        ("John Q. Public <J.Q@A.Example>", ("J.Q@a.example",)),
        ("=?utf-8?Q?Jo=C3=A3o?= <a@a.example>", ("a@a.example",)),
        ("=?utf-8?B?Sm/Do28=?= =?utf-8?B?Sm/Do28=?= <a@a.example>", ("a@a.example",)),
        ("João <a@a.example>", ("a@a.example",)),
        ("joão@é.example", ("joão@é.example",)),
        ("a@a.example (Shop)", ("a@a.example",)),
        ("a@a.example (Shop (the \\) one))", ("a@a.example",)),
        ("< a@a.example >", ("a@a.example",)),
        ("a@a.example <a@a.example>", ("a@a.example",)),
        ("x@a.example <y@a.example>", ("x@a.example", "y@a.example")),
        (
            "A <x@a.example>, B <y@a.example>,z@a.example",
            ("x@a.example", "y@a.example", "z@a.example"),
        ),
        ('"a.b"@a.example', ("a.b@a.example",)),
        ("a@[127.0.0.1]", ("a@[127.0.0.1]",)),
        ("root@localhost", ("root@localhost",)),
        ("o'neil+x=y_z/{a}@a.example", ("o'neil+x=y_z/{a}@a.example",)),
        ("Shop\r\n\t<a@a.example>", ("a@a.example",)),
        ('"Shop\r\n the" <a@a.example>', ("a@a.example",)),
    ],
)
def test_plain_authors_are_read(value: str, expected: tuple[str, ...]) -> None:
    """What apps write in earnest is read, without quotes, comments and folds."""
    assert expected == read_header(_block(f"From: {value}")).authors


def test_all_author_fields_count() -> None:
    """From, Sender and every Resent field name authors; other fields do not."""
    header = read_header(
        _block(
            "Reply-To: r@x.example",
            "Resent-Sender: d@x.example",
            "resent-from: c@x.example",
            "Resent-From: e@x.example",
            "SENDER: b@x.example",
            "To: t@x.example",
            "From : a@x.example",
        )
    )

    assert {f"{c}@x.example" for c in "abcde"} == set(header.authors)


def test_a_remembered_field_reads_the_same() -> None:
    """A second reading of the same From gives the same, and a long one is read as well."""
    long = '"' + "x" * 600 + '" <a@a.example>'

    assert read_header(_block(f"From: {long}")) == read_header(_block(f"From: {long}"))
    assert read_header(_block("From: b@a.example")) == read_header(_block("From: b@a.example"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no From field: add one"),
        (["To: a@a.example"], "no From field: add one"),
        (["From: a@a.example", "From: a@a.example"], "several From fields: leave one"),
        (["From: a@x.example", "Sender: a@x.example", "sender: a@x.example"], "several Sender"),
        (["From: x"], "no address"),
        (["From: A: a@a.example;"], "a group"),
        (["From: <@x.example:a@a.example>"], "an @ that belongs to no address"),
        (['From: "a <a@a.example>'], "a quote is not closed"),
        (["From: (a <a@a.example>"], "a comment is not closed"),
        (["From: a) a@a.example"], "a comment is closed"),
        (["From: [x] <a@a.example>"], "a bracket"),
        (["From: a\\b <a@a.example>"], "a backslash"),
        (["From: a@a.example b"], "do not make a list"),
        (["From: a..b@a.example"], "before the @"),
        (["From: a@a..example"], "the domain"),
        (["From: a@=?x?="], "encoded word"),
        ([f"From: {'a' * 312}@a.example"], "too long"),
        (["From: a＠b@a.example"], "pass for others"),
        ([b"From: \xe3 <a@a.example>"], "not UTF-8"),
        (["From: \u0085 <a@a.example>"], "control characters"),
    ],
)
def test_authors_that_cannot_be_told_are_refused(lines: list[str | bytes], words: str) -> None:
    """A From or Sender that is not read by all alike is refused, and the reply says why."""
    refusal = _refusal(_block(*lines) if lines else b"\r\n")

    assert (Reason.AUTHOR, 550, "5.7.1") == (refusal.reason, refusal.code, refusal.status)
    assert words in refusal.text


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["From: a@a.example", "hello"], "not a field"),
        (["From: a@a.example", ": x"], "not a field"),
        (["From: a@a.example", "X Y: x"], "not a field"),
        (["From: a@a.example", "Ü: x"], "not a field"),
        (["From: a@a.example", "n" * 81 + "ü: x"], "not a field"),
        (["From: a@a.example", " "], "white space"),
        (["From: a@a.example", ". \t"], "white space"),
        ([" x", "From: a@a.example"], "white space"),
        (["From: a@a.example", b"X: \x07"], "control characters"),
        (["From: a@a.example", b"X: \n y"], "bare line ends"),
        (["From: a@a.example", b"X: \r y"], "bare line ends"),
        (["From: a@a.example", "X: " + "x" * 996], "longer than 998 octets"),
        (["From: a@a.example", *["X: y"] * MAX_FIELDS], "more than 1,000 fields"),
        (["From: a@a.example", *["X:" + "y" * 990] * 265], "longer than 256 KiB"),
        (["From: a@a.example", "", "x: y"], "white space"),
    ],
)
def test_headers_that_are_read_differently_are_refused(
    lines: list[str | bytes], words: str
) -> None:
    """A header whose lines are not fields, or too many or too long, is refused."""
    refusal = _refusal(_block(*lines))

    assert (Reason.HEADER, 550, "5.6.0") == (refusal.reason, refusal.code, refusal.status)
    assert words in refusal.text


@pytest.mark.parametrize(
    "block", [b"", b"From: a@a.example", b"From: a@a.example\r\n", b"\r\n\r\n"]
)
def test_a_header_without_its_end_is_refused(block: bytes) -> None:
    """What does not end in one empty line is not a header."""
    assert Reason.HEADER is _refusal(block).reason


def test_other_fields_may_hold_what_apps_write() -> None:
    """Raw Latin-1 in a subject, an empty value and a name with odd characters do no harm."""
    block = _block(
        "From: a@a.example", b"Subject: Ol\xe1", "X-Empty:", "X!#~.y: z", "n" * 90 + ": 1"
    )

    assert Header(("a@a.example",), 0, block) == read_header(block)


def test_received_fields_are_counted_and_end_a_loop() -> None:
    """Thirty hosts are a long way, thirty-one a loop."""
    lines = ["Received: from x", " by y"] * 30

    assert 30 == read_header(_block(*lines, "From: a@a.example")).received
    refusal = _refusal(_block(*lines, "RECEIVED: z", "From: a@a.example"))
    assert (Reason.LOOP, 554, "5.4.6") == (refusal.reason, refusal.code, refusal.status)


def test_fields_are_put_in_front_of_an_unchanged_header() -> None:
    """Without fields for SES, the header goes on to the octet."""
    block = _block("From: a@a.example", "..dot: 1", "X-SESSION: 1", "X-Long:", "  folded")

    assert b"Front: 1\r\n" + block == read_header(block).rewritten(b"Front: 1\r\n")


def test_fields_for_ses_are_removed() -> None:
    """X-SES-* goes in any case, folded, with a space before the colon, and after a dot."""
    block = _block(
        "X-SES-SOURCE-ARN: arn",
        "From: a@a.example",
        "x-ses-from-arn:",
        " arn:",
        "\tidentity",
        "X-Kept:",
        " folded",
        "X-Ses-Configuration-Set : other",
        ".X-SES-MESSAGE-TAGS: app=other",
        "..X-SES-KEPT: two dots are one",
    )
    expected = _block(
        "Front: 1", "From: a@a.example", "X-Kept:", " folded", "..X-SES-KEPT: two dots are one"
    )

    assert expected == read_header(block).rewritten(b"Front: 1\r\n")


def test_a_long_hostile_field_is_read_in_no_time() -> None:
    """Deep comments, open quotes and runs of dots do not take more than linear time."""
    for value in ("(" * 990, '"' + "\\x" * 490, "a." * 490, "<" * 990, "a@" * 490, "\\" * 990):
        folded = [" " + value for _ in range(200)]

        assert Reason.AUTHOR is _refusal(_block("From:", *folded)).reason

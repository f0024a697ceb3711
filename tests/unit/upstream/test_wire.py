"""Replies and commands without a connection."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rigs.pool import envelope
from sesguard.core.secret import Secret
from sesguard.upstream.introduction import Introduction
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.wire import (
    NotSmtp,
    Offer,
    Redactor,
    ReplyReader,
    envelope_commands,
    find_unsayable,
)

NO = Reply(550, "no", Outcome.PERMANENT)


@given(
    replies=st.lists(
        st.tuples(
            st.integers(100, 999), st.lists(st.text("ab -", max_size=5), min_size=1, max_size=3)
        ),
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_replies_in_any_pieces(replies: list[tuple[int, list[str]]], cuts: list[int]) -> None:
    """Where the pieces are cut makes no difference."""
    wire = b""
    for code, lines in replies:
        marks = ["-"] * (len(lines) - 1) + [" "]
        for mark, line in zip(marks, lines, strict=True):
            wire += f"{code}{mark}{line}\r\n".encode()
    reader = ReplyReader()
    heard: list[tuple[int, bytes]] = []
    last = 0
    for cut in [*sorted(cuts), len(wire)]:
        heard += reader.feed(wire[last:cut])
        last = max(last, min(cut, len(wire)))

    expected = [(code, "\n".join(x.strip() for x in lines).encode()) for code, lines in replies]
    assert expected == heard
    assert not reader.is_within_reply


@given(st.binary(max_size=200))
def test_anything_is_replies_or_not_smtp(data: bytes) -> None:
    """No bytes make the reader fail in another way."""
    try:
        for code, text in ReplyReader().feed(data):
            assert 0 <= code <= 999
            assert b"\r\n" not in text
    except NotSmtp:
        pass


@pytest.mark.parametrize(
    "data",
    [b"hello\r\n", b"\r\n", b"25\r\n", b"250+x\r\n", b"250-a\r\n251 b\r\n", b"\xb2\xb3\xb4 x\r\n"],
)
def test_what_is_no_reply(data: bytes) -> None:
    """A code that is none, a mark that is none, and a code that changes are refused."""
    with pytest.raises(NotSmtp):
        ReplyReader().feed(data)


@pytest.mark.parametrize("piece", [b"250-" + b"x" * 1000 + b"\r\n", b"x" * 1000, b"250-\r\n"])
def test_a_reply_is_bounded(piece: bytes) -> None:
    """Whether in one line or many, 64 KiB are the most."""
    with pytest.raises(NotSmtp):
        _feed_for_ever(piece)


def _feed_for_ever(piece: bytes) -> None:
    reader = ReplyReader()
    for _ in range(70_000):
        reader.feed(piece)


def test_what_ehlo_offers() -> None:
    """Names count in any case, parameters where they matter; the greeting line does not."""
    offer = Offer.of_ehlo(b"PIPELINING\nstarttls\nAUTH LOGIN PLAIN\nSIZE 100\n\n8bitmime")

    assert Offer(starttls=True, auth_plain=True, size=True, eight_bit=True) == offer


ANYTHING = st.text(st.characters(), min_size=1, max_size=8)


@given(ANYTHING, ANYTHING, st.booleans())
@example("a", "\udce9.net", True)
def test_an_address_is_one_command(local: str, domain: str, utf8: bool) -> None:
    """Whatever an address holds, each command is one line, or the address is refused."""
    said = envelope(f"{local}@{domain}", sender=f"{domain}@{local}")
    if find_unsayable(said) is None:
        plan = envelope_commands(said, Offer(utf8=utf8), None)
        assert all(command.count(b"\r\n") == 1 for command in plan.commands)
        assert all(command.endswith(b"\r\n") for command in plan.commands)
        assert not any(b"\n" in command[:-2] or b"\0" in command for command in plan.commands)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("exämple.net", "xn--exmple-cua.net"),
        ("EXÄMPLE.net", "xn--exmple-cua.net"),
        ("straße.de", "xn--strae-oqa.de"),
        ("例え.jp", "xn--r8jz45g.jp"),
    ],
)
def test_a_unicode_domain_becomes_its_a_label(domain: str, expected: str) -> None:
    """As IDNA 2008 has it, so that ß stays another letter than ss."""
    plan = envelope_commands(envelope(f"a@{domain}"), Offer(), None)

    assert f"RCPT TO:<a@{expected}>\r\n".encode() == plan.commands[1]


@pytest.mark.parametrize("domain", ["ä" * 80 + ".net", "ä..net", "℀.net", "ä b.net", "ä>.net"])
def test_a_domain_that_is_none(domain: str) -> None:
    """What gives no host name is refused."""
    plan = envelope_commands(envelope(f"a@{domain}"), Offer(), None)

    assert [553] == [reply.code for reply in plan.refused.values()]


def test_a_text_without_the_password() -> None:
    """Every form that is known is taken out; no repr shows it."""
    redactor = Redactor("user", Secret("pass/word+1"))

    assert "a <secret> b <secret>" == redactor.clean(b"a pass/word+1 b pass%2Fword%2B1")
    assert "pass" not in repr(redactor)


def test_all_in_one_write() -> None:
    """With PIPELINING one recipient needs one write; several need two, so that none is begun."""
    offer = Offer(pipelining=True)
    one = Introduction(envelope(), offer, None, partial=False)
    two = Introduction(envelope("a@x.org", "b@x.org"), offer, None, partial=False)
    part = Introduction(envelope("a@x.org", "b@x.org"), offer, None, partial=True)

    assert [3, 3, 4] == [each.say().count(b"\r\n") for each in (one, two, part)]
    assert [True, False, True] == [each.data_said for each in (one, two, part)]
    assert b"DATA\r\n" == two.say()


def test_who_was_refused() -> None:
    """All or none ends with the first refusal; partial only when nobody is left."""
    for partial, expected in ((False, NO), (True, None)):
        said = Introduction(envelope("a@x.org", "b@x.org"), Offer(), None, partial=partial)
        said.say()
        said.hear_taken()
        said.say()
        said.hear_refused(NO)
        assert expected == said.refusal
        assert {"a@x.org": NO} == said.refused
        said.say()
        said.hear_refused(NO)
        assert NO == said.refusal

"""The text of a message: where it ends, what is a fault, what goes on."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigs.relay_laws import LIMIT, check_chunk_stream, check_dot_stream, read_one_message
from sesguard.relay.data_stream import LINE_ENDS, TOO_LARGE, ChunkStream, DotStream

SMUGGLED = b"MAIL FROM:<ceo@shop.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
FALSE_ENDS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "LF.CR": b"\n.\r",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF.CRCR": b"\r\n.\r\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\n",
    "CRLFLF.CRLF": b"\r\n\n.\r\n",
    "CRLF-NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL-CRLF": b"\r\n.\0\r\n",
    "CRNULLF.CRLF": b"\r\0\n.\r\n",
    "NUL": b"a\0b",
    "LF": b"a\nb",
    "CR": b"a\rb",
}
ODD_BYTES = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"\r\n.\r\n", b"\xff"]), max_size=24
).map(b"".join)
GOOD_TEXT = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\xc3\xa9"]), max_size=24).map(
    b"".join
)


def cuts(text: bytes) -> Iterator[Sequence[bytes]]:
    """The text whole, octet by octet, and cut in two and three at each place."""
    yield [text]
    yield [text[at : at + 1] for at in range(len(text))]
    for first in range(1, len(text)):
        yield [text[:first], text[first:]]
        yield [text[:first], text[first : first + 1], text[first + 1 :]]
        yield [text[:first], text[first : first + 2], b"", text[first + 2 :]]


def cut(data: st.DataObject, text: bytes) -> list[bytes]:
    """The text cut at places that Hypothesis chooses."""
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_smuggling_after_data(name: str) -> None:
    """No false end ends a message, at whatever packet boundary, and its message is refused."""
    text = b"Subject: x\r\n\r\nbody" + FALSE_ENDS[name] + SMUGGLED + b".\r\nQUIT\r\n"
    for pieces in cuts(text):
        stream = DotStream(LIMIT)
        payload = b"".join(map(stream.feed, pieces))
        assert LINE_ENDS == stream.fault
        assert stream.ended
        assert b"QUIT\r\n" == stream.rest
        assert FALSE_ENDS[name] not in payload
        assert b"ceo@" not in payload
        check_dot_stream(pieces)


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_smuggling_in_chunks(name: str) -> None:
    """A false end in BDAT is refused too, at whatever packet or chunk boundary."""
    text = b"Subject: x\r\n\r\nbody" + FALSE_ENDS[name] + SMUGGLED
    for pieces in cuts(text):
        check_chunk_stream([pieces])
        check_chunk_stream([[piece] for piece in pieces])
        stream = ChunkStream(LIMIT)
        stream.begin_chunk(len(text), True)
        payload = b"".join(map(stream.feed, pieces))
        assert LINE_ENDS == stream.fault
        assert stream.ended
        assert b"ceo@" not in payload


def test_a_true_end_in_a_chunk_is_text() -> None:
    """CRLF.CRLF has no meaning in BDAT: it goes on with a dot more, and is one message."""
    text = b"a\r\n.\r\n" + SMUGGLED
    for pieces in cuts(text):
        check_chunk_stream([pieces])
        check_chunk_stream([[piece] for piece in pieces])


@pytest.mark.parametrize("text", [b"", b"a\r\n", b"..\r\n", b".a\r\n", b"\r\n\r\n", b"a\r\n..\r\n"])
def test_texts_end_where_they_end(text: bytes) -> None:
    """What follows the true end is commands again, and the text goes on as it came."""
    for pieces in cuts(text + b".\r\n" + SMUGGLED):
        stream = DotStream(LIMIT)
        assert text == b"".join(map(stream.feed, pieces))
        assert (True, SMUGGLED, None) == (stream.ended, stream.rest, stream.fault)


def test_a_cr_at_the_end_of_a_piece_is_kept_back() -> None:
    """A CR goes on only together with its LF, and a dot only when it is not the end."""
    stream = DotStream(LIMIT)
    fed = [stream.feed(piece) for piece in (b"a\r", b"\n.", b"\r", b"x")]
    assert [b"a", b"\r\n", b"", b""] == fed
    assert LINE_ENDS == stream.fault


@pytest.mark.parametrize("name", [name for name in FALSE_ENDS if "." in name and "NUL" not in name])
def test_a_client_that_takes_a_false_end_for_the_end_need_not_wait(name: str) -> None:
    """The session can see that the client may be waiting for the reply to a bad message."""
    stream = DotStream(LIMIT)
    stream.feed(b"a\nb" + FALSE_ENDS[name])
    assert (LINE_ENDS, True, False) == (stream.fault, stream.seems_ended, stream.ended)
    stream.feed(b"c")
    assert not stream.seems_ended


def test_nothing_of_the_piece_with_the_fault_goes_on() -> None:
    """What stands before a bare LF in its piece is kept back with it."""
    stream = DotStream(LIMIT)
    assert [b"a\r\n", b"", b""] == [stream.feed(p) for p in (b"a\r\n", b"b\r\nc\nd", b"e\r\n")]
    assert not stream.ended


@pytest.mark.parametrize(("octets", "fault"), [(10, None), (11, TOO_LARGE)])
def test_the_limit(octets: int, fault: object) -> None:
    """A text of `limit` octets is taken, one more is too many, in both streams."""
    text = b"a" * (octets - 2) + b"\r\n"
    dots, chunks = DotStream(10), ChunkStream(10)
    dots.feed(text + b".\r\n")
    chunks.begin_chunk(len(text), True)
    chunks.feed(text)
    assert (fault, fault) == (dots.fault, chunks.fault)
    assert dots.ended
    assert chunks.ended


def test_an_empty_last_chunk_ends_the_message() -> None:
    """BDAT 0 LAST completes the last line of the chunk before."""
    stream = ChunkStream(LIMIT)
    stream.begin_chunk(1, False)
    assert b"a" == stream.feed(b"aBDAT 0 LAST\r\n")
    assert (True, False, b"BDAT 0 LAST\r\n") == (stream.chunk_ended, stream.ended, stream.rest)
    stream.begin_chunk(0, True)
    assert b"\r\n" == stream.feed(b"")
    assert stream.ended


def test_a_bare_cr_at_the_end_of_the_message_is_a_fault() -> None:
    """The last chunk may not end in half of a line end."""
    check_chunk_stream([[b"a\r"]])
    check_chunk_stream([[b"a\r"], [b""]])


def test_what_comes_after_the_end_is_not_lost() -> None:
    """Pieces fed after the end are added to the commands."""
    stream = DotStream(LIMIT)
    assert [b"", b""] == [stream.feed(b".\r\nRS"), stream.feed(b"ET\r\n")]
    assert b"RSET\r\n" == stream.rest
    chunks = ChunkStream(LIMIT)
    chunks.begin_chunk(1, True)
    assert [b"a\r\n", b""] == [chunks.feed(b"aRS"), chunks.feed(b"ET\r\n")]
    assert b"RSET\r\n" == chunks.rest


def test_little_is_kept_of_a_large_message() -> None:
    """No more than two octets stay from piece to piece, whatever has come."""
    stream = DotStream(LIMIT)
    for _ in range(400):
        stream.feed(b"x" * 9_998 + b"\r\n.\r"[: _ % 5])
        assert len(stream._kept) <= 2


@given(ODD_BYTES, st.data())
def test_splitting_does_not_matter_after_data(text: bytes, data: st.DataObject) -> None:
    """Any bytes in any pieces obey the laws of the text after DATA."""
    check_dot_stream(cut(data, text))
    check_dot_stream(cut(data, text + b"\r\n.\r\nQUIT\r\n"), limit=len(text))


@given(st.lists(ODD_BYTES, min_size=1, max_size=4), st.data())
def test_splitting_does_not_matter_in_chunks(chunks: list[bytes], data: st.DataObject) -> None:
    """Any bytes in any chunks and pieces obey the laws of BDAT."""
    check_chunk_stream([cut(data, chunk) for chunk in chunks])


@given(GOOD_TEXT, st.data())
def test_what_comes_out_is_one_message(text: bytes, data: st.DataObject) -> None:
    """What BDAT brought, read back from DATA by a strict reader, is the message that was sent."""
    chunks = ChunkStream(LIMIT)
    chunks.begin_chunk(len(text), True)
    wire = b"".join(map(chunks.feed, cut(data, text)))
    sent = text if not text or text.endswith(b"\r\n") else text + b"\r\n"
    dots = DotStream(LIMIT)
    again = b"".join(map(dots.feed, cut(data, wire + b".\r\n")))
    assert (sent, b"") == read_one_message(again + b".\r\n")
    assert (wire, None) == (again, dots.fault)

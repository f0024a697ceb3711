"""
What must hold for whatever a client of the relay sends, stated a second time and simply.

Each law takes the input in the pieces in which it arrives, and fails by AssertionError.
"""

import re
from collections.abc import Iterable, Sequence

from sesguard.relay.commands import (
    MAX_LINE_BYTES,
    CommandFault,
    CommandLines,
    decode_plain,
    parse_auth,
    parse_bdat,
    parse_mail,
    parse_rcpt,
    split_command,
)
from sesguard.relay.data_stream import ChunkStream, DotStream

LIMIT = 1 << 40
_END = re.compile(rb"(?:\A|(?<=\A\r\n)|(?<=[^\r]\r\n))\.\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SPACE_OUTSIDE_QUOTES = re.compile(r'\A(?:"(?:[^"\\]|\\.)*"|[^" ])*\Z')


def read_one_message(wire: bytes) -> tuple[bytes, bytes]:
    """
    Read wire form and its end as the strictest server would, line by line.

    Returns:
        The message, without the dots of the wire form, and what follows its end.
    """
    message = b""
    rest = wire
    while True:
        line, end, rest = rest.partition(b"\r\n")
        assert end, "no end of the message"
        assert not _BARE.search(line), "a line end that some programs see and some do not"
        if line == b".":
            return message, rest
        message += line.removeprefix(b".") + end


def check_dot_stream(pieces: Sequence[bytes], limit: int = LIMIT) -> None:
    """The text after DATA: where it ends, what is wrong with it, what goes on."""
    whole = b"".join(pieces)
    stream = DotStream(limit)
    payload = b""
    for piece in pieces:
        given = stream.feed(piece)
        assert stream.fault is None or given == b""
        payload += given
    end = _END.search(whole)
    assert stream.ended == (end is not None)
    assert not _BARE.search(payload)
    if end is None:
        assert whole.startswith(payload)
        assert stream.fault or whole[len(payload) :] in (b"", b"\r", b".", b".\r")
        return
    text = whole[: end.start()]
    assert stream.rest == whole[end.end() :]
    assert stream.size == len(text)
    assert (stream.fault is not None) == bool(_BARE.search(text) or len(text) > limit)
    if stream.fault is None:
        assert payload == text
        read_one_message(payload + b".\r\n")


def check_chunk_stream(chunks: Iterable[Sequence[bytes]], after: bytes = b"QUIT\r\n") -> None:
    """The text in chunks, each in pieces; the last chunk is the last of the message."""
    chunks = list(chunks)
    text = b"".join(b"".join(pieces) for pieces in chunks)
    stream = ChunkStream(LIMIT)
    payload = b""
    for number, pieces in enumerate(chunks, 1):
        stream.begin_chunk(sum(map(len, pieces)), number == len(chunks))
        for piece in [*pieces[:-1], b"".join(pieces[-1:]) + after]:
            given = stream.feed(piece)
            assert stream.fault is None or given == b""
            payload += given
        assert stream.chunk_ended
        assert stream.ended == (number == len(chunks))
        assert stream.rest == after
    assert stream.size == len(text)
    assert not _BARE.search(payload)
    assert (stream.fault is not None) == bool(_BARE.search(text))
    if stream.fault is None:
        complete = text if text.endswith(b"\r\n") or not text else text + b"\r\n"
        assert (complete, b"") == read_one_message(payload + b".\r\n")


def lines_of(pieces: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> list[bytes]:
    """The command lines that are accepted, checked for what no line may hold."""
    lines = CommandLines(limit)
    accepted = []
    for piece in pieces:
        lines.feed(piece)
        # Each octet can be at fault once; another round would never end.
        for _ in range(len(piece) + 3):
            try:
                line = lines.next()
            except CommandFault:
                continue
            if line is None:
                break
            assert not _BARE.search(line)
            assert len(line) + 2 <= limit
            accepted.append(line)
        else:
            raise AssertionError("a fault is told again and again")
    return accepted


def check_lines(pieces: Sequence[bytes]) -> None:
    """Splitting does not matter; only CRLF ends a line, and each good line is given."""
    whole = b"".join(pieces)
    good = [
        line
        for line in whole.split(b"\r\n")[:-1]
        if not re.search(rb"[\r\n\0]", line) and len(line) + 2 <= MAX_LINE_BYTES
    ]
    assert good == lines_of(pieces)


def check_command(line: bytes) -> None:
    """Nothing but CommandFault comes of a line, and what is accepted is safe to write again."""
    verb, argument = split_command(line)
    assert verb == verb.upper()
    for utf8 in (False, True):
        _check_rcpt(argument, utf8=utf8)
    _check_mail(argument)
    for parse in (parse_bdat, parse_auth, decode_plain):
        try:
            parse(argument)
        except CommandFault as fault:
            _check_reply(fault)


def _check_mail(argument: bytes) -> None:
    try:
        command = parse_mail(argument)
    except CommandFault as fault:
        _check_reply(fault)
        return
    assert command.utf8 or command.sender.isascii()
    words = [f"FROM:<{command.sender}>"]
    words += [] if command.size is None else [f"SIZE={command.size}"]
    words += ["BODY=8BITMIME"] * command.eight_bit + ["SMTPUTF8"] * command.utf8
    words += [f"ENVID={command.envelope_id}"] if command.envelope_id else []
    _check_address(command.sender, may_be_empty=True)
    assert command.envelope_id.isascii()
    assert not re.search(r"[^!-~]", command.envelope_id)
    assert command == parse_mail(" ".join(words).encode())


def _check_rcpt(argument: bytes, *, utf8: bool) -> None:
    try:
        recipient = parse_rcpt(argument, utf8)
    except CommandFault as fault:
        _check_reply(fault)
        return
    assert utf8 or recipient.address.isascii()
    _check_address(recipient.address)
    words = [f"TO:<{recipient.address}>"]
    words += [f"NOTIFY={','.join(recipient.notify)}"] if recipient.notify else []
    words += [f"ORCPT={recipient.original}"] if recipient.original else []
    assert not re.search(r"[^!-~]", recipient.original)
    assert recipient == parse_rcpt(" ".join(words).encode(), utf8)


def _check_address(address: str, *, may_be_empty: bool = False) -> None:
    if may_be_empty and not address:
        return
    assert not _UNSAFE.search(address)
    assert not re.search("[<>]", address)
    assert _SPACE_OUTSIDE_QUOTES.match(address)
    assert len(address.encode()) <= 254
    local, _, domain = address.rpartition("@")
    assert 1 <= len(local.encode()) <= 64
    assert 1 <= len(domain.encode()) <= 255
    assert not re.search(r"[\s\"\\,;@]", domain)


def _check_reply(fault: CommandFault) -> None:
    line = fault.refusal.line()
    assert re.fullmatch(rb"[45]\d\d [45]\.\d\.\d{1,2} [ -~]{1,400}\r\n", line)

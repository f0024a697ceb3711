"""Commands: what is accepted, how the rest is refused, what a line is."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigs.relay_laws import check_command, check_lines, lines_of
from sesguard.core.envelope import Notify, Recipient
from sesguard.core.secret import Secret
from sesguard.relay.commands import (
    CommandFault,
    CommandLines,
    MailCommand,
    decode_plain,
    parse_auth,
    parse_bdat,
    parse_mail,
    parse_rcpt,
    split_command,
)

E_ACUTE = "\xe9".encode()


def refusal_of_mail(argument: bytes) -> str:
    with pytest.raises(CommandFault) as caught:
        parse_mail(argument)
    refusal = caught.value.refusal
    return f"{refusal.code} {refusal.status}"


def refusal_of_rcpt(argument: bytes, *, utf8: bool = False) -> str:
    with pytest.raises(CommandFault) as caught:
        parse_rcpt(argument, utf8)
    refusal = caught.value.refusal
    return f"{refusal.code} {refusal.status}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"mail FROM:<a@b> ", (b"MAIL", b"FROM:<a@b>")),
        (b"QUIT", (b"QUIT", b"")),
        (b"RCPT  TO:<a@b>", (b"RCPT", b"TO:<a@b>")),
        (b"", (b"", b"")),
    ],
)
def test_split_command(line: bytes, expected: tuple[bytes, bytes]) -> None:
    """The verb is in upper case, the argument without spaces around it."""
    assert expected == split_command(line)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        # PHPMailer, swaks, CodeIgniter
        (b"FROM:<bounce@shop.example>", MailCommand("bounce@shop.example")),
        # Python's smtplib
        (b"FROM:<a@b.example> size=93", MailCommand("a@b.example", size=93)),
        # Exim
        (
            b"FROM:<> SIZE=2048 BODY=8BITMIME AUTH=<>",
            MailCommand("", size=2048, eight_bit=True),
        ),
        # Postfix
        (
            b"FROM:<a@b.example> SIZE=1 BODY=7BIT RET=HDRS ENVID=AB+2B1 SMTPUTF8",
            MailCommand("a@b.example", 1, False, True, "AB+2B1"),
        ),
        # Outlook and old scripts
        (b"From: <a@b.example>", MailCommand("a@b.example")),
        (b"FROM:<a@b.example> RET=FULL", MailCommand("a@b.example")),
        (b"FROM:<a..b.@docomo.example>", MailCommand("a..b.@docomo.example")),
        (b"FROM:<www-data@my_host>", MailCommand("www-data@my_host")),
        (b"FROM:<a@[192.0.2.1]>", MailCommand("a@[192.0.2.1]")),
        (b"FROM:<a@[IPv6:2001:db8::1]>", MailCommand("a@[IPv6:2001:db8::1]")),
        (b'FROM:<"john doe"@b.example>', MailCommand('"john doe"@b.example')),
        (b'FROM:<"a@c"@b.example>', MailCommand('"a@c"@b.example')),
        (
            b"FROM:<" + E_ACUTE + b"@" + E_ACUTE + b".example> SMTPUTF8",
            MailCommand("\xe9@\xe9.example", utf8=True),
        ),
    ],
)
def test_mail_that_clients_send(argument: bytes, expected: MailCommand) -> None:
    """What programs in use send is taken, with all that it says."""
    assert expected == parse_mail(argument)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"", "501 5.5.4"),
        (b"TO:<a@b.example>", "501 5.5.4"),
        (b"FROM a@b.example", "501 5.5.4"),
        (b"FROM:a@b.example", "501 5.1.7"),
        (b"FROM:<a@b.example", "501 5.1.7"),
        (b"FROM:<a@b.example>SIZE=1", "501 5.1.7"),
        (b"FROM:<a@b.example> SIZE", "501 5.5.4"),
        (b"FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        (b"FROM:<a@b.example> SIZE=1 size=1", "501 5.5.4"),
        (b"FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
        (b"FROM:<a@b.example> SMTPUTF8=1", "501 5.5.4"),
        (b"FROM:<a@b.example> RET=ALL", "501 5.5.4"),
        (b"FROM:<a@b.example> ENVID=a=b", "501 5.5.4"),
        (b"FROM:<a@b.example> ENVID=" + b"a" * 101, "501 5.5.4"),
        (b"FROM:<a@b.example> ENVID=\xff", "501 5.5.4"),
        (b"FROM:<a@b.example> XVERP", "555 5.5.4"),
        (b"FROM:<a@b.example> XCLIENT=1", "555 5.5.4"),
        (b"FROM:<a@b.example> \xff", "555 5.5.4"),
        (b"FROM:<a@b.example> =", "555 5.5.4"),
        (b"FROM:<root>", "501 5.1.7"),
        (b"FROM:<@a.example:c@d.example>", "501 5.1.7"),
        (b"FROM:<@a.example,@b.example:c@d.example>", "501 5.1.7"),
        (b"FROM:<a@b.example.>", "501 5.1.7"),
        (b"FROM:<a@.example>", "501 5.1.7"),
        (b"FROM:<a@b..example>", "501 5.1.7"),
        (b"FROM:<a@-b.example>", "501 5.1.7"),
        (b"FROM:<a b@b.example>", "501 5.1.7"),
        (b"FROM:<a@b.example c@d.example>", "501 5.1.7"),
        (b"FROM:<a@b.example,c@d.example>", "501 5.1.7"),
        (b"FROM:<a\t@b.example>", "501 5.1.7"),
        (b'FROM:<"a>"@b.example>', "501 5.1.7"),
        (b'FROM:<"a\x01"@b.example>', "501 5.1.7"),
        (b'FROM:<"a\\\x01"@b.example>', "501 5.1.7"),
        (b'FROM:<"a"b"@b.example>', "501 5.1.7"),
        (b"FROM:<a@[1.2.3]>", "501 5.1.7"),
        (b"FROM:<a@[IPv6:fe80::1%eth0]>", "501 5.1.7"),
        (b"FROM:<a@[x:y]>", "501 5.1.7"),
        (b"FROM:<" + b"a" * 65 + b"@b.example>", "501 5.1.7"),
        (b"FROM:<a@" + b"b" * 64 + b".example>", "501 5.1.7"),
        (b"FROM:<a@" + b"b." * 130 + b"example>", "501 5.1.7"),
        (b"FROM:<" + E_ACUTE + b"@b.example>", "553 5.6.7"),
        (b"FROM:<\xff@b.example> SMTPUTF8", "501 5.1.7"),
        (b"FROM:<a\xc2\x85@b.example> SMTPUTF8", "501 5.1.7"),
        ("FROM:<a\u2028@b.example> SMTPUTF8".encode(), "501 5.1.7"),
        ("FROM:<a\u202e@b.example> SMTPUTF8".encode(), "501 5.1.7"),
        ("FROM:<a@b\u3002example> SMTPUTF8".encode(), "501 5.1.7"),
        ("FROM:<a\uff20b.example> SMTPUTF8".encode(), "501 5.1.7"),
        ("FROM:<a@\uff42.example> SMTPUTF8".encode(), "501 5.1.7"),
        ("FROM:<" + "\xe9" * 33 + "@b.example> SMTPUTF8", "501 5.1.7"),
    ],
)
def test_mail_that_is_refused(argument: bytes | str, expected: str) -> None:
    """Each fault has its code; no malformed address gets through."""
    raw = argument.encode() if isinstance(argument, str) else argument
    assert expected == refusal_of_mail(raw)


@pytest.mark.parametrize("local", [b"a" * 64, b"a"])
def test_the_longest_address(local: bytes) -> None:
    """Local parts of 64 octets and addresses of 254 are taken, longer ones are not."""
    domain = b".".join([b"d" * 63] * 4)[: 254 - len(local) - 1]
    assert 254 == len(parse_mail(b"FROM:<" + local + b"@" + domain + b">").sender)
    assert "501 5.1.7" == refusal_of_mail(b"FROM:<" + local + b"@" + domain + b"d>")


@pytest.mark.parametrize(
    ("given_form", "kept"),
    [
        (b'"user"@b.example', "user@b.example"),
        (b'"us\\er"@b.example', "user@b.example"),
        (b'"us er"@b.example', '"us er"@b.example'),
        (b'"a\\\\\\"\\b"@b.example', '"a\\\\\\"b"@b.example'),
        (b'""@b.example', '""@b.example'),
    ],
)
def test_needless_quotes_are_dropped(given_form: bytes, kept: str) -> None:
    """One mailbox has one form, so that no rule of an app is got round by quoting."""
    assert kept == parse_rcpt(b"TO:<" + given_form + b">", False).address


def test_rcpt_with_what_dsn_asks_for() -> None:
    """NOTIFY and ORCPT are kept as they were given."""
    assert Recipient(
        "a@b.example", frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;x+2B@b.example"
    ) == parse_rcpt(b"TO:<a@b.example> NOTIFY=success,FAILURE ORCPT=rfc822;x+2B@b.example", False)
    assert frozenset({Notify.NEVER}) == parse_rcpt(b"TO:<a@b> NOTIFY=NEVER", False).notify


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"TO:<>", "501 5.1.3"),
        (b"TO:user@example.com", "501 5.1.3"),
        (b"FROM:<a@b>", "501 5.5.4"),
        (b"TO:<user>", "501 5.1.3"),
        (b"TO:<postmaster>", "550 5.1.1"),
        (b"TO:<PostMaster>", "550 5.1.1"),
        (b"TO:<" + E_ACUTE + b"@b.example>", "553 5.6.7"),
        (b"TO:<a@b> NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        (b"TO:<a@b> NOTIFY=", "501 5.5.4"),
        (b"TO:<a@b> ORCPT=a@b", "501 5.5.4"),
        (b"TO:<a@b> SIZE=1", "555 5.5.4"),
    ],
)
def test_rcpt_that_is_refused(argument: bytes, expected: str) -> None:
    """RCPT has the codes of the recipient."""
    assert expected == refusal_of_rcpt(argument)


def test_a_recipient_outside_of_ascii_needs_smtputf8() -> None:
    """With SMTPUTF8 the same recipient is taken."""
    assert "\xe9@b.example" == parse_rcpt(b"TO:<" + E_ACUTE + b"@b.example>", True).address


@pytest.mark.parametrize(
    ("argument", "expected"),
    [(b"0", (0, False)), (b"86 LAST", (86, True)), (b"1  last", (1, True))],
)
def test_bdat(argument: bytes, expected: tuple[int, bool]) -> None:
    """BDAT has a size and perhaps LAST."""
    assert expected == parse_bdat(argument)


@pytest.mark.parametrize("argument", [b"", b"-1", b"+1", b"1 2", b"1LAST", b"0x10", b"9" * 19])
def test_bdat_that_is_refused(argument: bytes) -> None:
    """A size that cannot be told is a fault."""
    with pytest.raises(CommandFault):
        parse_bdat(argument)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"login", ("LOGIN", None)),
        (b"PLAIN AGEAYg==", ("PLAIN", b"AGEAYg==")),
        (b"PLAIN =", ("PLAIN", b"=")),
    ],
)
def test_auth(argument: bytes, expected: tuple[str, bytes | None]) -> None:
    """AUTH has a mechanism and perhaps a response, still in base64."""
    assert expected == parse_auth(argument)


@pytest.mark.parametrize("argument", [b"", b"PLAIN a b", b"PLAIN \xff", b"PL/AIN"])
def test_auth_that_is_refused(argument: bytes) -> None:
    """Anything else is a fault."""
    with pytest.raises(CommandFault):
        parse_auth(argument)


@pytest.mark.parametrize("identity", [b"", b"shop"])
def test_plain(identity: bytes) -> None:
    """User name and token come out, the token as a secret."""
    assert ("shop", Secret("a token")) == decode_plain(identity + b"\0shop\0a token")


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (b"", 501),
        (b"shop\0a token", 501),
        (b"\0shop\0a token\0", 501),
        (b"\0\0a token", 501),
        (b"\0shop\0", 501),
        (b"\0sh\nop\0a token", 501),
        (b"\0shop\0a token\xff", 501),
        (b"root\0shop\0a token", 535),
        (b"\xff\0shop\0a token", 535),
    ],
)
def test_plain_that_is_refused(response: bytes, code: int) -> None:
    """A malformed response is refused, and its fault holds nothing of the token."""
    with pytest.raises(CommandFault) as caught:
        decode_plain(response)
    assert code == caught.value.refusal.code
    assert caught.value.__context__ is None
    assert "token\\" not in repr(caught.value.args)
    assert "a token" not in str(caught.value)


def test_pipelined_lines() -> None:
    """What comes in one piece is cut into lines, and the rest is given for the text."""
    lines = CommandLines()
    lines.feed(b"MAIL FROM:<a@b>\r\nDATA\r\nSubject: x")
    assert [b"MAIL FROM:<a@b>", b"DATA", None] == [lines.next(), lines.next(), lines.next()]
    assert b"Subject: x" == lines.take_rest()
    lines.feed(b"QUIT\r\n")
    assert b"QUIT" == lines.next()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\0", b"\n\n", b"\r\r", b"\n\r"])
def test_what_is_hidden_behind_a_false_line_end_is_no_command(end: bytes) -> None:
    """The whole line is thrown away, to its CRLF, at whatever packet boundary."""
    text = b"NOOP" + end + b"RSET\r\nQUIT\r\n"
    for at in range(len(text)):
        assert [b"QUIT"] == lines_of([text[:at], text[at:]])
    assert [b"QUIT"] == lines_of([text[at : at + 1] for at in range(len(text))])


def test_a_client_with_bare_lf_hears_of_it_at_once() -> None:
    """A line that ends with LF is answered without waiting for a CRLF, each time."""
    lines = CommandLines()
    for _ in range(3):
        lines.feed(b"EHLO x\n")
        with pytest.raises(CommandFault):
            lines.next()
        assert lines.next() is None


def test_long_lines() -> None:
    """A line may have 4096 octets with its CRLF, and a client that logs in sets its own limit."""
    longest = b"a" * 4094
    assert [longest, b"QUIT"] == lines_of([longest + b"\r\n", b"a" + longest + b"\r\nQUIT\r\n"])
    assert [b"a" + longest] == lines_of([b"a" + longest + b"\r\n"], limit=12288)
    assert [b"QUIT"] == lines_of([b"a" * 3000] * 5 + [b"\r", b"\nQUIT\r\n"])


def test_little_is_kept_of_an_endless_line() -> None:
    """A line that never ends costs no more memory than the longest line."""
    lines = CommandLines()
    for _ in range(1000):
        lines.feed(b"a" * 1000)
        with contextlib.suppress(CommandFault):
            assert lines.next() is None
        assert len(lines._buffer) <= lines.limit


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    """Nothing but CommandFault comes of any line."""
    for verb in (b"", b"MAIL FROM:<", b"RCPT TO:<", b"MAIL FROM:<a@b> "):
        check_command(verb + line)


@given(
    st.text(alphabet=st.sampled_from('ab@."\\ []:;,<>\u3002\uff20\xe9\u200b%!\x7f'), max_size=20)
)
def test_what_is_accepted_is_safe_to_write_again(path: str) -> None:
    """An accepted address can stand in a command and is read as the same address."""
    check_command(f"MAIL FROM:<{path}> SMTPUTF8".encode())
    check_command(f"RCPT TO:<{path}>".encode())


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"NOOP", b"x" * 2000]), max_size=20))
def test_splitting_lines_does_not_matter(pieces: list[bytes]) -> None:
    """The same lines come out however they come in."""
    check_lines(pieces)
    check_lines([b"".join(pieces)])

"""What is said on every listener: greetings, extensions, commands and chunks, reply by reply."""

import socket
from pathlib import Path

import pytest

from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RunningRelay, StartRelay
from rigs.relay_wire import RECIPIENT, TEXT, envelope, wire
from sesguard.sandbox.model import Fault, FaultKind, Stage

LISTENERS = ("v4", "v6", "unix", "lmtp")
HELLO = {"lmtp": b"LHLO client.test"}


def connect(relay: RunningRelay, listener: str) -> socket.socket:
    """A connection to one of the listeners."""
    if listener in ("v4", "v6"):
        return relay.host.tcp(v6=listener == "v6")
    return relay.host.unix(relay.host.lmtp_socket if listener == "lmtp" else None)


@pytest.fixture
def passing(relays: StartRelay) -> RunningRelay:
    """A relay whose app is in the mode `pass`."""
    return relays(apps=ROOT_MAY_PASS)


@pytest.fixture
def spooling(relays: StartRelay) -> RunningRelay:
    """A relay whose app is in the mode `spool`."""
    return relays(apps=ROOT_MAY_SPOOL)


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("mode", ["passing", "spooling"])
def test_mail_goes_on_from_every_listener(
    mode: str, listener: str, request: pytest.FixtureRequest
) -> None:
    """TCP over v4 and v6, a Unix socket with SMTP and one with LMTP: all take mail."""
    relay: RunningRelay = request.getfixturevalue(mode)
    with wire(connect(relay, listener), HELLO.get(listener, b"EHLO client.test")) as client:
        assert client.send().startswith(b"250 2.0.0 ")
    [message] = relay.received()
    assert ("app@example.com", (RECIPIENT,)) == (message.envelope_sender, message.recipients)


def test_extensions_are_those_that_work(passing: RunningRelay, spooling: RunningRelay) -> None:
    """STARTTLS is not offered, and DSN only where the mail lies in our own queue."""
    offers = []
    for relay in (passing, spooling):
        with wire(relay.host.tcp(), hello=None) as client:
            lines = client.hello().decode().splitlines()
            assert client.ask(b"STARTTLS\r\n").startswith(b"502 ")
            offers.append({line[4:] for line in lines[1:]})
    common = {"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 41943040", "ENHANCEDSTATUSCODES"}
    common |= {"CHUNKING", "AUTH PLAIN LOGIN"}
    assert [common, common | {"DSN"}] == offers


@pytest.mark.parametrize(
    ("listener", "hello", "code"),
    [
        ("v4", b"HELO a", 250),
        ("v4", b"EHLO a", 250),
        ("v4", b"ehlo [127.0.0.1]", 250),
        ("v4", b"LHLO a", 500),
        ("lmtp", b"LHLO a", 250),
        ("lmtp", b"EHLO a", 500),
        ("lmtp", b"HELO a", 500),
    ],
)
def test_each_protocol_has_its_own_hello(
    passing: RunningRelay, listener: str, hello: bytes, code: int
) -> None:
    """HELO and EHLO belong to SMTP, LHLO to LMTP, and only after them mail is taken."""
    with wire(connect(passing, listener), hello=None) as client:
        assert client.hear().startswith(b"220 ")
        assert client.ask(b"MAIL FROM:<app@example.com>\r\n").startswith(b"503 5.5.1")
        assert code == int(client.ask(hello + b"\r\n")[:3])
        taken = client.ask(b"MAIL FROM:<app@example.com>\r\n")
        assert (250 if code == 250 else 503) == int(taken[:3])


def test_reply_of_many_lines_comes_in_one_piece(passing: RunningRelay) -> None:
    """One read gives all lines of the reply to EHLO."""
    with wire(passing.host.tcp(), hello=None) as client:
        client.hear()
        client.say(b"EHLO client.test\r\n")
        assert client.hear_piece().endswith(b"250 AUTH PLAIN LOGIN\r\n")


def test_replies_to_pipelined_commands_come_in_one_piece(passing: RunningRelay) -> None:
    """MAIL, RCPT and DATA in one packet are answered in one."""
    with wire(passing.host.tcp()) as client:
        client.say(envelope() + b"DATA\r\n")
        replies = client.hear_piece().splitlines()
        assert [b"250", b"250", b"354"] == [line[:3] for line in replies]
        assert client.ask(TEXT + b".\r\n").startswith(b"250 ")


@pytest.mark.parametrize("mode", ["passing", "spooling"])
def test_whole_conversation_in_one_packet(mode: str, request: pytest.FixtureRequest) -> None:
    """A client may send three messages and QUIT without reading, and hears everything in order."""
    relay: RunningRelay = request.getfixturevalue(mode)
    with wire(relay.host.tcp()) as client:
        client.say((envelope() + b"DATA\r\n" + TEXT + b".\r\n") * 3 + b"QUIT\r\n")
        assert [250, 250, 354, 250] * 3 + [221] == client.hear_codes(13)
        assert b"" == client.hear_end()
    assert 3 == len(relay.received(3))


def test_client_that_closes_its_half_hears_the_reply(passing: RunningRelay) -> None:
    """A client that has said all and shuts its side down is answered, and then let go."""
    with wire(passing.host.tcp()) as client:
        client.say(envelope() + b"DATA\r\n" + TEXT + b".\r\n")
        client.channel.shutdown(socket.SHUT_WR)
        assert [250, 250, 354, 250] == client.hear_codes(4)
        assert b"" == client.hear_end()


@pytest.mark.parametrize("mode", ["passing", "spooling"])
def test_chunks_make_one_message(mode: str, request: pytest.FixtureRequest) -> None:
    """A message in three chunks, cut anywhere, arrives as it was, with its dots and last line."""
    relay: RunningRelay = request.getfixturevalue(mode)
    text = TEXT + b".\r\n..\r\n.x\r\nlast line without an end"
    first, second, third = text[:5], text[5:-20], text[-20:]
    with wire(relay.host.tcp()) as client:
        client.begin()
        for chunk, last in ((first, b""), (second, b""), (b"", b""), (third, b" LAST")):
            said = b"BDAT %d%s\r\n" % (len(chunk), last) + chunk
            assert client.ask(said).startswith(b"250 ")
        assert client.ask(b"QUIT\r\n").startswith(b"221 ")
    [message] = relay.received()
    assert relay.raw(message).endswith(text.partition(b"\r\n\r\n")[2] + b"\r\n")


def test_chunks_without_recipients_are_thrown_away(passing: RunningRelay) -> None:
    """The octets of a chunk that nobody wants are never taken for commands."""
    trap = b"QUIT\r\n" * 3
    with wire(passing.host.tcp()) as client:
        for before in (b"", b"MAIL FROM:<app@example.com>\r\n"):
            client.say(before + b"BDAT %d LAST\r\n" % len(trap) + trap)
            assert [250] * bool(before) + [503] == client.hear_codes(1 + bool(before))
        assert client.send().startswith(b"250 ")
    assert 1 == len(passing.received())


def test_recipient_after_a_chunk_comes_too_late(passing: RunningRelay) -> None:
    """The envelope has gone on by then: nobody hears 250 and gets nothing."""
    with wire(passing.host.tcp()) as client:
        client.begin()
        client.ask(b"BDAT %d\r\n" % len(TEXT) + TEXT)
        assert client.ask(b"RCPT TO:<late@example.net>\r\n").startswith(b"503 ")
        assert client.ask(b"BDAT 0 LAST\r\n").startswith(b"250 ")
    [message] = passing.received()
    assert ("user@example.net",) == message.recipients


def test_session_goes_on_after_a_chunk_that_is_thrown_away(passing: RunningRelay) -> None:
    """A message that was paused for the upstream and then refused holds nothing up."""
    large = TEXT + b"x" * 70_000 + b"\r\n"
    said = b"MAIL FROM:<app@example.com>\r\nRCPT TO:<user@example.net>\r\n"
    said += b"BDAT %d\r\n" % len(large) + large + b"BDAT 5 LAST\r\na\nb\r\n"
    with wire(passing.host.unix()) as client:
        client.say(said)
        assert [250, 250, 250, 550] == client.hear_codes(4)
        assert client.ask(b"NOOP\r\n").startswith(b"250 ")
    assert [] == passing.inbox()


def test_chunk_with_a_fault_is_told_at_its_end(passing: RunningRelay) -> None:
    """A bare LF in one of the chunks refuses the message, and the session goes on."""
    with wire(passing.host.tcp()) as client:
        client.begin()
        client.ask(b"BDAT %d\r\n" % len(TEXT) + TEXT)
        assert client.ask(b"BDAT 4 LAST\r\na\nb\n").startswith(b"550 5.6.11 ")
        assert client.send().startswith(b"250 ")
    assert 1 == len(passing.inbox())


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"5 FIRST", b"1" * 19])
def test_size_of_a_chunk_that_is_none_ends_the_session(
    passing: RunningRelay, argument: bytes
) -> None:
    """Nobody knows how many octets follow, so nothing more is read."""
    with wire(passing.host.tcp()) as client:
        client.begin()
        client.say(b"BDAT " + argument + b"\r\n" + TEXT + b"QUIT\r\n")
        heard = client.hear_end()
        assert heard.startswith(b"501 5.5.4")
        assert 1 == heard.count(b"\r\n")
    assert [] == passing.inbox()


def test_lmtp_answers_for_each_recipient(spooling: RunningRelay) -> None:
    """A message to three has three replies, and so has one that is refused."""
    recipients = ["a@example.net", "b@example.net", "c@example.net"]
    with wire(spooling.host.unix(spooling.host.lmtp_socket), b"LHLO client.test") as client:
        for text, code in ((TEXT, 250), (TEXT + b"bare\n\r\n", 550)):
            client.begin(recipients=recipients)
            assert client.ask(b"DATA\r\n").startswith(b"354")
            client.say(text + b".\r\n")
            assert [code] * 3 == client.hear_codes(3)
        assert client.ask(b"NOOP\r\n").startswith(b"250 ")
    [message] = spooling.received()
    assert tuple(recipients) == message.recipients


def test_lmtp_tells_which_recipient_was_refused(passing: RunningRelay) -> None:
    """What SES says of one recipient is said of that one; the others get the mail."""
    passing.rig.client.set_faults(Fault(Stage.RCPT, FaultKind.REPLY_451, count=1))
    with wire(passing.host.unix(passing.host.lmtp_socket), b"LHLO client.test") as client:
        client.begin(recipients=["a@example.net", "b@example.net"])
        assert client.ask(b"DATA\r\n").startswith(b"354")
        client.say(TEXT + b".\r\n")
        assert [451, 250] == client.hear_codes(2)
    [message] = passing.received()
    assert ("b@example.net",) == message.recipients


def test_recipient_that_ses_refused_is_refused_at_the_next_try(passing: RunningRelay) -> None:
    """
    SMTP has one reply for all recipients.

    The first try is deferred and not sent; at the second the refused one hears so at its RCPT.
    """
    mail = b"MAIL FROM:<app@example.com> SMTPUTF8\r\n"
    good, bad = b"RCPT TO:<a@example.net>\r\n", "RCPT TO:<é@example.net>\r\n".encode()
    with wire(passing.host.tcp()) as client:
        client.say(mail + good + bad + b"DATA\r\n")
        assert [250, 250, 250, 354] == client.hear_codes(4)
        assert client.ask(TEXT + b".\r\n").startswith(b"451 4.5.0 nothing was sent")
        assert [] == passing.inbox()
        client.say(mail + good + bad + b"DATA\r\n")
        assert [250, 250, 553, 354] == client.hear_codes(4)
        assert client.ask(TEXT + b".\r\n").startswith(b"250 ")
    [message] = passing.received()
    assert ("a@example.net",) == message.recipients


def test_dsn_parameters_are_taken_where_they_are_offered(spooling: RunningRelay) -> None:
    """A queue of our own can keep what ENVID and NOTIFY ask for, and RET is understood."""
    with wire(spooling.host.tcp()) as client:
        client.say(
            b"MAIL FROM:<app@example.com> RET=HDRS ENVID=abc\r\n"
            b"RCPT TO:<user@example.net> NOTIFY=FAILURE ORCPT=rfc822;user@example.net\r\nDATA\r\n"
        )
        assert [250, 250, 354] == client.hear_codes(3)
        assert client.ask(TEXT + b".\r\n").startswith(b"250 ")
    assert 1 == len(spooling.received())


def test_unix_sockets_are_open_to_all_and_their_directory_to_root(passing: RunningRelay) -> None:
    """Anybody may connect; nobody but root may put another socket there."""
    for path in (passing.host.unix_socket, passing.host.lmtp_socket):
        assert 0o666 == Path(path).stat().st_mode & 0o777
        assert 0o755 == path.parent.stat().st_mode & 0o777

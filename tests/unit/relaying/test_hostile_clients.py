"""Slow, silent, loud and vanishing clients: each is bounded, and nothing of theirs is left."""

import contextlib
import re
import socket
import ssl
import time
from pathlib import Path

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RunningRelay, StartRelay
from rigs.relay_wire import TEXT, envelope, wire

IMPATIENT = "command_timeout_s = 1.0\nsession_timeout_s = 3.0\nmax_connections = 5\n"
MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}


@pytest.fixture
def relay(relays: StartRelay) -> RunningRelay:
    """A relay with the limits that every host has."""
    return relays(apps=ROOT_MAY_PASS)


@pytest.fixture
def impatient(relays: StartRelay) -> RunningRelay:
    """A relay that waits for nobody and serves few."""
    return relays(apps=ROOT_MAY_PASS, relay=IMPATIENT)


def clients(relay: RunningRelay) -> float:
    """How many clients are connected."""
    return relay.numbers()["sesguard_relay_connections"]


def resident_kib(relay: RunningRelay, field: str = "VmRSS") -> int:
    """Memory of the daemon."""
    status = Path(f"/proc/{relay.daemon.pid}/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1])


def descriptors(relay: RunningRelay) -> int:
    """Open files of the daemon."""
    return len(list(Path(f"/proc/{relay.daemon.pid}/fd").iterdir()))


def test_silent_client_is_let_go(impatient: RunningRelay) -> None:
    """After the time for a command it hears 421, before and after hello and within a message."""
    stages = (b"", b"EHLO client.test\r\n", b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(wire(impatient.host.tcp(), hello=None)) for _ in stages]
        for client, said in zip(silent, stages, strict=True):
            client.say(said)
        for client in silent:
            assert client.hear_end().splitlines()[-1].startswith(b"421 4.4.2 ")
    assert [] == impatient.inbox()


@pytest.mark.parametrize("said", [b"", b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT])
def test_octet_now_and_then_does_not_help(impatient: RunningRelay, said: bytes) -> None:
    """Who sends an octet at a time is let go all the same: commands and messages have a time."""
    started = time.monotonic()
    with wire(impatient.host.tcp(), hello=None) as client:
        client.say(said)
        client.channel.settimeout(0.2)
        heard = b""
        while b"421" not in heard and time.monotonic() - started < 15:
            client.say(b"x")
            with contextlib.suppress(TimeoutError):
                heard += client.hear_piece()
    assert b"421 4.4.2 " in heard
    assert [] == impatient.inbox()


def test_too_many_clients_are_turned_away(impatient: RunningRelay) -> None:
    """One user has three of the five; when one of its clients has gone, another is served."""
    wait_until(lambda: clients(impatient) == 0, "no clients")
    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(wire(impatient.host.tcp())) for _ in range(3)]
        with wire(impatient.host.tcp(), hello=None) as fourth:
            assert fourth.hear_end().startswith(b"421 4.7.0 ")
        three[0].ask(b"QUIT\r\n")
        with wire(impatient.host.tcp()) as another:
            assert another.ask(b"NOOP\r\n").startswith(b"250 ")


@pytest.mark.parametrize(
    ("flood", "reply"),
    [
        (b"NOOP\r\n" * 500, b"421 4.7.0 Too many commands"),
        (b"RSET\r\n" * 500, b"421 4.7.0 Too many commands"),
        (b"EHLO a\r\n" * 500, b"421 4.7.0 Too many commands"),
        (b"MAIL FROM:<app@example.com>\r\nRSET\r\n" * 200, b"421 4.7.0 Too many commands"),
        (envelope(recipients=["a@b.example"] * 3000), b"421 4.7.0 Too many commands"),
        (b"BDAT 1\r\nx" * 500, b"421 4.7.0 Too many"),
        (b"NONSENSE\r\n" * 30, b"421 4.7.0 Too many errors"),
        (b"NOOP\n" * 30, b""),
        (b"a" * 5000 + b"\r\n" + b"x\r\n" * 30, b"421 4.7.0 Too many errors"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"421 4.7.0 Too many errors"),
        (b"POST /x HTTP/1.1\r\n\r\n" + envelope(), b"421 4.7.0 Too many errors"),
    ],
    ids=[
        "NOOP", "RSET", "EHLO", "MAIL and RSET", "RCPT", "BDAT", "errors", "LF", "long line", "GET",
        "POST",
    ],
)  # fmt: skip
def test_flood_of_commands_ends_the_session(
    impatient: RunningRelay, flood: bytes, reply: bytes
) -> None:
    """Commands without a message, errors and what browsers say end the session with 421."""
    with wire(impatient.host.unix()) as client:
        client.say(flood)
        assert client.hear_end().splitlines()[-1].startswith(reply or b"421 4.")
    assert [] == impatient.inbox()


@pytest.mark.parametrize(
    "line",
    [
        b"PATCH / HTTP/1.1",
        b"DELETE / HTTP/1.1",
        b"TRACE / HTTP/1.0",
        b"PRI * HTTP/2.0",
        b"BREW /pot HTTP/1.1",
        b"NOOP / HTTP/1.1",
        b"EHLO / HTTP/1.1",
    ],
)
def test_browser_is_hung_up_on_at_its_first_line(impatient: RunningRelay, line: bytes) -> None:
    """Whatever verb a web page makes it say: what follows may be commands that the page wrote."""
    with wire(impatient.host.tcp(), hello=None) as client:
        client.say(line + b"\r\nHost: localhost\r\n\r\nEHLO a\r\n" + envelope())
        assert [b"220", b"421"] == [reply[:3] for reply in client.hear_end().splitlines()]


def test_client_that_begins_tls_is_hung_up_on(relay: RunningRelay) -> None:
    """It hears no lines of errors that it would take for a broken handshake, and waits for none."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    with wire(relay.host.tcp(), hello=None) as client:
        client.say(outgoing.read())
        heard = client.hear_end()
        assert heard.startswith(b"220 ")
        assert 1 == heard.count(b"\r\n")


def test_twenty_errors_are_too_many(relay: RunningRelay) -> None:
    """Nineteen are answered one by one."""
    with wire(relay.host.tcp()) as client:
        for _ in range(19):
            assert client.ask(b"NONSENSE\r\n").startswith(b"500 5.5.2 ")
        assert client.ask(b"NONSENSE\r\n").startswith(b"421 4.7.0 ")
        assert b"" == client.hear_end()


def test_many_refused_recipients_do_not_end_a_message(relay: RunningRelay) -> None:
    """A client that names 300 recipients hears 452 for those over the limit, and sends its mail."""
    recipients = [f"user{number}@example.net" for number in range(300)]
    with wire(relay.host.tcp()) as client:
        client.say(envelope(recipients=recipients) + b"DATA\r\n")
        assert [250] * 51 + [452] * 250 + [354] == client.hear_codes(302)
        assert client.ask(TEXT + b".\r\n").startswith(b"250 ")


def test_client_that_never_reads_costs_little(impatient: RunningRelay) -> None:
    """Its replies are bounded, it is not read from meanwhile, and nothing of it is left at last."""
    before, open_before = resident_kib(impatient), descriptors(impatient)
    with impatient.host.unix() as channel:
        channel.setblocking(False)
        sent, deadline = 0, time.monotonic() + 20
        batch = b"EHLO a\r\n" + (envelope() + b"DATA\r\nbad\r\n.\r\n") * 200
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while clients(impatient) and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    sent += channel.send(batch)
        assert time.monotonic() < deadline
        wait_until(lambda: descriptors(impatient) <= open_before, "its descriptor to be closed")
    assert resident_kib(impatient) - before < 8 * 1024


STAGES = {
    "before the greeting is read": b"",
    "after hello": b"EHLO a\r\n",
    "within AUTH": b"EHLO a\r\nAUTH LOGIN\r\n",
    "after MAIL": b"EHLO a\r\nMAIL FROM:<app@example.com>\r\n",
    "after RCPT": b"EHLO a\r\n" + envelope(),
    "after DATA": b"EHLO a\r\n" + envelope() + b"DATA\r\n",
    "within the header": b"EHLO a\r\n" + envelope() + b"DATA\r\nFrom: app@exa",
    "within the body": b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT,
    "before the last dot": b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT + b".",
    "before the last LF": b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT + b".\r",
    "within a long body": b"EHLO a\r\n" + envelope() + b"DATA\r\n" + TEXT + b"x" * 300_000,
    "within a chunk": b"EHLO a\r\n" + envelope() + b"BDAT 9999 LAST\r\n" + TEXT,
    "between chunks": b"EHLO a\r\n" + envelope() + b"BDAT %d\r\n" % len(TEXT) + TEXT,
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("mode", MODES)
def test_client_that_vanishes_leaves_nothing(
    relays: StartRelay, mode: str, how: str, stage: str
) -> None:
    """Before the last dot nothing is delivered; sessions and messages are given back."""
    relay = relays(apps=MODES[mode])
    with relay.host.tcp() as channel:
        channel.sendall(STAGES[stage])
        if how == "resets":
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: clients(relay) == 0, "the session to be gone")
    with wire(relay.host.tcp()) as client:
        assert client.send(to="witness@example.net").startswith(b"250 ")
    assert [("witness@example.net",)] == [each.recipients for each in relay.received()]
    wait_until(lambda: relay.numbers()["sesguard_relay_queue_messages"] == 0, "an empty queue")


def test_client_that_leaves_after_the_last_dot_has_sent(relay: RunningRelay) -> None:
    """The message was complete: it goes on, though nobody hears so."""
    with wire(relay.host.tcp()) as client:
        client.begin()
        client.ask(b"DATA\r\n")
        client.say(TEXT + b".\r\n")
    assert 1 == len(relay.received())


@pytest.mark.parametrize("mode", MODES)
def test_large_message_costs_no_memory(relays: StartRelay, mode: str) -> None:
    """Of 40 MB that stream through, the daemon holds a small part at any time."""
    relay = relays(apps=MODES[mode])
    block = (b"x" * 76 + b"\r\n") * 1000
    with wire(relay.host.tcp()) as client:
        client.send()
        before = resident_kib(relay)
        client.begin()
        client.ask(b"DATA\r\n")
        client.say(TEXT, *[block] * 512)
        assert client.ask(b".\r\n").startswith(b"250 ")
    sizes = sorted(message.size for message in relay.received(2))
    assert sizes[-1] > 39_000_000
    assert resident_kib(relay, "VmHWM") - before < 20 * 1024


def test_message_over_40_mib_is_refused(relay: RunningRelay) -> None:
    """Whatever the client says of its size, SES would not take it, and none of it goes on."""
    with wire(relay.host.tcp()) as client:
        assert client.ask(b"MAIL FROM:<app@example.com> SIZE=41943041\r\n").startswith(b"552 ")
        assert client.ask(b"MAIL FROM:<app@example.com> SIZE=1\r\n").startswith(b"250 ")
        client.ask(b"RCPT TO:<user@example.net>\r\n")
        client.ask(b"DATA\r\n")
        block = (b"x" * 76 + b"\r\n") * 1000
        client.say(TEXT, *[block] * 540)
        assert client.ask(b".\r\n").startswith(b"552 5.3.4 ")
    assert [] == relay.inbox()

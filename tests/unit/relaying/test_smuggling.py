"""
One message in, one message out: every form of smuggling, cut at every place.

Each form is a text in which some programs see an end, and commands of a second message behind it,
or something that is an end for nobody. The text is sent in two packets, cut at each place around
the form. SES must hold nothing of it, or exactly the text that a strict reader sees.
"""

import time

import pytest

from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RunningRelay, StartRelay
from rigs.relay_wire import TEXT, Wire, envelope, wire
from rigs.sandbox import eventually

MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}
SECOND = (
    envelope(recipients=["victim@example.net"])
    + b"DATA\r\nFrom: app@example.com\r\n\r\nsmuggled\r\n"
)
BAD_FORMS = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "CR . CR": b"\r.\r",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CRLF . CR": b"\r\n.\r",
    "LF . CR LF LF": b"\n.\r\n\n",
    "CR CR LF . CR LF": b"\r\r\n.\r\n",
    "CRLF . CR CR LF": b"\r\n.\r\r\n",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "NUL": b"a\0b",
    "CR": b"a\rb",
    "LF": b"a\nb",
}
GOOD_FORMS = {
    "CRLF .. CRLF": b"\r\n..\r\n",
    "CRLF . . CRLF": b"\r\n. .\r\n",
    "CRLF .x CRLF": b"\r\n..x\r\n",
    "space before": b"\r\n .\r\n",
}
PAUSE_S = 0.004


@pytest.fixture(params=MODES)
def relay(relays: StartRelay, request: pytest.FixtureRequest) -> RunningRelay:
    """A relay in each of the modes."""
    return relays(apps=MODES[request.param])


def cuts(text: bytes, form: bytes) -> list[int]:
    """Every place within the form and just around it."""
    start = text.index(form)
    return list(range(max(start - 1, 1), start + len(form) + 2))


def say_cut(client: Wire, text: bytes, at: int) -> None:
    """Send in two packets."""
    client.say(text[:at], text[at:], pause_s=PAUSE_S)


def settled(client: Wire) -> bytes:
    """The reply to the text, and whether the session is still in order: NOOP is answered once."""
    reply = client.hear()
    if reply[:1] != b"5":
        return reply
    rest = client.ask(b"NOOP\r\n")
    assert rest in (b"", b"250 2.0.0 Ok\r\n")
    return reply


@pytest.mark.parametrize("name", BAD_FORMS)
def test_no_form_ends_a_text_after_data(relay: RunningRelay, name: str) -> None:
    """Cut at any place, the message is refused as a whole and nothing behind the form is obeyed."""
    form = BAD_FORMS[name]
    text = TEXT + b"one" + form + SECOND + b".\r\n"
    for at in cuts(text, form):
        with wire(relay.host.tcp()) as client:
            client.begin()
            client.ask(b"DATA\r\n")
            say_cut(client, text, at)
            assert settled(client).startswith(b"550 5.6.11 ")
    with wire(relay.host.tcp()) as client:
        client.begin(recipients=["witness@example.net"])
        client.ask(b"DATA\r\n")
        assert client.ask(TEXT + b".\r\n").startswith(b"250 ")
    assert [("witness@example.net",)] == [each.recipients for each in relay.received()]


@pytest.mark.parametrize("name", BAD_FORMS)
def test_no_form_passes_in_a_chunk(relay: RunningRelay, name: str) -> None:
    """In BDAT the count ends the chunk; the forms are refused there as well, cut or not."""
    form = BAD_FORMS[name]
    text = TEXT + b"one" + form + SECOND
    for at in cuts(text, form):
        with wire(relay.host.tcp()) as client:
            client.begin()
            said = b"BDAT %d LAST\r\n" % len(text)
            say_cut(client, said + text, len(said) + at)
            assert client.hear().startswith(b"550 5.6.11 ")
            assert client.ask(b"NOOP\r\n").startswith(b"250 ")
            client.begin()
            client.say(b"BDAT %d\r\n" % at + text[:at])
            client.say(b"BDAT %d LAST\r\n" % (len(text) - at) + text[at:])
            assert client.hear()[:3] in (b"250", b"550")
            assert client.hear().startswith(b"550 5.6.11 ")
    assert [] == relay.inbox()


@pytest.mark.parametrize("name", GOOD_FORMS)
def test_what_is_no_end_is_passed_on(relay: RunningRelay, name: str) -> None:
    """Lines that only look like an end arrive within the one message, however it is cut."""
    form = GOOD_FORMS[name]
    text = TEXT + b"one" + form + b"two\r\n"
    wanted = text.replace(b"\r\n.", b"\r\n").partition(b"\r\n\r\n")[2]
    places = cuts(text, form)
    for at in places:
        with wire(relay.host.tcp()) as client:
            client.begin()
            client.ask(b"DATA\r\n")
            say_cut(client, text + b".\r\n", at)
            assert client.hear().startswith(b"250 ")
    messages = relay.received(len(places))
    bodies = {relay.raw(each).partition(b"\r\n\r\n")[2] for each in messages}
    assert (len(places), {wanted}) == (len(messages), bodies)


def test_end_is_seen_however_it_is_cut(relay: RunningRelay) -> None:
    """The true end and the next message behind it, one octet at a time: two messages."""
    text = TEXT + b".\r\n"
    with wire(relay.host.tcp()) as client:
        client.begin()
        client.ask(b"DATA\r\n")
        tail = text[-8:] + envelope()
        client.say(text[:-8], *(tail[i : i + 1] for i in range(len(tail))), pause_s=PAUSE_S)
        assert [250, 250, 250] == client.hear_codes(3)
        client.ask(b"DATA\r\n")
        assert client.ask(text).startswith(b"250 ")
    assert 2 == len(relay.received(2))


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\n\r"])
def test_commands_end_with_crlf_only(relay: RunningRelay, ending: bytes) -> None:
    """A line that ends otherwise is no command, and nothing in it is obeyed."""
    with wire(relay.host.tcp()) as client:
        client.say(envelope().replace(b"\r\n", ending) + b"\r\n")
        assert client.hear().startswith(b"500 ")
        assert client.ask(b"DATA\r\n")[:3] in (b"503", b"500")


def test_address_with_a_line_end_goes_nowhere(relay: RunningRelay) -> None:
    """An address cannot carry a command to SES."""
    with wire(relay.host.tcp()) as client:
        client.begin(recipients=[])
        for bad in (b"a\nRCPT TO:<b@example.net>", b"a\rb", b"a\0", b"a b", b"<a", b'"a\r"'):
            assert client.ask(b"RCPT TO:<" + bad + b"@example.net>\r\n").startswith(b"50")


def test_client_that_waits_after_a_broken_end_is_told(relay: RunningRelay) -> None:
    """A client whose lines end with LF would wait for ever; it hears the fault, and is let go."""
    with wire(relay.host.tcp()) as client:
        client.begin()
        client.ask(b"DATA\r\n")
        started = time.monotonic()
        client.say(TEXT.replace(b"\r\n", b"\n") + b".\n")
        assert client.hear().startswith(b"550 5.6.11 ")
        assert b"" == client.hear_end()
        assert time.monotonic() - started < 10
    eventually(
        lambda: [
            each
            for each in relay.daemon.events("relay.refused")
            if each.get("reason") == "line-ends"
        ]
    )

"""Who may send what: tokens, suspension, policy modes, rates, recipients, sizes, strangers."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import ROOT_MAY_PASS, RunningRelay, StartRelay
from rigs.relay_wire import RECIPIENT, TEXT, Wire, envelope, wire
from sesguard.relay.queue_desk import QueueDesk

APPS = (
    ROOT_MAY_PASS
    + """\
[apps.learner]
senders = ["learner@example.com"]
policy = "learn"
delivery = "pass"
per_minute = 1

[apps.holder]
senders = ["holder@example.com"]
policy = "hold"
delivery = "pass"

[apps.slow]
senders = ["*@example.com"]
per_minute = 60
delivery = "pass"

[apps.picky]
senders = ["*@example.com"]
allowed_recipients = ["*@example.net"]
denied_recipients = ["boss@example.net"]
max_recipients = 2
max_message_bytes = 1000

[apps.locked]
senders = ["*@example.com"]
delivery = "pass"

[apps.mute]
delivery = "pass"
"""
)
STRANGERS = APPS.replace('users = ["root"]\n', "")


@pytest.fixture
def relay(relays: StartRelay) -> RunningRelay:
    """A relay with one app for root and others that have tokens."""
    return relays(apps=APPS)


@contextmanager
def logged_in(relay: RunningRelay, app: str) -> Iterator[Wire]:
    """A client that logged in with a token of the app."""
    token = relay.host.registry().add_token(app).reveal()
    response = base64.b64encode(f"\0{app}\0{token}".encode())
    with wire(relay.host.tcp()) as client:
        assert client.ask(b"AUTH PLAIN " + response + b"\r\n").startswith(b"235 ")
        yield client


@pytest.mark.parametrize("mechanism", ["PLAIN", "PLAIN in two steps", "LOGIN"])
def test_token_names_its_app(relay: RunningRelay, mechanism: str) -> None:
    """With a token the client is its app, whoever runs it."""
    token = relay.host.registry().add_token("locked").reveal()
    plain = base64.b64encode(f"\0locked\0{token}".encode()) + b"\r\n"
    with wire(relay.host.tcp()) as client:
        if mechanism == "PLAIN":
            reply = client.ask(b"AUTH PLAIN " + plain)
        elif mechanism == "LOGIN":
            assert client.ask(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
            assert client.ask(base64.b64encode(b"locked") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
            reply = client.ask(base64.b64encode(token.encode()) + b"\r\n")
        else:
            assert client.ask(b"AUTH PLAIN\r\n") == b"334 \r\n"
            reply = client.ask(plain)
        assert b"235 2.7.0 Logged in\r\n" == reply
        assert client.ask(b"AUTH PLAIN " + plain).startswith(b"503 ")
        assert client.send().startswith(b"250 ")
    assert "locked" == relay.received()[0].tags["app"]
    assert token not in relay.daemon.log_path.read_text()


def test_wrong_tokens_slow_down_and_end_the_session(relay: RunningRelay) -> None:
    """Each wrong token waits twice as long, the third ends it; others are served meanwhile."""
    guess = b"AUTH PLAIN " + base64.b64encode(b"\0locked\0guess") + b"\r\n"
    started = time.monotonic()
    with wire(relay.host.tcp()) as client:
        # They are sent ahead, which must not help.
        client.say(guess * 4)
        with wire(relay.host.tcp()) as other:
            assert other.send().startswith(b"250 ")
        assert [535, 535, 421] == client.hear_codes(3)
        assert b"" == client.hear_end()
    assert time.monotonic() - started > 6
    with logged_in(relay, "locked") as client:
        assert client.send().startswith(b"250 ")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"AUTH CRAM-MD5\r\n", 504),
        (b"AUTH\r\n", 501),
        (b"AUTH PLAIN !\r\n", 501),
        (b"AUTH PLAIN =\r\n", 501),
        (b"AUTH LOGIN\r\n*\r\n", 334),
        (b"AUTH LOGIN AA==\r\n", 501),
        (b"AUTH PLAIN " + b"A" * 13000 + b"\r\n", 500),
    ],
)
def test_login_that_is_none(relay: RunningRelay, said: bytes, code: int) -> None:
    """What is no login is answered, and the session goes on as it was."""
    with wire(relay.host.tcp()) as client:
        client.say(said)
        assert [code] == client.hear_codes(1)
        if code == 334:
            assert client.hear().startswith(b"501 5.7.0 ")
        assert client.send().startswith(b"250 ")


def test_suspended_app_is_told_so_at_once(relay: RunningRelay) -> None:
    """The next MAIL is deferred, also in an open session; after `resume` mail goes on."""
    registry = relay.host.registry()
    with logged_in(relay, "locked") as client:
        assert client.send().startswith(b"250 ")
        registry.suspend("locked")
        assert client.send().startswith(b"450 4.7.1 ")
        registry.resume("locked")
        assert client.send().startswith(b"250 ")
    assert 2 == len(relay.received(2))


def test_app_suspended_within_a_message_sends_no_more(relay: RunningRelay) -> None:
    """What was begun before is not finished: nothing of it arrives."""
    registry = relay.host.registry()
    with logged_in(relay, "locked") as client:
        client.begin()
        client.ask(b"DATA\r\n")
        client.say(TEXT + b"x" * 200_000)
        registry.suspend("locked")
        assert client.ask(b"\r\n.\r\n").startswith(b"450 4.7.1 ")
        registry.resume("locked")
        assert client.send().startswith(b"250 ")
    [message] = relay.received()
    assert message.size < 1000


def test_learn_sends_and_notes(relay: RunningRelay) -> None:
    """What breaks a rule goes on all the same, and the log tells which rules it broke."""
    text = TEXT.replace(b"From: app@", b"From: else@")
    with logged_in(relay, "learner") as client:
        for _ in range(2):
            assert client.send(text, sender="other@example.com").startswith(b"250 ")
    assert 2 == len(relay.received(2))
    wait_until(lambda: [e for e in relay.daemon.events("relay.sent") if "noted" in e], "a note")
    noted = [each["noted"] for each in relay.daemon.events("relay.sent") if "noted" in each]
    assert ["sender, author", "sender, author, rate"] == noted[-2:]


def test_hold_keeps_it_for_a_person(relay: RunningRelay) -> None:
    """What breaks a rule is stored and waits; released, it is delivered as it was."""
    with logged_in(relay, "holder") as client:
        assert client.send(sender="other@example.com").startswith(b"250 ")
        assert client.send(TEXT.replace(b"app@", b"holder@"), "holder@example.com")[:3] == b"250"
    desk = QueueDesk(relay.host.spool_directory)
    [held] = desk.list_messages(only_held=True)
    assert ["holder@example.com"] == [each.envelope_sender for each in relay.received()]
    assert "other@example.com" in (held.hold_reason or "")
    desk.release([held.public_id])
    late = relay.received(2)[1]
    assert "other@example.com" == late.envelope_sender
    assert relay.raw(late).endswith(TEXT)


def test_over_the_rate_mail_is_deferred_and_later_taken(relay: RunningRelay) -> None:
    """One over the limit hears 450 and keeps its mail; when there is room, it is taken."""
    many = [f"user{number}@example.net" for number in range(30)]
    with logged_in(relay, "slow") as client:
        for _ in range(2):
            client.begin(recipients=many)
            client.ask(b"DATA\r\n")
            assert client.ask(TEXT + b".\r\n").startswith(b"250 ")
        client.begin(recipients=many[:2])
        client.ask(b"DATA\r\n")
        assert client.ask(TEXT + b".\r\n").startswith(b"450 ")
        wait_until(lambda: client.send().startswith(b"250 "), "room for one more")
    assert 61 == sum(len(each.recipients) for each in relay.received(3))


@pytest.mark.parametrize(
    ("recipients", "codes"),
    [
        (["user@example.net"], [250]),
        (["boss@example.net"], [550]),
        (["Boss@EXAMPLE.NET"], [550]),
        (['"boss"@example.net'], [550]),
        (["user@example.org"], [550]),
        (["user@sub.example.net"], [550]),
        (["a@example.net", "b@example.net", "c@example.net"], [250, 250, 452]),
    ],
)
def test_recipients_by_the_rules(
    relay: RunningRelay, recipients: list[str], codes: list[int]
) -> None:
    """Only those that are allowed and not denied, and no more than the app may at a time."""
    with logged_in(relay, "picky") as client:
        client.say(envelope(recipients=recipients))
        assert [250, *codes] == client.hear_codes(1 + len(codes))


def test_size_by_the_rules(relay: RunningRelay) -> None:
    """An app's own limit is offered, held at MAIL and held at the end of the text."""
    large = TEXT + b"x" * 1000 + b"\r\n"
    with logged_in(relay, "picky") as client:
        assert b"250-SIZE 1000\r\n" in client.ask(b"EHLO client.test\r\n")
        assert client.ask(b"MAIL FROM:<app@example.com> SIZE=1001\r\n").startswith(b"552 ")
        assert client.send(large).startswith(b"552 5.3.4 ")
        client.begin()
        assert client.ask(b"BDAT %d LAST\r\n" % len(large) + large).startswith(b"552 5.3.4 ")
        assert client.send().startswith(b"250 ")
    assert 1 == len(relay.received())


def test_app_without_senders_sends_nothing(relay: RunningRelay) -> None:
    """Not even a bounce."""
    with logged_in(relay, "mute") as client:
        for sender in ("", "app@example.com"):
            assert client.send(sender=sender).startswith(b"553 5.7.1 ")


MAILS = (
    b"MAIL FROM:<app@example.com>",
    b"MAIL FROM:<>",
    b"mail from: <app@example.com>",
    b"MAIL FROM:<app@example.com> AUTH=<>",
    b"MAIL FROM:<app@example.com> AUTH=mta",
    b"MAIL FROM:<mta@localhost>",
    b"MAIL FROM:<@localhost:app@example.com>",
    b"MAIL FROM:app@example.com",
    b'MAIL FROM:<"app@example.com"@localhost>',
    b"SEND FROM:<app@example.com>",
    b"SAML FROM:<app@example.com>",
    b"SOML FROM:<app@example.com>",
    b"TURN",
    b"ETRN example.com",
    b"XCLIENT ADDR=127.0.0.1 LOGIN=mta",
    b"XFORWARD NAME=localhost",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25",
)
RECIPIENTS = (
    b"RCPT TO:<user@example.net>",
    b"RCPT TO:<@example.com:user@example.net>",
    b"RCPT TO:<user%example.net@example.com>",
    b"RCPT TO:<example.net!user@example.com>",
    b"RCPT TO:<postmaster>",
    b'RCPT TO:<"user@example.net"@localhost>',
)


@pytest.mark.parametrize("listener", ["tcp", "unix", "lmtp"])
@pytest.mark.parametrize("mail", MAILS)
def test_stranger_sends_nothing_by_any_route(
    relays: StartRelay, mail: bytes, listener: str
) -> None:
    """A caller that is no app is not relayed for, whatever it says and wherever."""
    relay = relays(apps=STRANGERS)
    host = relay.host
    path = host.lmtp_socket if listener == "lmtp" else host.unix_socket
    hello = b"LHLO mta" if listener == "lmtp" else b"EHLO mta"
    for rcpt in RECIPIENTS:
        with wire(host.tcp() if listener == "tcp" else host.unix(path), hello) as client:
            client.say(mail + b"\r\n" + rcpt + b"\r\nDATA\r\n")
            refused = client.hear_codes(3)
            assert {True} == {code >= 500 for code in refused}
            assert client.ask(b"BDAT %d LAST\r\n" % len(TEXT) + TEXT).startswith(b"503 ")
    assert [] == relay.inbox()


def test_stranger_is_told_what_to_do(relays: StartRelay) -> None:
    """The reply names the uid, which a person needs for the settings."""
    relay = relays(apps=STRANGERS)
    with wire(relay.host.tcp()) as client:
        assert b"530 5.7.0 no app is set up for uid 0\r\n" == client.send(to=RECIPIENT)

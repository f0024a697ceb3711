"""What a message costs of its app's rates, by how it ends."""

import time

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import ROOT_MAY_PASS, StartRelay
from rigs.relay_wire import TEXT, wire
from sesguard.relay.model import App, Rates
from sesguard.relay.rates import RATES_FILE, RateTable
from sesguard.sandbox.model import Fault, FaultKind, Stage


def one_an_hour(app: str) -> str:
    """Settings of an app; each test has its own, for the counts outlast a test."""
    return ROOT_MAY_PASS.replace("mta", app) + "per_hour = 1\n"


@pytest.mark.parametrize(("kind", "code"), [(FaultKind.REPLY_451, 451), (FaultKind.REPLY_454, 454)])
def test_a_retry_counts_once(relays: StartRelay, kind: FaultKind, code: int) -> None:
    """What SES did not take costs nothing of the hour; what it took does."""
    relay = relays(apps=one_an_hour(f"retries-{code}"))
    relay.rig.client.set_faults(Fault(Stage.DATA, kind, 2))
    with wire(relay.host.unix()) as client:
        codes = [int(client.send()[:3]) for _ in range(4)]
    assert [code, code, 250, 450] == codes
    assert 1 == len(relay.received())


def test_a_retry_of_what_was_refused_early_counts_once(relays: StartRelay) -> None:
    """Also when SES answers before the client has sent all of a large message."""
    relay = relays(apps=one_an_hour("early"))
    relay.rig.client.set_faults(Fault(Stage.RCPT, FaultKind.REPLY_451, 2))
    with wire(relay.host.unix()) as client:
        large = TEXT + (b"x" * 70 + b"\r\n") * 30_000
        codes = [int(client.send(large)[:3]) for _ in range(3)]
    assert [451, 451, 250] == codes


def test_a_retry_without_the_refused_recipient_counts_once(relays: StartRelay) -> None:
    """SMTP has one reply for all: because one was refused, the first try went to nobody."""
    relay = relays(apps=one_an_hour("mixed").replace("per_hour = 1", "per_hour = 2"))
    mail = b"MAIL FROM:<app@example.com> SMTPUTF8\r\n"
    good, bad = b"RCPT TO:<a@example.net>\r\n", "RCPT TO:<é@example.net>\r\n".encode()
    with wire(relay.host.unix()) as client:
        client.say(mail + good + bad + b"DATA\r\n")
        assert [250, 250, 250, 354] == client.hear_codes(4)
        assert client.ask(TEXT + b".\r\n").startswith(b"451 4.5.0 nothing was sent")
        assert b"250" == client.send()[:3]
    [event] = relay.daemon.events("relay.deferred")
    assert "mixed" == event["app"]


def test_a_lost_answer_counts(relays: StartRelay) -> None:
    """SES may have the message."""
    relay = relays(apps=one_an_hour("unlucky"))
    relay.rig.client.set_faults(Fault(Stage.ACCEPTED, FaultKind.DROP, 1))
    with wire(relay.host.unix()) as client:
        assert [b"451", b"450"] == [client.send()[:3] for _ in range(2)]


def test_an_abandoned_message_counts(relays: StartRelay) -> None:
    """Who hangs up in the middle has had the relay's work."""
    relay = relays(apps=one_an_hour("fickle"))
    rates = RateTable(relay.host.spool_directory / RATES_FILE)
    app = App("fickle", rates=Rates(per_hour=1))
    with wire(relay.host.unix()) as client:
        client.begin()
        assert client.ask(b"DATA\r\n").startswith(b"354 ")
        client.say(TEXT)
        wait_until(lambda: rates.usage(app, time.time())[0].used, "the message to be counted")
    with wire(relay.host.unix()) as client:
        assert client.send().startswith(b"450 ")

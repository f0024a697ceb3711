"""What SES gets of a message, and what log, ledger and metrics tell of it."""

import json
import re
from pathlib import Path

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RunningRelay, StartRelay
from rigs.relay_wire import RECIPIENT, SENDER, TEXT, Wire, wire
from rigs.sandbox import eventually
from sesguard.relay.ledger import Ledger

MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}
APPS = {"pass": "mta", "spool": "shop"}
BODY = (
    "Olá, 漢字.\r\n.\r\n..\r\n.x\r\n\r\n"
    "From here on\r\ntrailing blanks  \r\n\tlast line\r\n" + "y" * 900 + "\r\n\r\n"
).encode() + bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each of the modes of delivery."""
    return str(request.param)


@pytest.fixture
def relay(relays: StartRelay, mode: str) -> RunningRelay:
    """A relay whose app is in that mode."""
    return relays(apps=MODES[mode])


def send(client: Wire, text: bytes, *, chunked: bool = False) -> bytes:
    """Send a message that may have lines of dots; gives the last reply."""
    client.begin()
    if chunked:
        return client.ask(b"BDAT %d LAST\r\n" % len(text) + text)
    client.ask(b"DATA\r\n")
    stuffed = (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]
    return client.ask(stuffed + b".\r\n")


@pytest.mark.parametrize("chunked", [False, True])
def test_body_is_unchanged(relay: RunningRelay, chunked: bool) -> None:
    """Dots, blanks, long lines and every octet but NUL arrive as they were sent."""
    text = TEXT.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + BODY + b"\r\n"
    with wire(relay.host.tcp()) as client:
        assert send(client, text, chunked=chunked).startswith(b"250 ")
    [message] = relay.received()
    assert BODY + b"\r\n" == relay.raw(message).partition(b"\r\n\r\n")[2]


def test_header_of_the_app_is_unchanged(relay: RunningRelay) -> None:
    """Every field but those that begin with X-SES- arrives as it was, folding and order too."""
    fields = b"From: app@example.com\r\nSubject: a\r\n  folded\r\n\tline\r\nX-Odd:\r\nTo: b@c.d\r\n"
    bad = b"X-SES-CONFIGURATION-SET: mine\r\nx-ses-message-tags: app=other,\r\n host=other\r\n"
    with wire(relay.host.tcp()) as client:
        assert send(client, bad + fields + bad + b"\r\nHello.\r\n").startswith(b"250 ")
    [message] = relay.received()
    raw = relay.raw(message)
    assert raw.endswith(fields + b"\r\nHello.\r\n")
    assert b"other" not in raw
    assert (None, {"app", "host"}) == (message.configuration_set, set(message.tags))


def test_ses_is_told_app_and_host(relay: RunningRelay, mode: str) -> None:
    """SES's events name the app and the host, by tags that the app cannot set."""
    with wire(relay.host.tcp()) as client:
        send(client, TEXT)
    [message] = relay.received()
    assert {"app", "host"} == set(message.tags)
    assert APPS[mode] == message.tags["app"]


def test_received_line_names_neither_app_nor_user(relay: RunningRelay, mode: str) -> None:
    """The recipient learns that the mail came through this host, and nothing more."""
    with wire(relay.host.tcp()) as client:
        send(client, TEXT)
    [message] = relay.received()
    received = message.header("Received")
    assert received is not None
    assert re.fullmatch(
        r"by \S+ \(sesguard\) with ESMTP id [0-9a-f-]+;\s+\w{3}, .* \+0000", received
    )
    assert APPS[mode] not in received


def test_configuration_set_of_the_app(relays: StartRelay, ses_set: str, mode: str) -> None:
    """The configuration set is the settings' one, whatever the app writes."""
    relay = relays(apps=MODES[mode] + f'configuration_set = "{ses_set}"\n')
    with wire(relay.host.tcp()) as client:
        assert send(client, b"X-SES-CONFIGURATION-SET: other\r\n" + TEXT).startswith(b"250 ")
    [message] = relay.received()
    assert ses_set == message.configuration_set


@pytest.fixture(scope="session")
def ses_set(relays: StartRelay) -> str:
    """A configuration set of the sandbox's account."""
    rig = relays(apps=ROOT_MAY_PASS).rig
    rig.aws("sesv2").create_configuration_set(ConfigurationSetName="bulk")
    return "bulk"


def test_ledger_finds_a_message_by_the_id_of_ses(relay: RunningRelay, mode: str) -> None:
    """App, uid, sender, size and credential are found by what SES calls the message."""
    with wire(relay.host.tcp()) as client:
        send(client, TEXT)
    [message] = relay.received()
    ledger = Ledger(relay.host.spool_directory)
    entry = eventually(lambda: ledger.find(message.id), message="no row in the ledger")
    assert entry is not None
    found = (entry.outcome, entry.app, entry.uid, entry.sender, entry.recipients)
    assert ("delivered", APPS[mode], 0, SENDER, 1) == found
    assert ("ses", 1, False) == (
        entry.credential_id,
        entry.credential_version,
        entry.possible_duplicate,
    )
    assert (mode == "spool") == (entry.spool_id is not None)


def test_reply_of_pass_carries_the_id_of_ses(relays: StartRelay) -> None:
    """A client that passes mail on hears SES's own id."""
    relay = relays(apps=ROOT_MAY_PASS)
    with wire(relay.host.tcp()) as client:
        reply = send(client, TEXT)
    [message] = relay.received()
    assert f"250 2.0.0 Ok {message.id}\r\n".encode() == reply


def test_log_holds_neither_addresses_nor_secrets(relay: RunningRelay, mode: str) -> None:
    """Lines tell app, id and reply; nobody's address, no secret, no text of the mail."""
    with wire(relay.host.tcp()) as client:
        send(client, TEXT)
        client.say(b"MAIL FROM:<evil@other.example>\r\n")
        client.hear()
    [message] = relay.received()
    wait_until(lambda: message.id in relay.daemon.log_path.read_text(), "a line with SES's id")
    text = relay.daemon.log_path.read_text()
    for forbidden in (SENDER, RECIPIENT, "evil@", "Hello.", relay.host.secret.reveal()):
        assert forbidden not in text
    assert relay.host.key.secret_key.reveal() not in text
    event = "relay.sent" if mode == "pass" else "queue.delivered"
    [line] = [each for each in relay.daemon.events(event) if each["message_id"] == message.id]
    assert APPS[mode] == line["app"]


def test_log_holds_addresses_where_the_settings_ask(relays: StartRelay) -> None:
    """With `log_addresses` a line tells from whom and for whom."""
    relay = relays(apps=ROOT_MAY_PASS, relay="log_addresses = true\n")
    with wire(relay.host.tcp()) as client:
        send(client, TEXT)
    wait_until(lambda: relay.daemon.events("relay.sent"), "a line in the log")
    line = relay.daemon.events("relay.sent")[-1]
    assert (SENDER, RECIPIENT) == (line["sender"], line["to"])


def test_metrics_add_up(relay: RunningRelay, mode: str) -> None:
    """Messages, refusals and connections are counted, and fall back to nothing."""
    before = relay.numbers()
    app = APPS[mode]
    fate = "sent" if mode == "pass" else "queued"
    with wire(relay.host.tcp()) as client:
        for _ in range(3):
            send(client, TEXT)
        client.ask(b"MAIL FROM:<evil@other.example>\r\n")
        assert 1 == relay.numbers()["sesguard_relay_connections"]
    relay.received(3)
    wait_until(lambda: 0 == relay.numbers()["sesguard_relay_connections"], "clients to be gone")
    after = relay.numbers()

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    messages = "sesguard_relay_messages_total"
    assert 3 == grown(f'{messages}{{app="{app}",fate="{fate}"}}')
    assert 1 == grown(f'{messages}{{app="{app}",fate="refused"}}')
    assert 1 == grown(f'sesguard_relay_refusals_total{{app="{app}",reason="sender"}}')
    if mode == "spool":
        delivered = f'sesguard_relay_deliveries_total{{app="{app}",outcome="delivered"}}'
        wait_until(lambda: relay.numbers()[delivered] - before.get(delivered, 0) == 3, "deliveries")
        wait_until(lambda: 0 == relay.numbers()["sesguard_relay_queue_messages"], "no queue")


def test_metrics_are_prometheus_text(relay: RunningRelay) -> None:
    """Each sample follows its HELP and TYPE, and is a number."""
    text = relay.daemon.ask("control", b"metrics\n").decode()
    known: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            known.add(line.split()[2])
        elif line and not line.startswith("#"):
            match = re.fullmatch(
                r'([a-z_]+)(?:\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? [\d.e+]+', line
            )
            assert match is not None, line
            assert match[1] in known
    assert "sesguard_relay_messages_total" in known


def test_status_tells_the_same(relay: RunningRelay) -> None:
    """The status has the numbers of the relay for people and scripts."""
    status = json.loads(relay.daemon.ask("control", b"status\n"))
    assert {"messages", "connections", "queue_messages"} <= set(status["relay"])


def test_queue_is_readable_by_its_owner_only(relays: StartRelay) -> None:
    """Mail at rest is in files that nobody else can read."""
    relay = relays(apps=ROOT_MAY_SPOOL)
    directory: Path = relay.host.spool_directory
    assert 0o700 == directory.stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in directory.iterdir()}

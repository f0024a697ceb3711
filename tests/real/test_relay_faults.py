"""
The running relay while SES is down, slow, refuses or lies, and while its credential changes.

A client with a queue of its own hears 4xx and tries again; a message in our queue waits. Either way
it arrives once. It may arrive twice only where SES took it and the answer was lost, and then the
relay says so. Nothing bounces that SES did not refuse.
"""

import datetime as dt
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rigs.daemon import Daemon, wait_until
from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RelayHost, RunningRelay, relay_host
from rigs.relay_load import Load
from rigs.relay_wire import SENDER, wire
from rigs.sandbox import SandboxRig, eventually, running_sandbox
from sesguard.core.secret import Secret
from sesguard.relay.queue_desk import QueueDesk
from sesguard.sandbox.model import Fault, FaultKind, Stage, TlsMode
from sesguard.sandbox.seed import SeededKey

pytestmark = pytest.mark.real

MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}
DELAY_S = 0.2
LOST = ((Stage.ACCEPTED, FaultKind.DROP), (Stage.ACCEPTED, FaultKind.STALL))
"""SES has the message, and its answer does not come."""
UNCERTAIN = (*LOST, (Stage.DATA, FaultKind.DROP), (Stage.DATA, FaultKind.STALL))
"""No answer comes to a whole message: nobody here can know whether SES has it."""
FAULTS = (
    *((stage, kind) for stage in Stage if stage is not Stage.ACCEPTED for kind in FaultKind),
    *LOST,
    (Stage.ACCEPTED, FaultKind.SLOW),
)


@dataclass(frozen=True, slots=True)
class Account:
    """The sandbox and a key of its account."""

    rig: SandboxRig
    key: SeededKey


@pytest.fixture(scope="module")
def shared() -> Iterator[Account]:
    """One sandbox for all."""
    with tempfile.TemporaryDirectory() as directory, running_sandbox(Path(directory)) as rig:
        yield Account(rig, rig.seed())


@pytest.fixture
def account(shared: Account) -> Iterator[Account]:
    """The sandbox without messages and faults, at the end as well."""
    shared.rig.client.clear_inbox()
    shared.rig.client.clear_connections()
    shared.rig.client.clear_faults()
    yield shared
    shared.rig.client.clear_faults()
    shared.rig.client.set_tls_mode(TlsMode.NORMAL)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each of the modes of delivery."""
    return str(request.param)


@pytest.fixture
def host(mode: str, account: Account) -> Iterator[RelayHost]:
    """A host whose one app is in that mode."""
    with relay_host(account.rig, key=account.key, apps=MODES[mode]) as made:
        yield made


def send(host: RelayHost) -> bytes:
    """Send one message; gives the reply."""
    with wire(host.tcp()) as client:
        return client.send()


def send_until_taken(host: RelayHost) -> list[bytes]:
    """Send as a mail server does, again after each 4xx; gives the replies before the 250."""
    replies: list[bytes] = []

    def is_taken() -> bool:
        replies.append(send(host))
        return replies[-1].startswith(b"250 ")

    wait_until(is_taken, "the message to be taken")
    return replies[:-1]


def attempts(daemon: Daemon) -> list[dict[str, Any]]:
    """What became of attempts to deliver from the queue."""
    return [each for each in daemon.log() if each["event"].startswith("queue.")]


@contextmanager
def in_trouble(
    host: RelayHost, mode: str, begin: Callable[[], object], end: Callable[[], object]
) -> Iterator[Daemon]:
    """
    Send one message while SES is in trouble, and let it go on when that is over.

    Args:
        host: Of the relay.
        mode: Of its app.
        begin: Starts the trouble.
        end: Ends it.
    """
    begin()
    with host.running() as daemon:
        if mode == "pass":
            reply = send(host)
            assert reply.startswith(b"4"), reply
        else:
            assert send(host).startswith(b"250 ")
            wait_until(lambda: attempts(daemon), "a try to deliver")
        assert [] == RunningRelay(host, daemon).inbox()
        end()
        if mode == "pass":
            assert all(each.startswith(b"4") for each in send_until_taken(host))
            yield daemon
    if mode == "spool":
        # A new start, and a flush, because the pace of retries is of minutes.
        QueueDesk(host.spool_directory).flush(None)
        with host.running() as daemon:
            wait_until(lambda: not QueueDesk(host.spool_directory).list_messages(), "no queue")
            yield daemon


def assert_once(host: RelayHost, daemon: Daemon) -> None:
    """The message has arrived once, and nobody was told otherwise."""
    assert 1 == len(RunningRelay(host, daemon).inbox())
    for event in ("relay.refused", "queue.bounced", "queue.dropped", "daemon.bug"):
        assert [] == daemon.events(event)


@pytest.mark.parametrize(("stage", "kind"), FAULTS, ids=lambda each: each.value)
def test_fault_at_any_stage(
    host: RelayHost, mode: str, account: Account, stage: Stage, kind: FaultKind
) -> None:
    """One fault costs a retry at most; nothing is lost, and no copy goes without a report."""
    client = account.rig.client
    client.set_faults(Fault(stage, kind, count=1, delay_s=DELAY_S))
    with host.running() as daemon:
        replies = send_until_taken(host)
        assert all(each.startswith(b"4") for each in replies)
        assert mode == "pass" or replies == []
        wait_until(lambda: not client.status().faults, "the fault to strike")
        if mode == "spool":
            wait_until(lambda: attempts(daemon), "a try to deliver")
    if attempts(daemon) and attempts(daemon)[-1]["event"] == "queue.deferred":
        QueueDesk(host.spool_directory).flush(None)
        with host.running() as daemon:
            wait_until(lambda: attempts(daemon)[-1]["event"] == "queue.delivered", "delivery")
    assert [] == QueueDesk(host.spool_directory).list_messages()
    if (stage, kind) in LOST:
        assert 2 == len(client.inbox())
    else:
        assert_once(host, daemon)
    assert ((stage, kind) in UNCERTAIN) == bool(reports(daemon))


def reports(daemon: Daemon) -> list[dict[str, Any]]:
    """Lines of the log that say that SES may have a message twice."""
    return [
        each
        for each in daemon.log()
        if each.get("uncertain") or (each.get("possible_duplicate") and "message_id" in each)
    ]


@pytest.mark.parametrize("tls", [mode for mode in TlsMode if mode is not TlsMode.NORMAL])
def test_certificate_that_is_not_ours(
    host: RelayHost, mode: str, account: Account, tls: TlsMode
) -> None:
    """Neither mail nor password goes to whom cannot prove that he is SES; later all is sent."""
    client = account.rig.client
    with in_trouble(
        host,
        mode,
        lambda: client.set_tls_mode(tls),
        lambda: client.set_tls_mode(TlsMode.NORMAL),
    ) as daemon:
        assert_once(host, daemon)
    for connection in client.connections():
        assert not connection.auth_without_tls
        assert not connection.mail_without_tls


def test_refused_login(host: RelayHost, mode: str, account: Account) -> None:
    """While the key is inactive (535) mail waits; nobody hears a 5xx."""
    key = account.key
    iam = account.rig.aws("iam")

    def switch(status: str) -> None:
        iam.update_access_key(UserName=key.user_name, AccessKeyId=key.access_key_id, Status=status)

    with in_trouble(host, mode, lambda: switch("Inactive"), lambda: switch("Active")) as daemon:
        assert_once(host, daemon)


def test_denied_by_policy(host: RelayHost, mode: str, account: Account) -> None:
    """A policy that denies the sending (554 Access denied) is our trouble, not the mail's."""
    iam, user = account.rig.aws("iam"), account.key.user_name
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "ses:SendRawEmail", "Resource": "*"}],
    }

    def deny() -> None:
        iam.put_user_policy(UserName=user, PolicyName="deny", PolicyDocument=json.dumps(document))

    with in_trouble(
        host, mode, deny, lambda: iam.delete_user_policy(UserName=user, PolicyName="deny")
    ) as daemon:
        assert_once(host, daemon)


def test_paused_account(host: RelayHost, mode: str, account: Account) -> None:
    """While SES pauses the account mail waits."""
    ses = account.rig.aws("sesv2")

    def switch(enabled: bool) -> None:
        ses.put_account_sending_attributes(SendingEnabled=enabled)

    with in_trouble(host, mode, lambda: switch(False), lambda: switch(True)) as daemon:
        assert_once(host, daemon)


def test_what_ses_refuses_is_refused(host: RelayHost, mode: str, account: Account) -> None:
    """An address that is not verified is the mail's own fault: a 5xx, or the queue's end of it."""
    host.apps = host.apps.replace("*@example.com", "*@unverified.example")
    host.write_settings()
    with host.running() as daemon, wire(host.tcp()) as client:
        sender = "app@unverified.example"
        text = f"From: {sender}\r\n\r\nHello.\r\n".encode()
        reply = client.send(text, sender=sender)
        if mode == "pass":
            assert reply.startswith(b"554 5.7.1 Message rejected: Email address is not verified")
            assert 1 == len(daemon.events("relay.refused"))
        else:
            assert reply.startswith(b"250 ")
            wait_until(lambda: daemon.events("queue.bounced"), "the end of it")
    assert [] == account.rig.client.inbox()


def test_a_bounce_arrives(account: Account) -> None:
    """SES takes no null sender, so it comes from the address that it goes to; and it is the end."""
    apps = f'{ROOT_MAY_SPOOL}configuration_set = "missing"\n'
    with relay_host(account.rig, key=account.key, apps=apps) as host, host.running() as daemon:
        assert send(host).startswith(b"250 ")
        relay = RunningRelay(host, daemon)
        [bounce] = relay.received()
        wait_until(lambda: len(attempts(daemon)) == 2, "the end of both")
        assert ["queue.bounced", "queue.delivered"] == [each["event"] for each in attempts(daemon)]
        assert (SENDER, (SENDER,)) == (bounce.envelope_sender, bounce.recipients)
        assert b"\r\nAuto-Submitted: auto-replied\r\n" in relay.raw(bounce)
        assert b"Configuration set <missing> does not exist" in relay.raw(bounce)


def test_rotation_under_load(host: RelayHost, mode: str, account: Account) -> None:
    """A new key while four clients send: nothing is lost or doubled, old sessions are closed."""
    rig, old = account.rig, account.key
    iam = rig.aws("iam")
    made = iam.create_access_key(UserName=old.user_name)["AccessKey"]
    new = SeededKey(old.user_name, made["AccessKeyId"], Secret(made["SecretAccessKey"]))

    def switch(status: str) -> None:
        iam.update_access_key(UserName=old.user_name, AccessKeyId=old.access_key_id, Status=status)

    load = Load(host.tcp)
    try:
        with host.running() as daemon:
            relay = RunningRelay(host, daemon)
            with load.running():
                eventually(lambda: len(load.accepted) > 50)
                host.import_key(new)
                wait_until(lambda: open_with(rig, new), "a session with the new key")
                wait_until(lambda: not open_with(rig, old), "sessions with the old key to end", 10)
                switch("Inactive")
                count = len(load.accepted)
                eventually(lambda: len(load.accepted) > count + 50)
            wait_until(lambda: 0 == relay.numbers()["sesguard_relay_queue_messages"], "no queue")
            copies = load.copies(relay.inbox())
            assert ([], []) == (load.refused, load.deferred)
            assert load.accepted == set(copies)
            assert {1} == set(copies.values())
            for event in ("queue.deferred", "queue.bounced", "daemon.bug"):
                assert [] == daemon.events(event)
    finally:
        switch("Active")
        iam.delete_access_key(UserName=old.user_name, AccessKeyId=new.access_key_id)


def test_idle_session_of_the_old_key_is_closed(host: RelayHost, account: Account) -> None:
    """Without any traffic a session of the replaced key ends long before it would by itself."""
    rig, old = account.rig, account.key
    with host.running():
        assert send(host).startswith(b"250 ")
        wait_until(rig.client.inbox, "the message")
        [before] = open_with(rig, old)
        replaced_at = dt.datetime.now(dt.UTC)
        host.import_key(old)
        wait_until(lambda: not open_with(rig, old), "the session to end")
        [closed] = [each.closed_at for each in rig.client.connections() if each.id == before]
    assert closed is not None
    assert (closed - replaced_at).total_seconds() < 4


def open_with(rig: SandboxRig, key: SeededKey) -> list[int]:
    """Ids of the sessions at SES that are open and logged in with the key."""
    return [
        each.id
        for each in rig.client.connections()
        if each.closed_at is None and key.access_key_id in {auth.user for auth in each.auth}
    ]


def test_dead_upstream_costs_little(host: RelayHost, mode: str, account: Account) -> None:
    """Nobody listens: clients hear 4xx at once, the queue waits, and both go on afterwards."""
    port = host.rig.info.starttls_port
    text = host.settings_path.read_text()
    host.settings_path.write_text(text.replace(f"port = {port}", "port = 1"))
    started = time.monotonic()
    with host.running() as daemon:
        if mode == "pass":
            assert send(host).startswith(b"451 4.4.1 ")
        else:
            assert send(host).startswith(b"250 ")
            wait_until(lambda: attempts(daemon), "a try to deliver")
    assert time.monotonic() - started < 15
    host.write_settings()
    QueueDesk(host.spool_directory).flush(None)
    with host.running() as daemon:
        if mode == "pass":
            send_until_taken(host)
        eventually(account.rig.client.inbox)
        assert_once(host, daemon)

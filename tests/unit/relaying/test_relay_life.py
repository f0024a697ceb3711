"""Changes and ends of a running relay: SIGHUP, SIGTERM, several processes and their deaths."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import (
    ROOT_MAY_PASS,
    ROOT_MAY_SPOOL,
    RunningRelay,
    StartRelay,
    children_of,
    relay_host,
)
from rigs.relay_wire import TEXT, wire
from rigs.sandbox import SandboxRig
from sesguard.sandbox.seed import SeededKey

MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}


@contextmanager
def relaying(ses: SandboxRig, key: SeededKey, **options: str) -> Iterator[RunningRelay]:
    """A relay of the test's own, which it may end."""
    with relay_host(ses, key=key, **options) as host, host.running() as daemon:
        yield RunningRelay(host, daemon)


@pytest.fixture
def two(relays: StartRelay) -> RunningRelay:
    """A relay of two processes."""
    return relays(apps=ROOT_MAY_SPOOL, relay="processes = 2\n")


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sighup_changes_apps_at_once(ses: SandboxRig, ses_key: SeededKey) -> None:
    """An open session's next message is judged by the new rules; no connection is cut."""
    with relaying(ses, ses_key) as relay, wire(relay.host.tcp()) as client:
        assert client.send().startswith(b"250 ")
        relay.host.apps = ROOT_MAY_PASS.replace("*@example.com", "other@example.com")
        relay.host.write_settings()
        relay.daemon.signal(signal.SIGHUP)
        wait_until(lambda: relay.daemon.events("settings.reloaded"), "the new settings")
        assert client.send().startswith(b"553 5.7.1 ")
        text = TEXT.replace(b"app@", b"other@")
        assert client.send(text, sender="other@example.com").startswith(b"250 ")


def _rejected_more_than(relay: RunningRelay, number: int) -> bool:
    return len(relay.daemon.events("settings.rejected")) > number


def test_broken_settings_change_nothing(ses: SandboxRig, ses_key: SeededKey) -> None:
    """A file with a mistake is reported, and mail goes on by the old one."""
    with relaying(ses, ses_key) as relay, wire(relay.host.tcp()) as client:
        for number, broken in enumerate(
            ('[apps.x]\nusers = ["root"]\nrates = 1\n', '[apps.x]\nsenders = ["*@@"]\n', "][")
        ):
            relay.host.apps = broken
            relay.host.write_settings()
            relay.daemon.signal(signal.SIGHUP)
            wait_until(partial(_rejected_more_than, relay, number), "the mistake to be told")
            assert client.send().startswith(b"250 ")
        assert [] == relay.daemon.events("settings.reloaded")


def test_sighup_in_the_middle_of_a_message_does_not_cut_it(
    ses: SandboxRig, ses_key: SeededKey
) -> None:
    """A message that is on its way to SES when the settings are read again arrives, once."""
    with relaying(ses, ses_key) as relay, wire(relay.host.tcp()) as client:
        client.begin()
        client.ask(b"DATA\r\n")
        client.say(TEXT + b"x" * 100_000)
        relay.daemon.signal(signal.SIGHUP)
        wait_until(lambda: relay.daemon.events("settings.reloaded"), "the new settings")
        assert client.ask(b"\r\n.\r\n").startswith(b"250 ")
    assert 1 == len(relay.inbox())


@pytest.mark.parametrize("mode", MODES)
def test_sigterm_lets_a_message_end(mode: str, ses: SandboxRig, ses_key: SeededKey) -> None:
    """A message that is coming in is taken and answered; idle clients and new ones are not."""
    with relay_host(ses, key=ses_key, apps=MODES[mode]) as host:
        with host.running() as daemon:
            # Its sweep has come by once, and has seen that nobody was there.
            wait_until(lambda: daemon.status()["uptime_s"] > 1.2, "a sweep")
            with wire(host.tcp()) as client, wire(host.tcp()) as idle:
                client.begin()
                client.ask(b"DATA\r\n")
                client.say(TEXT)
                daemon.signal(signal.SIGTERM)
                assert b"421 4.3.2 Going down\r\n" == idle.hear()
                with pytest.raises(ConnectionRefusedError):
                    host.tcp()
                client.say(b"more\r\n.\r\n")
                assert client.hear().startswith(b"250 ")
                assert b"421 4.3.2 Going down\r\n" == client.hear_end()
            assert 0 == daemon.process.wait(20)
        with host.running() as daemon:
            assert 1 == len(RunningRelay(host, daemon).received())


def test_what_is_queued_at_the_end_is_delivered_at_the_next_start(
    ses: SandboxRig, ses_key: SeededKey
) -> None:
    """The queue outlives the daemon."""
    with relay_host(ses, key=ses_key, apps=ROOT_MAY_SPOOL) as host:
        ses.client.configure(max_send_rate=0)
        try:
            with host.running(), wire(host.tcp()) as client:
                assert client.send().startswith(b"250 ")
        finally:
            ses.client.configure(max_send_rate=10_000.0)
        assert [] == ses.client.inbox()
        with host.running() as daemon:
            assert 1 == len(RunningRelay(host, daemon).received())


def test_two_processes_accept_and_count_together(two: RunningRelay) -> None:
    """Clients are served by both, and the metrics are the sum of both."""
    before = two.numbers().get('sesguard_relay_messages_total{app="shop",fate="queued"}', 0)
    served = set()
    for _ in range(40):
        with wire(two.host.tcp()) as client:
            assert client.send().startswith(b"250 ")
    two.received(40)
    name = 'sesguard_relay_messages_total{app="shop",fate="queued"}'
    wait_until(lambda: two.numbers()[name] - before == 40, "numbers of both processes")
    for message in two.inbox():
        received = message.header("Received")
        assert received is not None
        served.add(received.partition(" id ")[2].split("-")[1])
    assert {"0", "1"} == served
    assert 2 == len(two.workers())


@pytest.mark.parametrize("number", [0, 1])
def test_worker_that_dies_is_replaced(two: RunningRelay, number: int) -> None:
    """After kill -9 of either process all clients are served again, and queued mail goes out."""
    victim = two.workers()[number]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(two.workers()) == 2 and victim not in two.workers(), "another worker")
    for _ in range(20):
        with wire(two.host.tcp()) as client:
            assert client.send().startswith(b"250 ")
    assert 20 == len(two.received(20))
    ended = two.daemon.events("worker.ended")[-1]
    assert (victim, -9) == (ended["pid"], ended["exit_code"])


def test_two_processes_share_the_rates(ses: SandboxRig, ses_key: SeededKey) -> None:
    """What both admit together is what one would."""
    apps = ROOT_MAY_SPOOL + "per_hour = 10\n"
    replies: list[bytes] = []
    with relaying(ses, ses_key, apps=apps, relay="processes = 2\n") as relay:

        def send_some() -> None:
            for _ in range(5):
                with wire(relay.host.tcp()) as client:
                    replies.append(client.send()[:3])

        threads = [threading.Thread(target=send_some) for _ in range(5)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert (10, 15) == (replies.count(b"250"), replies.count(b"450"))


def test_sighup_reaches_all_processes(ses: SandboxRig, ses_key: SeededKey) -> None:
    """Every process judges by the new settings."""
    with relaying(ses, ses_key, relay="processes = 2\n") as relay:
        relay.host.apps = ROOT_MAY_PASS.replace("*@example.com", "other@example.com")
        relay.host.write_settings()
        relay.daemon.signal(signal.SIGHUP)

        def all_refuse() -> bool:
            codes = set()
            for _ in range(12):
                with wire(relay.host.tcp()) as client:
                    codes.add(client.send()[:3])
            return codes == {b"553"}

        wait_until(all_refuse, "both to refuse")
        assert 2 == len(relay.workers())


def test_worker_that_is_replaced_knows_the_new_settings(
    ses: SandboxRig, ses_key: SeededKey
) -> None:
    """What SIGHUP brought holds in a process that is started after it, too."""
    with relaying(ses, ses_key, relay="processes = 2\n") as relay:
        relay.host.apps = ROOT_MAY_PASS.replace("*@example.com", "other@example.com")
        relay.host.write_settings()
        relay.daemon.signal(signal.SIGHUP)
        wait_until(lambda: relay.daemon.events("settings.reloaded"), "the new settings")
        before = relay.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(relay.workers()) == 2 and not set(before) & set(relay.workers()),
            "other workers",
        )
        for _ in range(12):
            with wire(relay.host.tcp()) as client:
                assert client.send().startswith(b"553 ")


def test_counters_never_fall(ses: SandboxRig, ses_key: SeededKey) -> None:
    """A process that is started again goes on counting where the one before it ended."""
    metric = 'sesguard_relay_messages_total{app="shop",fate="queued"}'
    with relaying(ses, ses_key, apps=ROOT_MAY_SPOOL, relay="processes = 2\n") as relay:
        for _ in range(6):
            with wire(relay.host.tcp()) as client:
                assert client.send().startswith(b"250 ")
        wait_until(lambda: relay.numbers().get(metric) == 6, "all to be counted")
        before = relay.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(relay.workers()) == 2 and not set(before) & set(relay.workers()),
            "other workers",
        )
        with wire(relay.host.tcp()) as client:
            assert client.send().startswith(b"250 ")
        wait_until(lambda: relay.numbers().get(metric) == 7, "the sum of both")


def test_sigterm_ends_all_processes(ses: SandboxRig, ses_key: SeededKey) -> None:
    """The supervisor ends with exit code 0 after its workers, one of which has a message to end."""
    with relaying(ses, ses_key, relay="processes = 2\n") as relay:
        pids = relay.workers()
        with wire(relay.host.tcp()) as client:
            client.begin()
            client.ask(b"DATA\r\n")
            relay.daemon.signal(signal.SIGTERM)
            client.say(TEXT + b".\r\n")
            assert client.hear().startswith(b"250 ")
        assert 0 == relay.daemon.process.wait(20)
        assert [False, False] == [is_alive(pid) for pid in pids]


def test_workers_end_with_their_supervisor(ses: SandboxRig, ses_key: SeededKey) -> None:
    """After kill -9 of the supervisor no worker is left, and a new daemon can start."""
    with relay_host(ses, key=ses_key, relay="processes = 2\n") as host:
        with host.running() as daemon:
            pids = children_of(daemon.pid)
            daemon.process.kill()
            daemon.process.wait(20)
            wait_until(lambda: not any(is_alive(pid) for pid in pids), "its workers to end")
        with host.running(), wire(host.tcp()) as client:
            assert client.send().startswith(b"250 ")

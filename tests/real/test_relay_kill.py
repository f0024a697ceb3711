"""
The running relay is killed at random instants under load, again and again, and its disk fills up.

What got 250 arrives. A second copy of a message is there only where the client never heard the
reply and sent it again, or where the relay itself reported it when it started again.
"""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rigs.daemon import Daemon, start_daemon, wait_until
from rigs.relay_host import ROOT_MAY_PASS, ROOT_MAY_SPOOL, RelayHost, RunningRelay, relay_host
from rigs.relay_load import Load, number_in
from rigs.relay_wire import TEXT, wire
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.relay.queue_desk import QueueDesk
from sesguard.relay.spool_records import public_id
from sesguard.relay.spool_table import FILE_NAME
from sesguard.sandbox.seed import SeededKey
from sesguard.system.privileges import is_root

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

KILLS = 200
"""In each mode."""
PARTS = 4
MODES = {"pass": ROOT_MAY_PASS, "spool": ROOT_MAY_SPOOL}
SMALL_DISK_BYTES = 40_000_000


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[SandboxRig, SeededKey]]:
    """One sandbox for all, and a key of its account."""
    with tempfile.TemporaryDirectory() as directory, running_sandbox(Path(directory)) as rig:
        yield rig, rig.seed()


@pytest.fixture
def ses(account: tuple[SandboxRig, SeededKey]) -> SandboxRig:
    """The sandbox, without messages."""
    account[0].client.clear_inbox()
    return account[0]


@pytest.fixture
def key(account: tuple[SandboxRig, SeededKey]) -> SeededKey:
    """The key."""
    return account[1]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", MODES)
def test_kill_9_loses_nothing(
    mode: str, part: int, ses: SandboxRig, key: SeededKey, tmp_path: Path
) -> None:
    """Killed at any instant, also while it starts: what got 250 arrives, no copy is unexplained."""
    chance = random.Random(f"{mode} {part}")
    numbers: dict[str, int] = {}
    with relay_host(ses, key=key, apps=MODES[mode]) as host:
        load = Load(host.tcp)
        with host.running():
            pass  # From here on there is a queue to look into.
        with load.running():
            for _ in range(KILLS // PARTS):
                kill_after(host, chance)
                if mode == "spool":
                    numbers |= cut_off(host, tmp_path)
            daemon = start_daemon(host.settings_path)
        try:
            relay = RunningRelay(host, daemon)
            wait_until(lambda: queue_is_empty(host), "an empty queue", 60)
            wait_until(lambda: in_flight(relay) == 0, "nothing to be under way", 60)
        finally:
            daemon.stop()
        check(load, relay, numbers)


def kill_after(host: RelayHost, chance: random.Random) -> None:
    """Start the daemon, and kill it a moment after it serves, or before."""
    daemon = start_daemon(host.settings_path)
    try:
        if chance.random() < 0.9:
            wait_until(lambda: serves(host, daemon), "a listener")
            time.sleep(chance.uniform(0.02, 0.25))
        else:
            time.sleep(chance.uniform(0, 0.5))
    finally:
        daemon.process.kill()
        daemon.process.wait()


def cut_off(host: RelayHost, directory: Path) -> dict[str, int]:
    """Numbers by queue id of what was being sent when the daemon was killed, from a copy."""
    for path in host.spool_directory.glob(f"{FILE_NAME}*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, directory)
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        rows = connection.execute(
            "SELECT m.id, data FROM messages AS m JOIN bodies AS b ON b.id = m.id"
            " WHERE state = 'sending'"
        ).fetchall()
    for path in directory.iterdir():
        path.unlink()
    return {public_id(message_id): number_in(bytes(data)) for message_id, data in rows}


def serves(host: RelayHost, daemon: Daemon) -> bool:
    """Whether clients are greeted."""
    assert daemon.process.poll() is None, daemon.log_path.read_text()
    try:
        with wire(host.tcp(), hello=None) as client:
            return client.hear().startswith(b"220 ")
    except OSError:
        return False


def queue_is_empty(host: RelayHost) -> bool:
    """Whether everything was delivered; nobody waits for the pace of retries."""
    desk = QueueDesk(host.spool_directory)
    desk.flush(None)
    return not desk.list_messages()


def in_flight(relay: RunningRelay) -> float:
    """Messages that the daemon has not finished."""
    try:
        numbers = relay.numbers()
    except ConnectionRefusedError:
        return 1
    return numbers["sesguard_relay_upstream_waiting"] + numbers["sesguard_relay_queue_messages"]


def check(load: Load, relay: RunningRelay, numbers: Mapping[str, int]) -> None:
    """Nothing is lost, refused or bounced; each copy that no client asked for was reported."""
    copies = load.copies(relay.inbox())
    assert len(load.accepted) > KILLS // PARTS
    assert [] == load.refused
    assert set() == load.accepted - set(copies)
    assert 0 not in copies, "a message that nobody sent, such as a bounce"
    reported = Counter(numbers[each["queue_id"]] for each in relay.daemon.events("queue.recovered"))
    own = {n: count - 1 - load.unanswered[n] for n, count in copies.items()}
    assert {} == {number: count for number, count in own.items() if count > reported[number]}


@pytest.mark.skipif(not is_root(), reason="left out: root is needed to make a small disk")
def test_full_disk_defers_and_recovers(ses: SandboxRig, key: SeededKey) -> None:
    """Without room mail is answered 452; once there is room, all goes on by itself."""
    with relay_host(ses, key=key, apps=ROOT_MAY_SPOOL) as host:
        host.spool_directory.mkdir()
        shutil.chown(host.spool_directory, "nobody", "nogroup")
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES},mode=1777", "tmpfs"]
        subprocess.run([*mount, host.spool_directory], check=True)
        try:
            fill_and_free(host)
        finally:
            subprocess.run(["umount", "-l", host.spool_directory], check=True)


def fill_and_free(host: RelayHost) -> None:
    filler = host.spool_directory / "filler"
    large = TEXT + (b"x" * 76 + b"\r\n") * 25_000
    accepted = 0
    with host.running() as daemon, wire(host.tcp()) as client:
        relay = RunningRelay(host, daemon)
        accepted += client.send().startswith(b"250 ")
        filler.write_bytes(b"\0" * room_left(host))
        for text in (large, TEXT, large):
            reply = client.send(text)
            assert reply.startswith((b"452 4.3.1 ", b"250 ")), reply
            accepted += reply.startswith(b"250 ")
        assert client.send(large).startswith(b"452 4.3.1 ")
        filler.unlink()
        wait_until(lambda: client.send(large).startswith(b"250 "), "room for a message")
        assert accepted + 1 == len(relay.received(accepted + 1))
        assert [] == daemon.events("queue.bounced")


def room_left(host: RelayHost) -> int:
    """Octets that are free on the disk of the queue, but for a few."""
    return max(shutil.disk_usage(host.spool_directory).free - 200_000, 0)

"""
The relay under mixed load for an hour: whether memory, descriptors and threads stay flat.

Usage: python bench/soak.py [--minutes N] [--json FILE]    (root: the two apps are two users)

sesguardd with two processes serves, at the same time and in bursts of changing size:

    `pass` and `spool` mail, on new connections and on ones that are kept, 2 KB to 300 KB
    clients that are silent for seconds in the middle of a message
    clients that go away in the middle of a command or of a message, and senders that are refused
    a sink that answers 454 and 554, and cuts connections in the middle of messages
    a rotation every half minute: the pool of the old credential is drained

Every ten seconds memory, descriptors and threads of every process are looked at. The run passes
when the median of the last quarter is not above that of the first by more than `TOLERANCES` of
``rig/trend.py``, no process of the daemon was replaced, and no accepted message was lost.

Exit code 0: passed; 1: not; 2: it could not run. It ends by itself, with all that it started.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rig.native import CACHE, Load, Sink, Target, account, running_sink, start_load
from rig.ours import SesguardHost, app_table, make_host
from rig.peers import server
from rig.trend import TOLERANCES, Trend, trend
from rig.usage import PROC, status_kb, tree

PASS_UID, SPOOL_UID = 65_531, 65_532
"""Users of the two apps; nobody has them."""
SAMPLE_S, ROTATE_S, DRAIN_S = 10.0, 30.0, 180.0
FAULTS = ("-F", "40", "-X", "301", "-B", "97")
"""One message in 40 is deferred, one in 301 refused, one DATA in 97 ends in a cut."""
LOADS = (
    Load(connections=20, messages=1500, limit_s=60),
    Load(connections=20, messages=2000, reuse=True, limit_s=60),
    Load(connections=5, messages=50, size=300_000, limit_s=60),
    Load(connections=60, messages=300, size=2000, limit_s=60),
    Load(connections=10, messages=30, hesitation_s=3, limit_s=60),
    Load(connections=5, messages=20, sender="x@example.invalid", limit_s=60),
)
RUDE = (b"EHLO x\r\nMAIL FR", b"EHLO x\r\nMAIL FROM:<app@example.com>\r\n", b"\x00\xff\r\n" * 40)

Series = dict[str, list[float]]


@dataclass(slots=True)
class Sender:
    """One app's clients: a burst after the other, of random kinds."""

    name: str
    user: int
    target: Target
    directory: Path
    bodies: dict[str, str] = field(default_factory=dict)
    """Run to the checksum of its bodies."""
    accepted: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _run: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def step(self, *, more: bool) -> bool:
        """Begin the next burst when the last one is over; False: none is under way."""
        if self._process is not None:
            if self._process.poll() is None:
                return True
            self._collect(self._process)
        if more:
            self._run = f"{self.name}.{next(self._numbers)}"
            load = random.choice(LOADS)
            self._process = start_load(
                self.target, load, self._run, self.ids(self._run), user=self.user
            )
        return self._process is not None

    def ids(self, run: str) -> Path:
        """Where the ids of a burst go."""
        return self.directory / run

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        answer = json.loads(process.communicate()[0])
        self.bodies[self._run] = answer["body"]
        self.accepted += answer["accepted"]

    def stop(self) -> None:
        """End a burst that is under way."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def be_rude(target: Target) -> None:
    """Connect, say a piece of something, and go away."""
    with contextlib.suppress(OSError), socket.socket() as client:
        client.settimeout(1)
        client.connect(("127.0.0.1", target.port))
        client.recv(100)
        client.sendall(random.choice(RUDE))


def take_sample(root: int, series: dict[int, Series]) -> None:
    """Look at every process once."""
    for pid in tree(root):
        with contextlib.suppress(OSError):
            sizes = status_kb(pid)
            found = series.setdefault(pid, {name: [] for name in TOLERANCES})
            found["memory_mb"].append(sizes["VmRSS"] / 1024)
            found["descriptors"].append(len(list((PROC / str(pid) / "fd").iterdir())))
            found["threads"].append(sizes["Threads"])


@dataclass(slots=True)
class Every:
    """Calls something every so many seconds."""

    period_s: float
    act: Callable[[], object]
    due: float = 0.0

    def step(self) -> None:
        """Call it when it is due."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.period_s
            self.act()


def drive(
    host: SesguardHost, root: int, senders: list[Sender], minutes: float
) -> dict[int, Series]:
    """Keep everything going for so long; the samples of each process."""
    series: dict[int, Series] = {}
    target = Target(host.port)
    chores = (
        Every(SAMPLE_S, lambda: take_sample(root, series)),
        Every(ROTATE_S, host.rotate),
        Every(0.25, lambda: be_rude(target)),
    )
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        for sender in senders:
            sender.step(more=True)
        for chore in chores:
            chore.step()
        time.sleep(0.05)
    deadline = time.monotonic() + 90
    while sum(each.step(more=False) for each in senders) and time.monotonic() < deadline:
        time.sleep(0.05)
    return series


def empty_queue(host: SesguardHost, sink: Sink) -> int:
    """Have what was deferred tried again until nothing waits, or give up: how many wait."""
    command = [sys.executable, "-m", "sesguard", "--config", str(host.settings_path), "queue"]
    deadline = time.monotonic() + DRAIN_S
    waiting = -1
    while waiting and time.monotonic() < deadline:
        subprocess.run([*command, "flush"], check=False, stdout=subprocess.DEVNULL)
        sink.wait_for(2**62, patience_s=5, limit_s=DRAIN_S)
        listed = subprocess.run([*command, "list", "--json"], check=True, capture_output=True)
        waiting = len(json.loads(listed.stdout)["messages"])
    return waiting


def count_lost(senders: list[Sender], sink: Sink) -> dict[str, int]:
    """What became of each app's mail; see `rig.native.Account`."""
    by_run: dict[str, list[str]] = defaultdict(list)
    with sink.log.open() as log:
        for line in log:
            by_run[line.partition(" ")[0].rpartition("-")[0]].append(line)
    found = {}
    for sender in senders:
        fates = []
        for run, body in sender.bodies.items():
            with sender.ids(run).open() as accepted:
                fates.append(account(accepted, iter(by_run[run]), run, body))
        found[f"{sender.name}_accepted"] = sender.accepted
        found[f"{sender.name}_lost"] = sum(fate.lost for fate in fates)
        found[f"{sender.name}_copies"] = sum(fate.duplicated for fate in fates)
        found[f"{sender.name}_altered"] = sum(fate.altered for fate in fates)
    return found


def soak(minutes: float) -> tuple[dict[int, list[Trend]], dict[str, int], int]:
    """Run it: the trends of each process, the counts of mail, and the processes at the end."""
    with running_sink(CACHE / "run" / "soak-sink", FAULTS) as sink:
        apps = app_table("passing", PASS_UID, "pass") + app_table("spooling", SPOOL_UID, "spool")
        host = make_host("soak", sink, apps, processes=2)
        directory = host.directory / "ids"
        directory.mkdir()
        directory.chmod(0o777)
        target = Target(host.port)
        senders = [
            Sender("pass", PASS_UID, target, directory),
            Sender("spool", SPOOL_UID, target, directory),
        ]
        with contextlib.ExitStack() as stack:
            for sender in senders:
                stack.callback(sender.stop)
            log = host.directory / "server.log"
            root = stack.enter_context(server(host.command(), target, log))
            before = set(tree(root))
            series = drive(host, root, senders, minutes)
            replaced = len(before ^ set(tree(root)))
            queued = empty_queue(host, sink)
        trends = {
            pid: [trend(name, found[name], TOLERANCES[name]) for name in TOLERANCES]
            for pid, found in series.items()
            if pid in before
        }
        return trends, {**count_lost(senders, sink), "still_queued": queued}, replaced


def show(trends: dict[int, list[Trend]], mail: dict[str, int], replaced: int) -> None:
    """Print what people read."""
    for pid, series in trends.items():
        for each in series:
            verdict = "flat" if each.is_flat else "GROWS"
            figures = f"{each.first:8.1f} {each.last:8.1f} {each.most:8.1f}"
            print(f"{pid:7} {each.name:12} {figures}  {each.picture}  {verdict}")
    print("mail:", ", ".join(f"{name} {count:,}" for name, count in mail.items()))
    print(f"processes that came or went: {replaced}")


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("soak: two apps are two users, and that takes root\n")
        return 2
    trends, mail, replaced = soak(options.minutes)
    print("process what            first     last     most  from nothing to the most")
    show(trends, mail, replaced)
    passed = (
        all(each.is_flat for series in trends.values() for each in series)
        and not replaced
        and not mail["pass_lost"] + mail["spool_lost"]
        and not mail["pass_altered"] + mail["spool_altered"] + mail["still_queued"]
    )
    if options.json:
        document = {
            "minutes": options.minutes,
            "passed": passed,
            "mail": mail,
            "processes": {
                str(pid): [asdict(each) for each in series] for pid, series in trends.items()
            },
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print("passed" if passed else "NOT passed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

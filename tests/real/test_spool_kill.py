"""The queue when its process is killed at any instant, and when its disk is full."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rigs.spooling import SENDERS

KILLS = 60
TESTS = Path(__file__).parents[1]


def start(*arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "rigs.spooling", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"},
    )


def killed_after(directory: Path, first: int, delay_s: float) -> dict[int, str]:
    """Numbers and ids that were accepted by a process that is killed a moment after the first."""
    process = start("run", directory, first)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1].decode()
    time.sleep(delay_s)
    process.kill()
    rest, errors = process.communicate()
    assert b"" == errors, errors.decode()
    lines = [line, *rest.splitlines(keepends=True)]
    words = [each.decode().split() for each in lines if each.endswith(b"\n")]
    return {int(number): public_id for _code, number, public_id in words}


@pytest.mark.real
def test_no_accepted_message_is_lost_by_kill_9(tmp_path: Path) -> None:
    """Killed at random instants, each message of which 250 was printed is delivered, whole."""
    directory, chance = tmp_path / "spool", random.Random(20261124)
    accepted: dict[int, str] = {}
    first = 1
    for _ in range(KILLS):
        some = killed_after(directory, first, chance.uniform(0, 0.08))
        accepted |= some
        first = max(some) + 2 * SENDERS
    drained = start("drain", directory)
    _out, errors = drained.communicate(timeout=120)
    assert (0, b"") == (drained.returncode, errors)
    sent = Counter(map(int, (tmp_path / "sent").read_text().split()))
    assert set() == set(accepted) - set(sent)
    events = [line.split() for line in (tmp_path / "events").read_text().splitlines()]
    assert {"delivered", "recovered"} == {outcome for _id, outcome, _duplicate in events}
    reported = Counter(
        public_id for public_id, outcome, _duplicate in events if outcome == "recovered"
    )
    unreported = [n for n, public_id in accepted.items() if sent[n] - 1 > reported[public_id]]
    assert [] == unreported
    assert sum(sent.values()) - len(sent) <= KILLS * SENDERS
    assert len(accepted) > KILLS * SENDERS


@pytest.mark.real
def test_a_full_disk_defers_and_loses_nothing(tmp_path: Path) -> None:
    """A file system of a few megabytes: 452 while it is full, 250 with room, all delivered."""
    script = 'mount -t tmpfs -o size=9m tmpfs "$0" && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, str(tmp_path))
    process = start("full", tmp_path / "spool", before=before)
    out, errors = process.communicate(timeout=120)
    if b"unshare" in errors or b"mount:" in errors:
        pytest.skip("left out: a mount namespace of our own is needed")
    assert (0, b"") == (process.returncode, errors)
    lines = out.decode().splitlines()
    room = lines.index("room")
    assert 5 == lines[:room].count("452")
    before_room, after_room = _accepted(lines[:room]), _accepted(lines[room:])
    assert len(before_room) > 100
    assert len(after_room) > 10
    delivered = [int(line.split()[1]) for line in lines if line.startswith("sent ")]
    assert sorted(before_room + after_room) == sorted(delivered)


def _accepted(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("250 ")]

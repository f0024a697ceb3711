"""
The two programs in C: a load generator and a sink that stands in for SES.

They are compiled with gcc when their source is newer. A generator in Python would be slower than
what it measures. What they do is said at the top of ``native/load.c`` and ``native/sink.c``.
"""

import contextlib
import json
import mmap
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trustme

SOURCES = Path(__file__).with_name("native")
CACHE = Path(__file__).parents[2] / ".cache" / "bench"
_COUNTERS = struct.Struct("=8Q")


def wait_until(
    condition: Callable[[], object], what: str, deadline_s: float = 20.0, pause_s: float = 0.02
) -> None:
    """Poll until it is so; raise TimeoutError after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {deadline_s:g} s for {what}")
        time.sleep(pause_s)


def compiled(name: str) -> Path:
    """Compile a program when its source is newer than it, and give its path."""
    program = CACHE / name
    sources = (SOURCES / f"{name}.c", SOURCES / "conn.h")
    newest = max(source.stat().st_mtime for source in sources)
    if not program.exists() or program.stat().st_mtime < newest:
        CACHE.mkdir(parents=True, exist_ok=True)
        names = [str(program), str(sources[0])]
        command = ["gcc", "-std=gnu11", "-O2", "-o", *names, "-lssl", "-lcrypto"]
        subprocess.run(command, check=True)
    return program


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and how."""

    connections: int = 50
    size: int = 4096
    reuse: bool = False
    """Whether a client keeps its connection for many messages."""
    seconds: float = 0.0
    """Time after which no message is begun; 0: none."""
    messages: int = 10_000_000
    limit_s: float = 120.0
    """Time after which everything is given up."""
    sender: str = "app@example.com"
    hesitation_s: float = 0.0
    """Time for which each client is silent in the middle of a message."""
    starttls: bool = False
    """STARTTLS and AUTH, for the sink itself."""

    def arguments(self) -> list[str]:
        """The options of ``load``."""
        words = ["-c", self.connections, "-s", self.size, "-d", self.seconds, "-n", self.messages]
        words += ["-L", self.limit_s, "-f", self.sender, "-w", self.hesitation_s]
        return [*map(str, words), *["-R"] * self.reuse, *["-T", "-A"] * self.starttls]


@dataclass(frozen=True, slots=True)
class Sent:
    """What the load generator says afterwards."""

    accepted: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    began_ns: int
    stalls: int
    body: str
    error: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients connect to: a port of 127.0.0.1, or a Unix socket."""

    port: int = 0
    path: Path | None = None

    def arguments(self) -> list[str]:
        """The options of ``load``."""
        return ["-u", str(self.path)] if self.path else ["-p", str(self.port)]


def start_load(
    target: Target, load: Load, run: str, ids: Path, *, user: int | None = None
) -> subprocess.Popen[bytes]:
    """Start to send; the ids of what was accepted are in `ids` when it has ended."""
    command = [str(compiled("load")), *target.arguments(), *load.arguments()]
    command += ["-r", run, "-a", str(ids)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, user=user)


def send(target: Target, load: Load, run: str, ids: Path, *, user: int | None = None) -> Sent:
    """Send, and wait for the end of it."""
    output, _ = start_load(target, load, run, ids, user=user).communicate()
    return Sent(**json.loads(output))


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the messages of one run."""

    delivered: int = 0
    """Messages that were accepted and that the sink has."""
    lost: int = 0
    """Messages that were accepted and that the sink neither has nor refused with a 5xx."""
    duplicated: int = 0
    """Copies beyond the first."""
    altered: int = 0
    """Messages with another body than was sent."""


def account(accepted: Iterator[str], log: Iterator[str], run: str, body: str) -> Account:
    """
    Compare the accepted ids with the sink's log.

    Args:
        accepted: Lines with an id.
        log: Lines of the sink.
        run: Only messages of this run count.
        body: Checksum of the body that was sent.
    """
    wanted = {line.strip() for line in accepted}
    seen: Counter[str] = Counter()
    refused = set()
    altered = 0
    for line in log:
        identifier, checksum, _ = line.split()
        if identifier.rpartition("-")[0] != run:
            continue
        if checksum == "refused":
            refused.add(identifier)
        else:
            seen[identifier] += 1
            altered += checksum != body
    return Account(
        delivered=len(wanted & seen.keys()),
        lost=len(wanted - seen.keys() - refused),
        duplicated=seen.total() - len(seen),
        altered=altered,
    )


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    ca_file: Path
    _state: mmap.mmap = field(repr=False)

    @property
    def log(self) -> Path:
        """Its log; complete once it was idle for a moment."""
        return self.directory / "sink.log"

    def counters(self) -> tuple[int, ...]:
        """Messages, bytes, time of the last one, connections, TLS, AUTH, open, port."""
        return _COUNTERS.unpack(self._state[: _COUNTERS.size])

    @property
    def messages(self) -> int:
        """Messages that it has taken."""
        return self.counters()[0]

    @property
    def last_ns(self) -> int:
        """When it took the last one (CLOCK_MONOTONIC)."""
        return self.counters()[2]

    def wait_for(self, messages: int, *, patience_s: float = 15.0, limit_s: float = 120.0) -> bool:
        """Wait until it has so many; False when none came for a while, or it took too long."""
        end = time.monotonic() + limit_s
        last, last_change = -1, time.monotonic()
        while (now := self.messages) < messages:
            if now != last:
                last, last_change = now, time.monotonic()
            if time.monotonic() > min(end, last_change + patience_s):
                return False
            time.sleep(0.05)
        return True


@contextlib.contextmanager
def running_sink(directory: Path, options: Sequence[str] = ()) -> Iterator[Sink]:
    """Run a sink with TLS for the length of a ``with`` block."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    authority = trustme.CA()
    ca_file, pair = directory / "ca.pem", directory / "sink.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(pair))
    state = directory / "sink.state"
    state.unlink(missing_ok=True)
    files = ["-c", pair, "-k", pair, "-s", state, "-l", directory / "sink.log"]
    process = subprocess.Popen([str(compiled("sink")), *map(str, files), *options])
    try:
        wait_until(lambda: state.exists() and state.stat().st_size == 4096, "the sink")
        with state.open("rb") as stream:
            page = mmap.mmap(stream.fileno(), 4096, prot=mmap.PROT_READ)
        wait_until(lambda: _COUNTERS.unpack(page[: _COUNTERS.size])[7], "the sink's port")
        port = _COUNTERS.unpack(page[: _COUNTERS.size])[7]
        yield Sink(directory, process, port, ca_file, page)
    finally:
        process.terminate()
        process.wait()

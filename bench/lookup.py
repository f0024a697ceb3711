"""
How fast sesguardd answers Exim's question, measured from outside.

Usage: python bench/lookup.py [--rounds N] [--lookups N] [--realtime] [--json]

The real daemon, with a real vault and its log in a file, is asked by client processes that do what
Exim does for each delivery: a new connection, one request, read to the end, close. Beside it, in
the same run and in turns, stands a minimal `asyncio.start_unix_server` that answers a constant: it
checks no peer, reads no vault and writes no log.

Server and clients have a core of their own where there are two. Two loads:

    alone    one client, one look-up after the other: the latency that a delivery sees
    rush     four clients at once: what one core of the server can do

Each figure is the median of the rounds. ``per core`` is look-ups by second of the server's own CPU
time, which other work on the machine disturbs least. On a busy machine the p99 is that of its
scheduler, for both servers alike; ``--realtime`` (root) puts all processes of the benchmark before
other work. Target: over 10,000 look-ups/s on one core, p99 under 1 ms.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sesguard.config.load import load_settings
from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.system.privileges import current_user, is_root
from sesguard.vault.opening import init_vault

REQUEST = (
    b"plainx email-smtp.us-east-1.amazonaws.com|192.0.2.1|TLS1.3:TLS_AES_256_GCM_SHA384:256"
    b"|1xVhDU-000000001Ab-0000|someone@example.org\n"
)
USER, PASSWORD = "AKIAEXAMPLE000000000", "B" + "m" * 43
ANSWER = f"^{USER}^{PASSWORD}".encode()
RUSH_CLIENTS = 4
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, CLIENT_CORES = {CORES[0]}, set(CORES[1:] or CORES)


@dataclass(frozen=True, slots=True)
class Figures:
    """One load on one server."""

    per_second: float
    per_core: float
    median_ms: float
    p99_ms: float


def look_up(path: str) -> bytes:
    """Ask as Exim's readsocket does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(4096):
            answer += data
        return answer


def client(path: str, lookups: int, start: float) -> list[int]:
    """Time many look-ups, in nanoseconds; all clients begin at `start`."""
    os.sched_setaffinity(0, CLIENT_CORES)
    times = []
    time.sleep(max(0.0, start - time.monotonic()))
    for _ in range(lookups):
        before = time.perf_counter_ns()
        answer = look_up(path)
        times.append(time.perf_counter_ns() - before)
        assert answer == ANSWER, answer
    return times


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in nanosecond steps where the kernel tells them."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure(path: Path, pid: int, clients: int, lookups: int) -> Figures:
    """Put one load on one server."""
    share = lookups // clients
    with multiprocessing.get_context("fork").Pool(clients) as pool:
        start = time.monotonic() + 0.1
        pending = pool.starmap_async(client, [(str(path), share, start)] * clients)
        time.sleep(max(0.0, start - time.monotonic()))
        cpu, wall = cpu_seconds(pid), time.perf_counter()
        times = sorted(each for one in pending.get() for each in one)
        wall, cpu = time.perf_counter() - wall, cpu_seconds(pid) - cpu
    return Figures(
        per_second=len(times) / wall,
        per_core=len(times) / cpu,
        median_ms=times[len(times) // 2] / 1e6,
        p99_ms=times[int(len(times) * 0.99)] / 1e6,
    )


async def serve_peer(path: str) -> None:
    """Run the server to compare with."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path, backlog=1024)
    await server.serve_forever()


@contextlib.contextmanager
def running(arguments: list[str], path: Path, log: Path) -> Iterator[int]:
    """Run a server on its core; its process id once it answers."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            arguments,
            stderr=stream,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORES),  # noqa: PLW1509
        )
    try:
        deadline = time.monotonic() + 20
        while not _answers(path):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return look_up(str(path)) == ANSWER
    return False


def prepare(directory: Path) -> Path:
    """Make settings and a vault with one credential."""
    directory.chmod(0o755)
    path = directory / "sesguard.toml"
    path.write_text(
        f'[credentials.main]\nregions = ["us-east-1"]\n'
        f'[vault]\ndirectory = "{directory}/vault"\n'
        f'[vault.keyfile]\npath = "{directory}/key"\n'
        f'[daemon]\nuser = "{"nobody" if is_root() else current_user().name}"\n'
        f'runtime_directory = "{directory}/run"\n'
        f'[lookup.exim]\nusers = ["{os.geteuid()}"]\n'
        f"[lookup.postfix]\nenabled = false\n"
    )
    version = CredentialVersion(
        1, USER, {"us-east-1": Secret(PASSWORD)}, "2026-01-01T00:00:00Z", "benchmark"
    )
    vault = init_vault(load_settings(path))
    vault.update("main", lambda credential: credential.add_pending(version).promote())
    return path


def run(rounds: int, lookups: int) -> dict[str, dict[str, Figures]]:
    """Measure both servers in turns."""
    results: dict[str, dict[str, list[Figures]]] = {}
    with tempfile.TemporaryDirectory(prefix="sesguard-bench-") as name:
        directory = Path(name)
        settings = prepare(directory)
        ours, peer = directory / "run" / "exim.sock", directory / "peer.sock"
        daemon = [sys.executable, "-m", "sesguard.daemon", "--config", str(settings)]
        other = [sys.executable, __file__, "--serve-peer", str(peer)]
        with (
            running(daemon, ours, directory / "ours.log") as our_pid,
            running(other, peer, directory / "peer.log") as peer_pid,
        ):
            for _ in range(rounds):
                for load, clients in (("alone", 1), ("rush", RUSH_CLIENTS)):
                    for server, path, pid in (
                        ("sesguardd", ours, our_pid),
                        ("asyncio streams", peer, peer_pid),
                    ):
                        figures = measure(path, pid, clients, lookups)
                        results.setdefault(load, {}).setdefault(server, []).append(figures)
    return {
        load: {server: _median(figures) for server, figures in servers.items()}
        for load, servers in results.items()
    }


def _median(figures: list[Figures]) -> Figures:
    def of(value: Callable[[Figures], float]) -> float:
        return statistics.median(map(value, figures))

    return Figures(
        of(lambda f: f.per_second),
        of(lambda f: f.per_core),
        of(lambda f: f.median_ms),
        of(lambda f: f.p99_ms),
    )


def show(results: dict[str, dict[str, Figures]]) -> None:
    """Print a table with ratios."""
    print(f"{'load':6} {'server':16} {'look-ups/s':>11} {'per core':>9} {'median':>10} {'p99':>10}")
    for load, servers in results.items():
        for server, f in servers.items():
            print(
                f"{load:6} {server:16} {f.per_second:11,.0f} {f.per_core:9,.0f}"
                f" {f.median_ms:7.3f} ms {f.p99_ms:7.3f} ms"
            )
        ours, peer = servers.values()
        print(
            f"{load:6} {'ratio':16} {ours.per_second / peer.per_second:11.2f}"
            f" {ours.per_core / peer.per_core:9.2f}"
            f" {ours.median_ms / peer.median_ms:10.2f} {ours.p99_ms / peer.p99_ms:10.2f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lookups", type=int, default=20_000, help="by load and round")
    parser.add_argument("--realtime", action="store_true", help="SCHED_FIFO; needs root")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve-peer", metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_peer:
        asyncio.run(serve_peer(options.serve_peer))
        return
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    results = run(options.rounds, options.lookups)
    if options.json:
        print(json.dumps({k: {s: asdict(f) for s, f in v.items()} for k, v in results.items()}))
    else:
        print(f"{len(CORES)} cores, {options.rounds} rounds of {options.lookups:,} look-ups")
        show(results)


if __name__ == "__main__":
    main()

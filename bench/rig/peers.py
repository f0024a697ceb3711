"""
The other relays, each as a smarthost client of the same sink.

Debian's mail servers push each other out, so none is installed: their packages are downloaded and
unpacked, and ``peers/enter.sh`` runs them over this machine's files. Haraka comes from npm. The
configuration of each, tuned for this load, is in its folder of ``peers``. What cannot be had here
raises `Unavailable`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rig.native import CACHE, Sink, Target, wait_until

PEERS = Path(__file__).with_name("peers")
HARAKA = "Haraka@3.1.1"
"""The last one that runs on the Node.js of most machines."""


class Unavailable(Exception):
    """A relay cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that takes mail."""

    target: Target
    pid: int
    """First process of its tree."""
    sender: str = "app@example.com"
    user: int | None = None
    """User that its clients run as; None: ours."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh_directory(name: str) -> Path:
    """An empty directory on the disk that all relays have their queues on."""
    directory = CACHE / "run" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def greets(target: Target) -> bool:
    """Whether an SMTP server answers there."""
    family = socket.AF_UNIX if target.path else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.settimeout(2)
        probe.connect(str(target.path) if target.path else ("127.0.0.1", target.port))
        answer = probe.recv(4) == b"220 "
        probe.sendall(b"QUIT\r\n")
        probe.recv(1024)
        return answer
    return False


@contextlib.contextmanager
def server(command: list[str], target: Target, log: Path, **options: str) -> Iterator[int]:
    """Run a server until the end of a ``with`` block; its process id once it greets."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=options.get("cwd"))

    def ready() -> bool:
        if process.poll() is not None:
            raise Unavailable(f"it ended by itself: {last_line(log)}")
        return greets(target)

    try:
        wait_until(ready, f"a greeting; see {log}")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_line(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def render(source: Path, target: Path, values: Mapping[str, str]) -> None:
    """Copy a folder and put values in place of ``%%NAME%%``."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in filter(Path.is_file, target.rglob("*")):
        text = path.read_text()
        for name, value in values.items():
            text = text.replace(f"%%{name}%%", value)
        path.write_text(text)


def unpacked(packages: tuple[str, ...]) -> Path:
    """Download Debian packages with what they need and this machine lacks, and unpack them."""
    directory = CACHE / "packages" / packages[0]
    root, archives = directory / "root", directory / "archives"
    if root.exists():
        return root
    if os.geteuid() != 0:
        raise Unavailable("a root of its own needs root")
    if not shutil.which("apt-get") or not shutil.which("unshare"):
        raise Unavailable("there is no apt-get or no unshare")
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "install", "--download-only", "--yes", "--quiet"]
    command += ["--no-install-recommends", "-o", f"Dir::Cache::archives={archives}"]
    command += ["-o", "Debug::NoLocking=1", "-o", "Acquire::Retries=1", *packages]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if answer.returncode:
        raise Unavailable(answer.stderr.strip().rpartition("\n")[2])
    fresh = directory / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, fresh], check=True)
    for name in ("lib", "bin", "sbin"):  # links into /usr on the machine, which folders would hide
        if (fresh / name).is_dir():
            shutil.copytree(fresh / name, fresh / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(fresh / name)
    fresh.rename(root)
    return root


@dataclass(frozen=True, slots=True)
class DebianPeer:
    """A mail server of Debian in a root of its own."""

    name: str
    packages: tuple[str, ...]
    folder: str
    spool: str
    values: Mapping[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Get what it needs."""
        unpacked(self.packages)

    @contextlib.contextmanager
    def running(self, sink: Sink) -> Iterator[Running]:
        """Run it in front of a sink."""
        work, target = fresh_directory(self.name), Target(free_port())
        ports = {"PORT": str(target.port), "SINK": str(sink.port)}
        render(PEERS / self.folder, work / "config", {**ports, **self.values})
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += [str(PEERS / "enter.sh"), str(work), str(unpacked(self.packages)), self.spool]
        with server(command, target, work / "server.log") as pid:
            yield Running(target, pid)


@dataclass(frozen=True, slots=True)
class HarakaPeer:
    """Haraka with its plugin ``queue/smtp_forward``, which passes mail through."""

    name: str = "haraka"

    def prepare(self) -> None:
        """Install it below the cache."""
        directory = CACHE / "haraka"
        if not shutil.which("node") or not shutil.which("npm"):
            raise Unavailable("there is no Node.js")
        if (directory / "node_modules" / "Haraka").exists():
            return
        directory.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--omit=optional", HARAKA]
        answer = subprocess.run(
            command, check=False, cwd=directory, capture_output=True, text=True, timeout=300
        )
        if answer.returncode:
            raise Unavailable(answer.stderr.strip().rpartition("\n")[2])

    @contextlib.contextmanager
    def running(self, sink: Sink) -> Iterator[Running]:
        """Run it in front of a sink."""
        work, target = fresh_directory(self.name), Target(free_port())
        shutil.copytree(CACHE / "haraka/node_modules/Haraka/config", work / "config")
        render(PEERS / "haraka", work, {"PORT": str(target.port), "SINK": str(sink.port)})
        program = CACHE / "haraka" / "node_modules" / ".bin" / "haraka"
        command = ["env", f"NODE_EXTRA_CA_CERTS={sink.ca_file}"]  # it verifies, and has no setting
        command += ["node", str(program.resolve()), "-c", str(work)]
        with server(command, target, work / "server.log") as pid:
            yield Running(target, pid)


POSTFIX = DebianPeer("postfix", ("postfix", "libsasl2-modules"), "postfix", "/var/spool/postfix")
EXIM_PACKAGES = ("exim4-daemon-light", "exim4-base")
EXIM = DebianPeer("exim", EXIM_PACKAGES, "exim", "/var/spool/exim4", {"CUTTHROUGH": ""})
EXIM_CUTTHROUGH = DebianPeer(
    "exim cut-through",
    EXIM_PACKAGES,
    "exim",
    "/var/spool/exim4",
    {"CUTTHROUGH": "control = cutthrough_delivery"},
)
OPENSMTPD = DebianPeer("opensmtpd", ("opensmtpd",), "opensmtpd", "/var/spool/smtpd")
HARAKA_FORWARD = HarakaPeer()

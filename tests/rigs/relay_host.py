"""
A host with nothing but a relay: settings, vault, sesguardd and, beside it, the sandbox as SES.

    with relay_host(sandbox, apps=ROOT_MAY_SPOOL) as host:
        with host.running() as daemon, host.smtp() as client: ...

The daemon runs as `DAEMON_USER` when the tests run as root, as on a real host.
"""

import contextlib
import shutil
import smtplib
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.hosts import DAEMON_USER, put_current, relay_settings
from rigs.daemon import Daemon, start_daemon, wait_until
from rigs.sandbox import SandboxRig, eventually
from sesguard.config.load import load_settings
from sesguard.config.schema import Settings
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.relay.registry import REGISTRY_FILE, AppRegistry
from sesguard.sandbox.model import ReceivedMessage
from sesguard.sandbox.seed import SeededKey
from sesguard.system.privileges import find_user, is_root
from sesguard.system.sockets import free_port
from sesguard.vault.opening import init_vault

LOOPBACK = '"127.0.0.1:{port}", "[::1]:{port}"'
ROOT_MAY_PASS = """\
[apps.mta]
users = ["root"]
senders = ["*@example.com"]
delivery = "pass"
"""
ROOT_MAY_SPOOL = ROOT_MAY_PASS.replace("pass", "spool").replace("mta", "shop")


@dataclass(slots=True)
class RelayHost:
    """One host; see the module docstring."""

    directory: Path
    rig: SandboxRig
    key: SeededKey
    port: int
    apps: str
    """Tables of apps, in TOML."""
    relay: str = ""
    """More keys of the table [relay], in TOML."""
    credential: str = ""
    """More keys of the credential's table, in TOML."""
    listen: str = LOOPBACK
    """Addresses to listen on, in TOML."""

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    @property
    def unix_socket(self) -> Path:
        """The relay's Unix socket for SMTP."""
        return self.directory / "run" / "relay.sock"

    @property
    def lmtp_socket(self) -> Path:
        """The relay's Unix socket for LMTP."""
        return self.directory / "run" / "lmtp.sock"

    @property
    def spool_directory(self) -> Path:
        """Where the queue is."""
        return self.directory / "spool"

    @property
    def secret(self) -> Secret:
        """The SES password that must be nowhere."""
        return derive_smtp_password(self.key.secret_key, self.rig.info.region)

    def settings(self) -> Settings:
        """The settings, read from their file."""
        return load_settings(self.settings_path)

    def registry(self) -> AppRegistry:
        """Tokens and suspensions, to be changed as the command line does."""
        user = find_user(DAEMON_USER)
        path = self.directory / "state" / REGISTRY_FILE
        return AppRegistry(path, group=user.gid if user and is_root() else None)

    def write_settings(self) -> None:
        """Write the settings file for the present state of this object."""
        info = self.rig.info
        self.settings_path.write_text(
            relay_settings(
                self.directory,
                (info.smtp_host, info.starttls_port),
                self.directory / "ca.pem",
                listen=self.listen.format(port=self.port),
                apps=self.apps,
                relay=self.relay,
                credential=self.credential,
                region=info.region,
            )
        )

    def import_key(self, key: SeededKey) -> None:
        """Make the key the CURRENT version of the credential."""
        region = self.rig.info.region
        password = derive_smtp_password(key.secret_key, region)
        put_current(self.settings(), key.access_key_id, password, region=region)

    @contextlib.contextmanager
    def running(
        self,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Iterator[Daemon]:
        """
        Run the daemon, which may be several processes, for the length of a block.

        See `start_daemon` for the arguments.
        """
        daemon = start_daemon(
            self.settings_path, wrapper=wrapper, environment=environment, pass_fds=pass_fds
        )
        try:
            wait_until(lambda: _answers(daemon), f"sesguardd to answer; see {daemon.log_path}")
            yield daemon
        finally:
            daemon.stop()

    def smtp(self, *, v6: bool = False) -> smtplib.SMTP:
        """A client on TCP."""
        return smtplib.SMTP("::1" if v6 else "127.0.0.1", self.port, "client.test", timeout=20)

    def tcp(self, *, v6: bool = False) -> socket.socket:
        """A connection to the TCP port."""
        return socket.create_connection(("::1" if v6 else "127.0.0.1", self.port), timeout=20)

    def unix(self, path: Path | None = None) -> socket.socket:
        """A connection to the Unix socket for SMTP, or another one."""
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(20)
        channel.connect(str(path or self.unix_socket))
        return channel


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A host and its daemon."""

    host: RelayHost
    daemon: Daemon

    @property
    def rig(self) -> SandboxRig:
        """The sandbox that stands in for SES."""
        return self.host.rig

    def inbox(self) -> list[ReceivedMessage]:
        """What SES has taken."""
        return self.rig.client.inbox()

    def received(self, count: int = 1) -> list[ReceivedMessage]:
        """What SES has taken, once it is so many messages."""
        return eventually(
            lambda: found if len(found := self.inbox()) >= count else [],
            message=f"SES does not have {count} messages",
        )

    def raw(self, message: ReceivedMessage) -> bytes:
        """A message as SES delivers it."""
        return self.rig.client.raw_message(message.id)

    def workers(self) -> list[int]:
        """Process ids of the workers; none where one process does everything."""
        return children_of(self.daemon.pid)

    def numbers(self) -> dict[str, float]:
        """The metrics, each with its labels as Prometheus writes them."""
        text = self.daemon.ask("control", b"metrics\n").decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children, the oldest first."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _answers(daemon: Daemon) -> bool:
    assert daemon.process.poll() is None, daemon.log_path.read_text(errors="replace")
    with contextlib.suppress(OSError, ValueError):
        return daemon.status()["pid"] in (daemon.pid, *children_of(daemon.pid))
    return False


StartRelay = Callable[..., RunningRelay]
"""Starts a relay; takes the keyword arguments of `relay_host`."""


@contextlib.contextmanager
def relay_host(
    rig: SandboxRig,
    *,
    apps: str = ROOT_MAY_PASS,
    relay: str = "",
    credential: str = "",
    listen: str = LOOPBACK,
    key: SeededKey | None = None,
) -> Iterator[RelayHost]:
    """A host whose daemon is not running yet; without `key` an account is made for it."""
    directory = Path(tempfile.mkdtemp(prefix="sesguard-relay-"))
    try:
        directory.chmod(0o755)
        (directory / "state").mkdir(mode=0o755)
        key = key or rig.seed()
        host = RelayHost(directory, rig, key, free_port(), apps, relay, credential, listen)
        shutil.copyfile(rig.info.ca_file, directory / "ca.pem")
        host.write_settings()
        init_vault(host.settings())
        host.import_key(host.key)
        yield host
    finally:
        shutil.rmtree(directory, ignore_errors=True)

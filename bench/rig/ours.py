"""
The relay that is measured: a real sesguardd with a real vault, its clients told by their uid.

Everything is in one directory on the disk that the other relays have their queues on. As root the
daemon becomes ``nobody``, otherwise it stays who we are. The app of the clients has every kind of
rule; ``plain`` has the least that lets it send.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.hosts import put_current, relay_settings
from rig.native import Sink, Target
from rig.peers import Running, free_port, fresh_directory, server
from sesguard.config.load import load_settings
from sesguard.config.schema import Settings
from sesguard.core.secret import Secret
from sesguard.vault.opening import init_vault

RULES = """\
allowed_recipients = ["*@example.net", "*@example.edu", "friend@example.org"]
denied_recipients = ["abuse@example.net", "*@example.gov"]
per_minute = 100000000
per_hour = 1000000000
per_day = 1000000000
configuration_set = "bench"
"""


def app_table(name: str, user: int, delivery: str, rules: str = RULES) -> str:
    """Settings of an app whose processes are those of one user."""
    return (
        f'\n[apps.{name}]\nusers = ["{user}"]\nsenders = ["*@example.com", "bounces@example.org"]\n'
        f'delivery = "{delivery}"\n{rules}'
    )


@dataclass(frozen=True, slots=True)
class SesguardHost:
    """A directory with settings and a vault."""

    directory: Path
    port: int

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    def settings(self) -> Settings:
        """The settings, read from their file."""
        return load_settings(self.settings_path)

    def command(self) -> list[str]:
        """Program and arguments of the daemon."""
        return [sys.executable, "-m", "sesguard.daemon", "--config", str(self.settings_path)]

    def rotate(self) -> None:
        """Put another credential into the vault as CURRENT."""
        username = f"AKIA{secrets.token_hex(8).upper()}"
        put_current(self.settings(), username, Secret("B" + "m" * 43))


def make_host(name: str, sink: Sink, apps: str, processes: int = 1) -> SesguardHost:
    """Make a host that relays to the sink."""
    host = SesguardHost(fresh_directory(name), free_port())
    for part in ("state", "run"):
        (host.directory / part).mkdir()
    host.settings_path.write_text(
        relay_settings(
            host.directory,
            ("localhost", sink.port),
            sink.ca_file,
            listen=f'"127.0.0.1:{host.port}"',
            relay=f"processes = {processes}\nmax_connections = 1200",
            apps=apps,
        )
    )
    init_vault(host.settings())
    host.rotate()
    return host


@dataclass(frozen=True, slots=True)
class Sesguard:
    """One way to run our relay."""

    name: str
    delivery: str = "pass"
    processes: int = 1
    rules: str = RULES
    unix: bool = False
    """Whether clients use the Unix socket."""

    def prepare(self) -> None:
        """It is here."""

    @contextlib.contextmanager
    def running(self, sink: Sink) -> Iterator[Running]:
        """Run it in front of a sink."""
        table = app_table("site", os.geteuid(), self.delivery, self.rules)
        host = make_host(self.name.replace(" ", "-"), sink, table, self.processes)
        socket_path = host.directory / "run" / "relay.sock"
        target = Target(path=socket_path) if self.unix else Target(host.port)
        with server(host.command(), target, host.directory / "server.log") as pid:
            yield Running(target, pid)


PASS = Sesguard("sesguard pass")
SPOOL = Sesguard("sesguard spool", "spool")
PASS_2 = Sesguard("sesguard pass, 2 processes", processes=2)
SPOOL_2 = Sesguard("sesguard spool, 2 processes", "spool", processes=2)
PASS_UNIX = Sesguard("sesguard pass, Unix socket", unix=True)
PASS_PLAIN = Sesguard("sesguard pass, no rules", rules="")

"""
A private Exim: own configuration, spool, log and port; nothing of the host's Exim is touched.

`EximRig` writes one of the layouts with a plaintext credential in it, starts the daemon, submits
mail and reads the queue and the log. It needs root, because Exim does.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

EXIM = next((p for p in ("/usr/sbin/exim4", "/usr/sbin/exim") if Path(p).exists()), None)

needs_exim = pytest.mark.skipif(
    EXIM is None or os.geteuid() != 0, reason="left out: Exim and root are needed"
)

MAIN = """\
primary_hostname = host.example.org
spool_directory = {spool}
log_file_path = {log}/%slog
pid_file_path = {spool}/exim.pid
exim_user = {user}
exim_group = {group}
never_users = nobody
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
domainlist local_domains = host.example.org
acl_smtp_rcpt = acl_rcpt
log_selector = +smtp_confirmation +tls_certificate_verified +tls_cipher
timeout_frozen_after = 7d
queue_run_max = 5
smtp_accept_max = 0
remote_max_parallel = 2
keep_environment =
rfc1413_query_timeout = 0s
host_lookup =
smtp_enforce_sync = false
"""

BODY = """\
begin acl
acl_rcpt:
  accept hosts = 127.0.0.1

begin routers
{router_name}:
  driver = manualroute
  domains = ! +local_domains
  transport = ses_smtp
  route_list = "* {host}::{ses_port} byname"
  host_find_failed = defer
  self = send
  no_more
drop_local:
  driver = redirect
  data = :blackhole:

begin transports
ses_smtp:
  driver = smtp
  port = {ses_port}
  {auth_hosts} = *
  hosts_require_tls = *
  tls_verify_certificates = {ca}
  tls_verify_hosts = *
  connect_timeout = 5s
  command_timeout = 10s
  data_timeout = 10s
  final_timeout = 20s

begin retry
* * F,2h,1s

begin authenticators
"""

CLIENT_SEND = {
    "plain": "{name}:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^{u}^{p}\n",
    "hidden": (
        '{name}:\n  driver = plaintext\n  public_name = PLAIN\n  hide client_send = "^{u}^{p}"\n'
    ),
    "login": (
        "{name}:\n  driver = plaintext\n  public_name = LOGIN\n  client_send = : {u} : {p}\n"
    ),
    "login-separator": (
        "{name}:\n  driver = plaintext\n  public_name = LOGIN\n  client_send = <; ; {u} ; {p}\n"
    ),
    "continued": (
        "{name}:\n  driver = plaintext\n  public_name = LOGIN\n"
        "  client_send = : {u} \\\n    : {p}\n"
    ),
    "unindented": ("{name}:\ndriver = plaintext\npublic_name = LOGIN\nclient_send = ^{u}^{p}\n"),
}
"""Every form of client_send that is found on real hosts."""


@dataclass(slots=True)
class EximRig:
    """One private Exim installation below `directory`."""

    directory: Path
    ses_port: int
    ca_file: Path
    username: str
    password: str
    form: str = "plain"
    layout: str = "monolithic"
    host: str = "localhost"
    auth_hosts: str = "hosts_try_auth"
    port: int = field(default_factory=lambda: free_port())  # noqa: PLW0108 - defined below
    _daemon: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The file that Exim reads."""
        return self.directory / "exim.conf"

    @property
    def log(self) -> Path:
        """Exim's main log."""
        return self.directory / "log" / "mainlog"

    @property
    def pid_file(self) -> Path:
        """The daemon's pid file."""
        return self.directory / "spool" / "exim.pid"

    def prepare(self) -> "EximRig":
        """Make directories and the configuration with the plaintext in it."""
        user = exim_user()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        for name in ("spool", "log"):
            path = self.directory / name
            path.mkdir(exist_ok=True)
            os.chown(path, user.pw_uid, user.pw_gid)
        self.config.write_text(self.main_text() + self.body_text() + self.authenticator_text())
        os.chown(self.config, 0, user.pw_gid)
        self.config.chmod(0o640)
        return self

    def main_text(self) -> str:
        """The main section."""
        user = exim_user()
        return MAIN.format(
            spool=self.directory / "spool",
            log=self.directory / "log",
            user=user.pw_uid,
            group=user.pw_gid,
            port=self.port,
        )

    def body_text(self) -> str:
        """ACLs, routers, transports and retry rules."""
        return BODY.format(
            router_name="ses_smarthost",
            host=self.host,
            ses_port=self.ses_port,
            ca=self.ca_file,
            auth_hosts=self.auth_hosts,
        )

    def authenticator_text(self) -> str:
        """The authenticator with the credential."""
        return CLIENT_SEND[self.form].format(name="ses_login", u=self.username, p=self.password)

    def run(self, *arguments: str, stdin: str = "", user: str | None = None) -> str:
        """Run Exim and give all that it prints."""
        assert EXIM is not None
        completed = subprocess.run(
            [EXIM, "-C", str(self.config), *arguments],
            input=stdin.encode(),
            capture_output=True,
            timeout=120,
            user=user,
            check=False,
        )
        return (completed.stdout + completed.stderr).decode(errors="replace")

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        assert EXIM is not None
        self._daemon = subprocess.Popen(
            [EXIM, "-C", str(self.config), "-bdf", "-q1s"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: _answers(self.port), "Exim did not start")

    def stop(self) -> None:
        """End the daemon and what it started."""
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._daemon.pid, signal.SIGTERM)
            self._daemon.wait(20)
            self._daemon = None

    def inject(self, sender: str, recipient: str, subject: str = "test") -> None:
        """Put one mail into the queue and try to deliver it, in the foreground."""
        self.run(
            "-odf", "-oi", "-f", sender, recipient,
            stdin=f"From: {sender}\nTo: {recipient}\nSubject: {subject}\n\nhello\n",
        )  # fmt: skip

    def run_queue(self, *, force: bool = False) -> None:
        """Try every mail in the queue once."""
        self.run("-qff" if force else "-q")

    def queue_size(self) -> int:
        """How many mails wait."""
        return int(self.run("-bpc").strip().splitlines()[-1])

    def log_text(self) -> str:
        """The main log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def bounced(self) -> int:
        """How many deliveries failed for good."""
        return len(re.findall(r"^\S+ \S+ (?:\[\d+\] )?\S+ \*\* ", self.log_text(), re.MULTILINE))

    def state(self) -> dict[str, tuple[bytes, int, int, int]]:
        """Bytes, owner and mode of every configuration file."""
        found = {}
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and not path.is_relative_to(self.directory / "spool"):
                if path.is_relative_to(self.directory / "log"):
                    continue
                status = path.stat()
                found[str(path.relative_to(self.directory))] = (
                    path.read_bytes(),
                    status.st_uid,
                    status.st_gid,
                    status.st_mode,
                )
        return found


class DebianEximRig(EximRig):
    """Debian's generated configuration, made by the real ``update-exim4.conf``."""

    split = False

    @property
    def debian_directory(self) -> Path:
        """The private ``/etc/exim4``."""
        return self.directory / "etc"

    @property
    def rebuild_command(self) -> tuple[str, ...]:
        """``update-exim4.conf`` on the private directory."""
        return (
            "/usr/sbin/update-exim4.conf",
            "--confdir",
            str(self.debian_directory),
            "--output",
            str(self.config),
        )

    def prepare(self) -> "DebianEximRig":
        """Copy the distribution's files, point them at private directories, add the credential."""
        EximRig.prepare(self)
        user = exim_user()
        etc = self.debian_directory
        shutil.copytree("/etc/exim4", etc, dirs_exist_ok=True)
        for path in etc.rglob("*"):
            if path.is_file():
                self._make_private(path)
        (etc / "update-exim4.conf.conf").write_text(
            "dc_eximconfig_configtype='satellite'\n"
            "dc_other_hostnames='host.example.org'\n"
            f"dc_local_interfaces='127.0.0.1.{self.port}'\n"
            "dc_readhost='host.example.org'\n"
            "dc_relay_domains=''\n"
            "dc_minimaldns='false'\n"
            "dc_relay_nets=''\n"
            f"dc_smarthost='{self.host}::{self.ses_port}'\n"
            "CFILEMODE='644'\n"
            f"dc_use_split_config='{str(self.split).lower()}'\n"
            "dc_hide_mailname=''\n"
            "dc_mailname_in_oh='true'\n"
            "dc_localdelivery='mail_spool'\n"
        )
        passwd = etc / "passwd.client"
        passwd.write_text(f"# SES\n{self.host}:{self.username}:{self.password}\n")
        os.chown(passwd, 0, user.pw_gid)
        passwd.chmod(0o640)
        subprocess.run(self.rebuild_command, check=True, capture_output=True)
        return self

    def _make_private(self, path: Path) -> None:
        text = path.read_text(errors="surrogateescape")
        text = text.replace("CONFDIR = /etc/exim4", f"CONFDIR = {self.debian_directory}")
        text = re.sub(r"^(\s*)self = .*$", "", text, flags=re.MULTILINE)
        text = text.replace(
            "  route_list = * DCsmarthost byname\n",
            "  route_list = * DCsmarthost byname\n  self = send\n",
        )
        if "SPOOLDIR = /var/spool/exim4" in text:
            extra = "".join(
                line + "\n"
                for line in self.main_text().splitlines()
                if line.split(" ", 1)[0] in {"pid_file_path", "log_file_path"}
            )
            text = text.replace(
                "SPOOLDIR = /var/spool/exim4",
                f"SPOOLDIR = {self.directory / 'spool'}\n{extra}"
                f"REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = {self.ca_file}\n",
            )
        path.write_text(text, errors="surrogateescape")


class SplitDebianEximRig(DebianEximRig):
    """The same with ``conf.d``."""

    split = True


BUILDEXIMCONF = """\
#!/bin/sh
# Stand-in for cPanel's buildeximconf, written from its documented behaviour: the sections of
# exim.conf.local are spliced into a template at their markers, and a result that Exim refuses is
# not installed.
set -eu
template=$1; local=$2; output=$3; exim=$4
awk -v local="$local" '
  BEGIN {
    while ((getline line < local) > 0) {
      if (line ~ /^@[A-Z]+@$/) section = line
      else if (section != "") text[section] = text[section] line "\\n"
    }
  }
  /^@[A-Z]+@$/ { printf "%s", text[$0]; next }
  { print }
' "$template" > "$output.new"
chmod 0640 "$output.new"; chown --reference="$output" "$output.new"
if ! "$exim" -C "$output.new" -bV > /dev/null 2> "$output.err"; then
  cat "$output.err" >&2; rm -f "$output.new" "$output.err"; exit 1
fi
rm -f "$output.err"
mv "$output.new" "$output"
"""

CPANEL_LOCAL = """\
@AUTH@
{authenticator}
@CONFIG@

@POSTMAILCOUNT@
{router}
@TRANSPORTSTART@
{transport}
"""


class CpanelEximRig(EximRig):
    """``exim.conf.local`` spliced into ``exim.conf`` by a stand-in for ``buildeximconf``."""

    @property
    def local_file(self) -> Path:
        """The administrator's file."""
        return self.directory / "exim.conf.local"

    @property
    def rebuild_command(self) -> tuple[str, ...]:
        """The stand-in, with its arguments."""
        assert EXIM is not None
        return (
            "/bin/sh",
            str(self.directory / "buildeximconf"),
            str(self.directory / "template"),
            str(self.local_file),
            str(self.config),
            EXIM,
        )

    def prepare(self) -> "CpanelEximRig":
        """Split the monolithic configuration into template and local file, and build."""
        EximRig.prepare(self)
        body = self.body_text()
        router = re.search(r"ses_smarthost:\n(?:  .*\n)+", body)
        transport = re.search(r"ses_smtp:\n(?:  .*\n)+", body)
        assert router is not None
        assert transport is not None
        template = (
            self.main_text()
            + "@CONFIG@\n"
            + body.replace(router[0], "@POSTMAILCOUNT@\n").replace(
                transport[0], "@TRANSPORTSTART@\n"
            )
            + "@AUTH@\n"
        )
        (self.directory / "template").write_text(template)
        (self.directory / "buildeximconf").write_text(BUILDEXIMCONF)
        self.local_file.write_text(
            CPANEL_LOCAL.format(
                authenticator=self.authenticator_text(),
                router=router[0],
                transport=transport[0],
            )
        )
        self.local_file.chmod(0o600)
        subprocess.run(self.rebuild_command, check=True, capture_output=True)
        return self


RIGS: dict[str, type[EximRig]] = {
    "monolithic": EximRig,
    "debian": DebianEximRig,
    "debian-split": SplitDebianEximRig,
    "cpanel": CpanelEximRig,
}


def exim_user() -> pwd.struct_passwd:
    """The user that the installed Exim runs as."""
    assert EXIM is not None
    output = subprocess.run(
        [EXIM, "-bP", "exim_user"], capture_output=True, check=True, text=True
    ).stdout
    return pwd.getpwnam(output.rpartition("= ")[2].strip())


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: object, problem: str, timeout_s: float = 20.0) -> None:
    """Poll `condition` until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(problem)
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(rig: EximRig) -> Iterator[EximRig]:
    """The rig's daemon, for the time of the block."""
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()

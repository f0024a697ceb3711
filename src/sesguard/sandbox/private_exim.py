"""
A private Exim that relays to the sandbox: own configuration, spool, log and port.

It stands for a mail host as they are found: a smarthost with the SES credential in its
configuration, in one of the forms of `CLIENT_SEND`. Nothing of the host's own Exim is touched.
Exim needs root to change to its own user; `available` tells whether it can be had here.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.secret import Secret
from sesguard.errors import SandboxError
from sesguard.system.files import ensure_directory, find_program, read_if_exists, write_atomic
from sesguard.system.privileges import User, is_root, require_user
from sesguard.system.processes import Completed, run_program, start_program, stop_process
from sesguard.system.sockets import answers, free_port

MAIN: Final = """\
primary_hostname = host.example.org
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/spool/exim.pid
exim_user = {user}
exim_group = {group}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
domainlist local_domains = host.example.org
acl_smtp_rcpt = acl_rcpt
log_selector = +smtp_confirmation +tls_certificate_verified +tls_cipher
queue_run_max = 5
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
remote_max_parallel = 2
keep_environment =
rfc1413_query_timeout = 0s
host_lookup =
"""

BODY: Final = """\
begin acl
acl_rcpt:
  accept hosts = 127.0.0.1

begin routers
ses_smarthost:
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
  hosts_try_auth = *
  tls_verify_certificates = {ca_file}
  connect_timeout = 5s
  command_timeout = 10s
  data_timeout = 10s
  final_timeout = 20s

begin retry
* * F,2h,1s

begin authenticators
"""

_AUTHENTICATOR: Final = "ses_login:\n  driver = plaintext\n  public_name = {mechanism}\n"
CLIENT_SEND: Final = {
    "plain": _AUTHENTICATOR.format(mechanism="PLAIN") + "  client_send = ^{user}^{password}\n",
    "hidden": _AUTHENTICATOR.format(mechanism="PLAIN")
    + '  hide client_send = "^{user}^{password}"\n',
    "login": _AUTHENTICATOR.format(mechanism="LOGIN") + "  client_send = : {user} : {password}\n",
    "login-separator": _AUTHENTICATOR.format(mechanism="LOGIN")
    + "  client_send = <; ; {user} ; {password}\n",
    "continued": _AUTHENTICATOR.format(mechanism="LOGIN")
    + "  client_send = : {user} \\\n    : {password}\n",
    "unindented": _AUTHENTICATOR.format(mechanism="PLAIN").replace("  ", "")
    + "client_send = ^{user}^{password}\n",
}
"""Every form in which a credential is found in real configurations."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the private Exim sends to, and with what."""

    host: str
    port: int
    ca_file: Path
    username: str
    password: Secret


class PrivateExim:
    """
    One Exim installation below a directory that its user can enter.

    Args:
        directory: Made when missing.
        upstream: The sandbox's SMTP endpoint and a credential for it.
        form: A key of `CLIENT_SEND`.
    """

    def __init__(self, directory: Path, upstream: Upstream, form: str = "login") -> None:
        self.directory = directory
        self.config = directory / "exim.conf"
        self.pid_file = directory / "spool" / "exim.pid"
        self.log = directory / "log" / "mainlog"
        self.port = free_port()
        self.binary = exim_program()
        self.user = exim_user(self.binary)
        self._upstream = upstream
        self._form = form

    def write(self) -> None:
        """Write the configuration, with the plaintext credential in it, as Exim wants it owned."""
        ensure_directory(self.directory, mode=0o755)
        for name in ("spool", "log"):
            ensure_directory(
                self.directory / name, mode=0o750, uid=self.user.uid, gid=self.user.gid
            )
        text = self.main_text() + self.body_text() + self.authenticator_text()
        write_atomic(self.config, text.encode(), mode=0o640, uid=0, gid=self.user.gid)

    def main_text(self) -> str:
        """The main section."""
        return MAIN.format(
            directory=self.directory, user=self.user.uid, group=self.user.gid, port=self.port
        )

    def body_text(self) -> str:
        """ACLs, routers, transports and retry rules, up to the authenticators."""
        upstream = self._upstream
        return BODY.format(host=upstream.host, ses_port=upstream.port, ca_file=upstream.ca_file)

    def authenticator_text(self) -> str:
        """The authenticator with the credential."""
        return CLIENT_SEND[self._form].format(
            user=self._upstream.username, password=self._upstream.password.reveal()
        )

    def run(self, *arguments: str, stdin: bytes = b"") -> Completed:
        """Run Exim on this configuration."""
        return run_program((self.binary, "-C", self.config, *arguments), stdin=stdin, timeout_s=180)

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        Run the daemon for the time of the block.

        Raises:
            SandboxError: It does not answer.
        """
        daemon = start_program((self.binary, "-C", self.config, "-bdf", "-q2s"), environment={})
        try:
            self._wait_until_it_answers()
            yield
        finally:
            stop_process(daemon)

    def queue_size(self) -> int:
        """How many mails wait in the queue."""
        return int(self.run("-bpc").output.strip() or 0)

    def wait_until_delivered(self, timeout_s: float) -> bool:
        """Wait for an empty queue; False when mail is still there after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.queue_size() > 0:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def log_text(self) -> str:
        """The main log so far."""
        state = read_if_exists(self.log)
        return state.content.decode(errors="replace") if state else ""

    def bounced(self) -> int:
        """How many deliveries failed for good."""
        return len(re.findall(r"^\S+ \S+ \S+ \*\* ", self.log_text(), re.MULTILINE))

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 15
        while not answers(self.port):
            if time.monotonic() > deadline:
                raise SandboxError(
                    "the private Exim does not answer on port {port}",
                    hint="look at {log}",
                    port=self.port,
                    log=self.directory / "log" / "paniclog",
                )
            time.sleep(0.05)


def exim_available() -> bool:
    """Whether a private Exim can be run here: Exim is installed and we are root."""
    return is_root() and find_program("exim4", "exim") is not None


def exim_program() -> Path:
    """
    The installed Exim.

    Raises:
        SandboxError: There is none.
    """
    found = find_program("exim4", "exim")
    if found is None:
        raise SandboxError("Exim is not installed", hint="install the package exim4-daemon-light")
    return found


def exim_user(binary: Path) -> User:
    """The user that the installed Exim was built for."""
    output = run_program((binary, "-C", "/dev/null", "-bP", "exim_user")).output
    return require_user(output.rpartition("= ")[2].strip())

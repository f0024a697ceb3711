"""
A private Exim: own configuration, spool, log and port; nothing of the host's Exim is touched.

`EximRig` writes one of the layouts with a plaintext credential in it, starts the daemon, submits
mail and reads the queue and the log. It needs root, because Exim does.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sesguard.sandbox.private_exim import PrivateExim, Upstream
from sesguard.system.sockets import answers

EXIM = next((p for p in ("/usr/sbin/exim4", "/usr/sbin/exim") if Path(p).exists()), None)

needs_exim = pytest.mark.skipif(
    EXIM is None or os.geteuid() != 0, reason="left out: Exim and root are needed"
)


class EximRig(PrivateExim):
    """A private Exim with what tests do to it; the monolithic layout."""

    layout = "monolithic"

    def __init__(self, directory: Path, upstream: Upstream, form: str = "login") -> None:
        super().__init__(directory, upstream, form)
        self._daemon: subprocess.Popen[bytes] | None = None
        self.upstream = upstream

    def prepare(self) -> "EximRig":
        """Write the configuration with the plaintext in it."""
        self.write()
        return self

    def start(self, *, queue_interval: str = "1s") -> None:
        """Start the daemon, which runs the queue so often, and wait until it answers."""
        assert EXIM is not None
        self._daemon = subprocess.Popen(
            [EXIM, "-C", str(self.config), "-bdf", f"-q{queue_interval}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: answers(self.port), "Exim did not start")

    def stop(self) -> None:
        """End the daemon and what it started."""
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._daemon.pid, signal.SIGTERM)
            self._daemon.wait(20)
            self._daemon = None

    def inject(self, sender: str, recipient: str, subject: str = "test") -> None:
        """Put one mail into the queue and try to deliver it, in the foreground."""
        mail = f"From: {sender}\nTo: {recipient}\nSubject: {subject}\n\nhello\n"
        self.run("-odf", "-oi", "-f", sender, recipient, stdin=mail.encode())

    def run_queue(self, *, force: bool = False) -> None:
        """Try every mail in the queue once."""
        self.run("-qff" if force else "-q")

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

    layout = "debian"
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
        self.write()
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
            f"dc_smarthost='{self.upstream.host}::{self.upstream.port}'\n"
            "CFILEMODE='644'\n"
            f"dc_use_split_config='{str(self.split).lower()}'\n"
            "dc_hide_mailname=''\n"
            "dc_mailname_in_oh='true'\n"
            "dc_localdelivery='mail_spool'\n"
        )
        passwd = etc / "passwd.client"
        upstream = self.upstream
        passwd.write_text(
            f"# SES\n{upstream.host}:{upstream.username}:{upstream.password.reveal()}\n"
        )
        os.chown(passwd, 0, self.user.gid)
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
                f"REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = {self.upstream.ca_file}\n",
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

    layout = "cpanel"

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
        self.write()
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


def wait_for(condition: Callable[[], bool], problem: str, timeout_s: float = 20.0) -> None:
    """Poll `condition` until it is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(problem)
        time.sleep(0.05)


@contextlib.contextmanager
def running(rig: EximRig) -> Iterator[EximRig]:
    """The rig's daemon, for the time of the block."""
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()

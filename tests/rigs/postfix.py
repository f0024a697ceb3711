"""
A private Postfix that sends through our relay; it is not installed on this machine.

Debian lets Postfix and Exim not be beside each other, so ``tools/system_packages.sh postfix``
unpacks it below ``.cache``. `running_postfix` runs it in a mount namespace of its own, in which the
unpacked files lie over ``/usr`` and ``/etc``; its queue, data and log are in a directory of the
test. The network and all other files are the host's, so that the relay's sockets are where they
are. Processes end with the namespace.
"""

import contextlib
import os
import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rigs.daemon import wait_until
from sesguard.system.sockets import answers, free_port

UNPACKED = Path(__file__).parents[2] / ".cache" / "system-packages" / "postfix"
UID = 64990
"""User ``postfix`` inside; the relay, outside, sees the number."""

needs_postfix = pytest.mark.skipif(
    not (UNPACKED / "usr/sbin/postfix").exists()
    or os.geteuid() != 0
    or shutil.which("unshare") is None,
    reason="left out: an unpacked Postfix (tools/system_packages.sh postfix) and root are needed",
)

_ENTER = """\
set -eu
work=$1 packages=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$work/layers"
mkdir "$work/layers/upper" "$work/layers/work"
mount -t overlay overlay -o "lowerdir=$packages/usr:/usr" /usr
mount -t overlay overlay \\
  -o "lowerdir=$packages/etc:/etc,upperdir=$work/layers/upper,workdir=$work/layers/work" /etc
for entry in postfix:64990 postdrop:64991; do
  name=${entry%:*} id=${entry#*:}
  sed -i "/^$name:/d" /etc/passwd /etc/group
  echo "$name:x:$id:" >>/etc/group
  echo "$name:x:$id:$id::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
done
cp "$work/main.cf" "$work/master.cf" /etc/postfix/
chown postfix:postfix "$work/data"
postfix start-fg &
wait $!
"""

_MAIN = """\
compatibility_level = 3.6
maillog_file = {directory}/log/maillog
maillog_file_prefixes = {directory}
queue_directory = {directory}/spool
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = host.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtp_host_lookup = native
smtp_tls_security_level = none
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
{route}
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 1 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
lmtp      unix  - - n - - lmtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix."""

    directory: Path
    port: int

    def submit(self, sender: str, recipient: str, content: bytes) -> None:
        """Put one mail into the queue."""
        with smtplib.SMTP("127.0.0.1", self.port, "localhost", timeout=20) as connection:
            connection.sendmail(sender, [recipient], content)

    def log_text(self) -> str:
        """The mail log so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "log/maillog").read_text(errors="replace")
        return ""


@contextlib.contextmanager
def running_postfix(directory: Path, route: str) -> Iterator[Postfix]:
    """
    Run a Postfix for the length of a block.

    Args:
        directory: Made; Postfix's user can enter it.
        route: Lines of main.cf that say where all mail goes.
    """
    directory.mkdir()
    directory.chmod(0o755)
    for name in ("spool", "data", "log", "layers"):
        (directory / name).mkdir()
        (directory / name).chmod(0o755)
    port = free_port()
    (directory / "main.cf").write_text(_MAIN.format(directory=directory, route=route))
    (directory / "master.cf").write_text(_MASTER.format(port=port))
    (directory / "enter.sh").write_text(_ENTER)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["/bin/sh", str(directory / "enter.sh"), str(directory), str(UNPACKED)]
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    postfix = Postfix(directory, port)

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail((directory / "output").read_text(errors="replace") + postfix.log_text())
        return answers(port)

    try:
        wait_until(ready, "Postfix to answer")
        yield postfix
    finally:
        process.kill()  # unshare takes the namespace with it; it does not listen to SIGTERM
        process.wait()

"""
A host whose programs send through the relay of a real sesguardd; the sandbox is the upstream.

    host = make_relay_host(directory, sandbox, key)
    with host.daemon():
        host.run_as(SHOP_UID, "swaks", ...)
        host.received("b@example.net")

Two sites have a uid of their own (`SHOP_UID`, `BLOG_UID`), one has a token, the mail servers of the
host are one app. `OUTSIDER_UID` is nobody's.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import sesguard
from rig.hosts import put_current, relay_settings
from rigs.daemon import Daemon, running_daemon
from rigs.sandbox import eventually
from sesguard.config.load import load_settings
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.sandbox.model import ReceivedMessage
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import SeededKey, seed_account
from sesguard.system.sockets import free_port
from sesguard.vault.opening import init_vault

SHOP_UID, BLOG_UID, OUTSIDER_UID = 5001, 5002, 5003
SHOP, BLOG = "shop@a.example", "blog@b.example"
PROGRAM_TIMEOUT_S = 60
PYTHON = "/usr/bin/python3"
"""Of the system: another user may not be able to enter where ours is."""

needs_users = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(PYTHON).exists() or shutil.which("setpriv") is None,
    reason="left out: root, setpriv and the system's Python are needed for clients of other users",
)

_APPS = """\
[apps.shop]
users = ["{shop_uid}"]
senders = ["*@a.example"]
delivery = "pass"

[apps.blog]
users = ["{blog_uid}"]
senders = ["*@b.example"]

[apps.site]
senders = ["*@a.example"]

[apps.mta]
users = ["{mta_uid}"]
senders = ["*@a.example"]
delivery = "pass"
"""


@dataclass(frozen=True, slots=True)
class RelayHost:
    """One host; see the module docstring."""

    directory: Path
    sandbox: Sandbox
    secrets: tuple[tuple[Secret, str], ...]
    """What no program of the host may hold, each with the user that goes with it."""
    port: int
    """Of the relay, on 127.0.0.1."""

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    @property
    def socket_path(self) -> Path:
        """The relay's Unix socket, SMTP."""
        return self.directory / "run" / "relay.sock"

    @property
    def lmtp_path(self) -> Path:
        """The relay's Unix socket, LMTP."""
        return self.directory / "run" / "lmtp.sock"

    @property
    def library(self) -> Path:
        """A copy of the package that every user can read; a clone may be private."""
        return self.directory / "lib"

    @property
    def apps_directory(self) -> Path:
        """Where apps have their files."""
        return self.directory / "apps"

    def daemon(self) -> contextlib.AbstractContextManager[Daemon]:
        """Run sesguardd for the time of a block."""
        return running_daemon(self.settings_path)

    def sesguard(self, *arguments: str) -> str:
        """Run a command as root, and give what it prints to standard output."""
        command = [sys.executable, "-m", "sesguard", "--config", str(self.settings_path)]
        completed = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=True
        )
        return completed.stdout.strip()

    def run_as(
        self,
        uid: int,
        *command: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program as a user without a name, from the directory of the apps."""
        identity = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return subprocess.run(
            [*identity, *command],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=PROGRAM_TIMEOUT_S,
            cwd=self.apps_directory,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", **(environment or {})},
        )

    def received(self, recipient: str) -> ReceivedMessage:
        """The one message to `recipient`, waited for."""
        found = eventually(lambda: self._to(recipient), message=f"no mail to {recipient}")
        assert 1 == len(found)
        return found[0]

    def text_of(self, recipient: str) -> bytes:
        """The body of the one message to `recipient`, as SES would deliver it."""
        raw = self.sandbox.client.raw_message(self.received(recipient).id)
        return raw.partition(b"\r\n\r\n")[2]

    def recipients(self) -> list[str]:
        """Whom the sandbox has mail for."""
        return [address for mail in self.sandbox.client.inbox() for address in mail.recipients]

    def _to(self, recipient: str) -> list[ReceivedMessage]:
        return [mail for mail in self.sandbox.client.inbox() if recipient in mail.recipients]


def make_relay_host(directory: Path, sandbox: Sandbox, key: SeededKey, mta_uid: int) -> RelayHost:
    """
    Make a host, and verify the domains of both sites.

    Args:
        directory: Exists; other users can enter it.
        sandbox: The upstream.
        key: The IAM key of the credential.
        mta_uid: User of the host's mail server.
    """
    seed_account(sandbox, user_name="a", domain="a.example")
    seed_account(sandbox, user_name="b", domain="b.example")
    info = sandbox.info
    password = derive_smtp_password(key.secret_key, info.region)
    secrets = ((password, key.access_key_id), (key.secret_key, key.access_key_id))
    host = RelayHost(directory, sandbox, secrets, free_port())
    for name in ("state", "run", "apps"):
        (directory / name).mkdir()
    (directory / "apps").chmod(0o777)
    shutil.copytree(
        Path(sesguard.__file__).parent,
        host.library / "sesguard",
        ignore=shutil.ignore_patterns("__pycache__", "locale"),
    )
    host.settings_path.write_text(
        relay_settings(
            directory,
            (info.smtp_host, info.starttls_port),
            info.ca_file,
            listen=f'"127.0.0.1:{host.port}"',
            apps=_APPS.format(shop_uid=SHOP_UID, blog_uid=BLOG_UID, mta_uid=mta_uid),
            region=info.region,
        )
    )
    settings = load_settings(host.settings_path)
    init_vault(settings)
    put_current(settings, key.access_key_id, password, region=info.region)
    return host

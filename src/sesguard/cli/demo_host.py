"""
The mail host of the demo: what the story wants of it, and the one with a real Exim.

It holds the credential in plaintext at first, in a backup and in an application's ``.env`` too.
`sesguard.cli.demo_plain_host` is the one for a machine without Exim.
"""

import stat
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

from sesguard.cli.demo_report import MessageCount
from sesguard.cli.i18n import _
from sesguard.sandbox.client import SandboxClient
from sesguard.sandbox.mail_load import MailLoad, PhpLoad, ThreadLoad
from sesguard.sandbox.php_mail import php_available, send_by_php, send_by_python
from sesguard.sandbox.private_exim import PrivateExim, Upstream
from sesguard.system.files import read_file, write_atomic

RECIPIENTS: Final = "example.net"
_DELIVERY_TIMEOUT_S: Final = 60.0

FileFacts = tuple[bytes, int, int, int]
Sesguard = Callable[..., None]


class DemoHost(Protocol):
    """What the story does with a host."""

    plaintext_file: Path
    """The file that the credential is imported from."""

    def left_out(self) -> list[str]:
        """Parts of the host that this machine lacks, for people."""
        ...

    def describe(self) -> str:
        """Where the credential lies, for people."""
        ...

    def settings(self) -> str:
        """Tables for the settings file."""
        ...

    def states(self) -> dict[str, FileFacts]:
        """Bytes, owner and mode of every file that holds the credential."""
        ...

    def apply(self, sesguard: Sesguard) -> None:
        """Take the credential out of the host."""
        ...

    def undo(self, sesguard: Sesguard) -> None:
        """Put it back."""
        ...

    def apply_again(self, sesguard: Sesguard) -> None:
        """Take it out once more, without showing how."""
        ...

    def mail_title(self, count: int) -> str:
        """Heading of the step in which mail is sent."""
        ...

    def send(self, count: int, *, sender: str) -> int:
        """Send mails and wait until they are delivered; how many were accepted."""
        ...

    def start_load(self, first: int, *, sender: str) -> MailLoad:
        """Send in the background, recipients numbered on from `first`."""
        ...

    def wait_until_delivered(self) -> None:
        """Wait until nothing is held any more, but not for ever."""
        ...

    def bounced(self) -> int:
        """How many were given up."""
        ...


class EximHost:
    """A real Exim, private to the demo."""

    def __init__(self, directory: Path, upstream: Upstream, stack: ExitStack) -> None:
        self._exim = PrivateExim(directory, upstream)
        self._exim.write()
        self.plaintext_file = self._exim.config
        self._dotenv = directory / ".env"
        self._files = (self._exim.config, directory / "exim.conf.bak-2024", self._dotenv)
        write_atomic(self._files[1], read_file(self._exim.config).content, mode=0o644)
        write_atomic(self._dotenv, dotenv(upstream), mode=0o644)
        stack.enter_context(self._exim.running())

    def left_out(self) -> list[str]:
        """See `DemoHost.left_out`."""
        return [] if php_available() else [_("PHP and PHPMailer (Python sends the same mails)")]

    def describe(self) -> str:
        """See `DemoHost.describe`."""
        return _("plaintext in: {files}").format(files=", ".join(path.name for path in self._files))

    def settings(self) -> str:
        """See `DemoHost.settings`."""
        return f"""
[lookup.exim]
users = ["{self._exim.user.name}"]

[lookup.postfix]
enabled = false

[target.exim]
layout = "monolithic"
binary = "{self._exim.binary}"
config_file = "{self._exim.config}"
pid_file = "{self._exim.pid_file}"
extra_files = ["{self._dotenv}"]
"""

    def states(self) -> dict[str, FileFacts]:
        """See `DemoHost.states`."""
        return file_facts(self._files)

    def apply(self, sesguard: Sesguard) -> None:
        """See `DemoHost.apply`."""
        sesguard("target", "plan", "exim")
        sesguard("target", "apply", "exim", "--yes")
        sesguard("target", "verify", "exim")

    def undo(self, sesguard: Sesguard) -> None:
        """See `DemoHost.undo`."""
        sesguard("target", "undo", "exim", "--yes")

    def apply_again(self, sesguard: Sesguard) -> None:
        """See `DemoHost.apply_again`."""
        sesguard("target", "apply", "exim", "--yes")

    def mail_title(self, count: int) -> str:
        """See `DemoHost.mail_title`."""
        return _("PHPMailer sends {count} mails through Exim, which asks at each delivery").format(
            count=count
        )

    def send(self, count: int, *, sender: str) -> int:
        """See `DemoHost.send`."""
        if php_available():
            sent = send_by_php(
                self._exim.directory, self._exim.port, sender=sender, domain=RECIPIENTS, count=count
            )
        else:
            sent = send_by_python(self._exim.port, sender=sender, domain=RECIPIENTS, count=count)
        self.wait_until_delivered()
        return sent

    def start_load(self, first: int, *, sender: str) -> MailLoad:
        """See `DemoHost.start_load`."""
        exim = self._exim
        if php_available():
            return PhpLoad(exim.directory, exim.port, sender=sender, domain=RECIPIENTS, first=first)

        def send(number: int) -> bool:
            send_by_python(exim.port, sender=sender, domain=RECIPIENTS, count=1, first=number)
            return True

        return ThreadLoad(send, first=first)

    def wait_until_delivered(self) -> None:
        """See `DemoHost.wait_until_delivered`."""
        self._exim.wait_until_delivered(_DELIVERY_TIMEOUT_S)

    def bounced(self) -> int:
        """See `DemoHost.bounced`."""
        return self._exim.bounced()


def count_messages(client: SandboxClient, sent: int, bounced: int) -> MessageCount:
    """Compare what was sent with what is in the sandbox's inbox, recipient by recipient."""
    arrived = Counter(
        recipient
        for mail in client.inbox()
        for recipient in mail.recipients
        if recipient.startswith("customer")
    )
    return MessageCount(
        sent=sent,
        delivered=len(arrived),
        duplicated=sum(arrived.values()) - len(arrived),
        bounced=bounced,
    )


def dotenv(upstream: Upstream) -> bytes:
    """The settings file of a PHP application, with the credential in it."""
    return (
        "APP_NAME=Shop\n"
        f"MAIL_HOST={upstream.host}\n"
        f"MAIL_PORT={upstream.port}\n"
        f"MAIL_USERNAME={upstream.username}\n"
        f'MAIL_PASSWORD="{upstream.password.reveal()}"\n'
    ).encode()


def file_facts(files: tuple[Path, ...]) -> dict[str, FileFacts]:
    """Bytes, owner and mode of files, by name."""
    facts = {}
    for path in files:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        facts[path.name] = (path.read_bytes(), status.st_uid, status.st_gid, mode)
    return facts

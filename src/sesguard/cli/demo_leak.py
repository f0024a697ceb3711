"""
The second half of the demo: a rotation under load, a thief, and panic.

The application sends all the while, 20 mails a second; every mail is accounted for afterwards.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

from sesguard.cli.demo_host import DemoHost, count_messages
from sesguard.cli.demo_report import MessageCount, PanicFigures, RotationFigures
from sesguard.cli.demo_stage import Stage
from sesguard.cli.demo_thief import (
    THIEF_ADDRESS,
    Thief,
    read_containment,
    thief_accepted_after,
)
from sesguard.cli.i18n import _
from sesguard.config.load import load_settings
from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint
from sesguard.errors import SandboxError
from sesguard.sandbox.mail_load import MailLoad
from sesguard.sandbox.process import Sandbox
from sesguard.vault.opening import open_vault

_ROTATION_FIRST: Final = 100_000
_PANIC_FIRST: Final = 200_000
_ENOUGH: Final = 5
"""Mails of the thief before the leak is noticed, and tries after it was cut."""
_WAIT_S: Final = 20.0


class LeakStory:
    """
    Tells the second half.

    Args:
        stage: Where it is told.
        host: In lookup mode.
        sandbox: The upstream.
        sender: From address of the application, and of the thief.
    """

    def __init__(self, stage: Stage, host: DemoHost, sandbox: Sandbox, sender: str) -> None:
        self._stage = stage
        self._host = host
        self._sandbox = sandbox
        self._sender = sender

    def tell(self) -> None:
        """
        Go through the steps.

        Raises:
            Error: One of them failed.
        """
        with self._stage.step("rotate", _("The key is rotated, with 20 mails a second under way")):
            self._rotate()
        with ExitStack() as stack:
            self._sandbox.client.clear_inbox()
            with self._stage.step("theft", _("A thief on another address has a copy of it")):
                leaked = self._current()
                load = self._host.start_load(_PANIC_FIRST, sender=self._sender)
                stack.callback(load.stop)
                thief = self._start_thief(leaked)
                stack.callback(thief.stop)
                _wait_until(lambda: len(thief.accepted) >= _ENOUGH)
                self._stage.say(
                    _("SES took {count} mails in your name from {address}").format(
                        count=len(thief.accepted), address=THIEF_ADDRESS
                    )
                )
            with self._stage.step("panic", _("One command cuts the thief off; mail waits")):
                self._panic(leaked, load, thief)

    def _rotate(self) -> None:
        self._sandbox.client.clear_inbox()
        bounced = self._host.bounced()
        load = self._host.start_load(_ROTATION_FIRST, sender=self._sender)
        started = time.monotonic()
        try:
            self._stage.sesguard("rotate")
            seconds = time.monotonic() - started
        finally:
            sent = load.stop()
        count = self._count(len(sent), bounced)
        self._stage.report.rotation = RotationFigures(count, seconds)

    def _panic(self, leaked: CredentialVersion, load: MailLoad, thief: Thief) -> None:
        bounced = self._host.bounced()
        started_at, started = datetime.now(UTC), time.monotonic()
        self._stage.sesguard("panic", "--yes")
        seconds = time.monotonic() - started
        tried = thief.tried
        _wait_until(lambda: thief.tried >= tried + _ENOUGH)
        accepted = len(thief.stop())
        count = self._count(len(load.stop()), bounced)
        client = self._sandbox.client
        containment = read_containment(client, leaked.username)
        after = thief_accepted_after(client, containment.proved_at)
        self._stage.report.panic = figures = PanicFigures(
            messages=count,
            contained_seconds=(containment.refused_at - started_at).total_seconds(),
            total_seconds=seconds,
            thief_accepted_before=accepted - after,
            thief_accepted_after=after,
        )
        self._stage.say(
            _(
                "SES refused the stolen key after {contained:.1f} s and took {after} mails with it "
                "since; all done after {total:.1f} s"
            ).format(contained=figures.contained_seconds, after=after, total=figures.total_seconds)
        )

    def _count(self, sent: int, bounced_before: int) -> MessageCount:
        self._host.wait_until_delivered()
        bounced = self._host.bounced() - bounced_before
        count = count_messages(self._sandbox.client, sent, bounced)
        self._stage.say(count.describe())
        return count

    def _current(self) -> CredentialVersion:
        settings = load_settings(self._stage.settings)
        return open_vault(settings).read().credentials["ses"].current()

    def _start_thief(self, leaked: CredentialVersion) -> Thief:
        info = self._sandbox.info
        endpoint = Endpoint(info.smtp_host, info.starttls_port)
        return Thief(endpoint, info.ca_file, leaked, self._sender)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SandboxError("the thief does not come through")
        time.sleep(0.05)

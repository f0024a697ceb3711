"""
The last part of the demo: PHP sites that send through the relay and hold no credential.

Each site is a user of its own, as PHP-FPM pools are; the relay knows it by the uid that the kernel
tells. One site then tries to send in the other's name. Without root there is one site, and it tries
a name that is nobody's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Final

from sesguard.cli.demo_report import RelayFigures
from sesguard.cli.demo_stage import Stage
from sesguard.cli.i18n import _
from sesguard.daemon.sockets import CONTROL, socket_path
from sesguard.errors import SandboxError
from sesguard.sandbox.model import ReceivedMessage
from sesguard.sandbox.php_mail import php_available, send_by_php, send_by_python
from sesguard.sandbox.process import Sandbox
from sesguard.system.files import ensure_directory
from sesguard.system.privileges import current_user, is_root
from sesguard.system.sockets import ask_json

_RECIPIENTS: Final = "example.net"
_MAILS: Final = 10
_FIRST: Final = 300_000
_DELIVERY_TIMEOUT_S: Final = 20.0
_FIGURES_AGE_S: Final = 1.5
_UIDS: Final = (61_001, 61_002)
"""Users that need not exist: the kernel knows uids, not names."""


@dataclass(frozen=True, slots=True)
class Site:
    """One PHP site."""

    app: str
    uid: int
    sender: str


def make_sites(domain: str) -> tuple[Site, ...]:
    """The sites that this machine can have."""
    names = ("shop", "blog")
    if not (is_root() and php_available()):
        return (Site("shop", current_user().uid, f"shop@{domain}"),)
    return tuple(
        Site(name, uid, f"{name}@{domain}") for name, uid in zip(names, _UIDS, strict=True)
    )


def relay_settings(sites: Sequence[Site], port: int, directory: Path) -> str:
    """Tables for the settings file."""
    tables = [f'[relay]\nlisten = ["127.0.0.1:{port}"]\nspool_directory = "{directory}/relay"\n']
    tables += [
        f'[apps.{site.app}]\nusers = ["{site.uid}"]\nsenders = ["{site.sender}"]\n'
        for site in sites
    ]
    return "\n".join(tables)


class RelayStory:
    """
    Tells the last part.

    Args:
        stage: Where it is told.
        sandbox: The upstream.
        sites: Who sends.
        port: The relay's.
    """

    def __init__(self, stage: Stage, sandbox: Sandbox, sites: Sequence[Site], port: int) -> None:
        self._stage = stage
        self._sandbox = sandbox
        self._sites = sites
        self._port = port

    def tell(self) -> None:
        """
        Go through the steps.

        Raises:
            Error: One of them failed.
        """
        self._sandbox.client.clear_inbox()
        title = _("PHP sites send through the relay: known by their uid, without any credential")
        with self._stage.step("relay", title):
            sent = sum(
                self._send(site, site.sender, _FIRST + index * _MAILS)
                for index, site in enumerate(self._sites)
            )
            arrived = self._wait_for(sent)
            for site in self._sites:
                own = [mail for mail in arrived if mail.tags.get("app") == site.app]
                text = _("{app} (uid {uid}): {count} mails, tagged for SES's events")
                self._stage.say(text.format(app=site.app, uid=site.uid, count=len(own)))
        with self._stage.step("spoof", _("One of them tries to send in another's name")):
            self._spoof()
            self._wait_for_empty_queue()
        inbox = self._sandbox.client.inbox()
        self._stage.report.relay = RelayFigures(
            sent=sent,
            delivered=len({mail.recipients for mail in arrived}),
            spoofed_accepted=sum(self._is_spoofed(mail) for mail in inbox),
            apps=len(self._sites),
        )

    def _send(self, site: Site, sender: str, first: int) -> int:
        numbers = {"sender": sender, "domain": _RECIPIENTS}
        if not php_available():
            return send_by_python(self._port, **numbers, count=_MAILS, first=first)
        directory = self._stage.directory / "sites" / site.app
        ensure_directory(directory, mode=0o755)
        run_as = site.uid if is_root() else None
        return send_by_php(
            directory, self._port, **numbers, count=_MAILS, first=first, run_as=run_as
        )

    def _spoof(self) -> None:
        """Whatever the site hears, only what arrives counts."""
        site, victim = self._sites[-1], self._victim()
        try:
            self._send(site, victim, 2 * _FIRST)
        except (SandboxError, OSError) as error:
            reason = str(error).partition(": ")[2][:200] or str(error)
            self._stage.say(_("{app} as {victim}: refused").format(app=site.app, victim=victim))
            self._stage.say("  " + reason)

    def _victim(self) -> str:
        others = [site.sender for site in self._sites[:-1]]
        return others[0] if others else "ceo@" + self._sites[0].sender.partition("@")[2]

    def _is_spoofed(self, mail: ReceivedMessage) -> bool:
        own = {site.app: site.sender for site in self._sites}.get(mail.tags.get("app", ""))
        return not own == mail.envelope_sender == parseaddr(mail.header("From") or "")[1]

    def _wait_for_empty_queue(self) -> None:
        """What a spoof would have put there has been sent then; the figure is a second old."""
        path = socket_path(self._stage.directory / "run", CONTROL)
        time.sleep(_FIGURES_AGE_S)
        deadline = time.monotonic() + _DELIVERY_TIMEOUT_S
        while ask_json(path, b"status\n")["relay"]["queue_messages"]:
            if time.monotonic() > deadline:
                raise SandboxError("the relay's queue did not become empty")
            time.sleep(0.1)

    def _wait_for(self, count: int) -> list[ReceivedMessage]:
        deadline = time.monotonic() + _DELIVERY_TIMEOUT_S
        while len(inbox := self._sandbox.client.inbox()) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        return inbox

"""
Credentials change under load: real Exim in lookup mode, mail from PHPMailer, rotation and panic.

Exim's queue runner never comes by in these tests, and its retry time is 15 minutes: mail that was
held goes out because it is released, not because somebody happens to try again.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from rigs.daemon import wait_until
from rigs.exim import needs_exim
from rigs.host import SENDER, MailHost, ignore
from sesguard.aws.iam import IamKeys, KeyStatus
from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint
from sesguard.respond.playbook import PanicOptions, PanicService
from sesguard.rotation.service import RotationService
from sesguard.sandbox.mail_load import PhpLoad
from sesguard.sandbox.php_mail import php_available
from sesguard.sandbox.seed import admin_session
from sesguard.upstream.smtp import LoginRefused, check_login
from sesguard.vault.opening import open_vault
from sesguard.vault.sealer import VaultSealer

pytestmark = [
    pytest.mark.real,
    needs_exim,
    pytest.mark.skipif(not php_available(), reason="left out: PHP and PHPMailer are needed"),
]

RECIPIENTS = "example.net"
ROTATIONS = 10


@dataclass(slots=True)
class LoadedHost:
    """A host that rotates and panics."""

    mail: MailHost
    rotation: RotationService
    panic: PanicService
    used: list[CredentialVersion] = field(default_factory=list)
    """Every version that was CURRENT and is not any more."""

    def current(self) -> CredentialVersion:
        """The version that mail is sent with."""
        return open_vault(self.mail.settings()).read().credentials["ses"].current()

    def rotate(self) -> None:
        """``sesguard rotate``."""
        self.used.append(self.current())
        self.rotation.rotate("ses", ignore)

    def start_load(self, first: int = 1) -> PhpLoad:
        """20 mails a second, until it is stopped."""
        exim = self.mail.exim
        return PhpLoad(exim.directory, exim.port, sender=SENDER, domain=RECIPIENTS, first=first)

    def is_refused(self, version: CredentialVersion) -> bool:
        """Whether SES refuses a version's key."""
        info = self.mail.sandbox.info
        try:
            check_login(
                Endpoint(info.smtp_host, info.starttls_port),
                version.username,
                version.passwords[info.region],
                ca_file=info.ca_file,
            )
        except LoginRefused:
            return True
        return False


@pytest.fixture
def loaded(new_host: Callable[..., MailHost]) -> Iterator[LoadedHost]:
    """A host in lookup mode; its daemons run."""
    host = new_host(canary=False)
    config = host.exim.config
    config.write_text(config.read_text().replace("F,2h,1s", "F,2h,15m"))
    with host.settings_path.open("a") as settings:
        settings.write("\n[rotation]\ngrace_hours = 0\n")
    vault, session = open_vault(host.settings()), admin_session(host.sandbox)
    sealer = VaultSealer(vault.provider)
    rotation = RotationService(
        host.settings(), vault, sealer, host.service(), lambda _: IamKeys(session)
    )
    panic = PanicService(host.settings(), vault, sealer, rotation, lambda _: session)
    with host.daemon():
        host.apply()
        host.exim.start(queue_interval="1h")
        host.sandbox.client.clear_inbox()
        yield LoadedHost(host, rotation, panic)


def assert_nothing_went_wrong(host: MailHost, sent: list[int]) -> None:
    """Sent and delivered are the same mails, one by one; none bounced or went out unsafely."""
    inbox = [mail for mail in host.sandbox.client.inbox() if mail.envelope_sender == SENDER]
    in_log = re.findall(r' C="250 Ok ([^"\s]+)"', host.exim.log_text())
    assert sorted(f"customer{number}@{RECIPIENTS}" for number in sent) == sorted(
        recipient for mail in inbox for recipient in mail.recipients
    )
    assert sorted(mail.id for mail in inbox) == sorted(in_log)
    assert 0 == host.exim.bounced()
    assert 0 == host.exim.queue_size()
    assert host.nothing_unauthenticated()


def test_ten_rotations_and_a_panic_under_load_lose_no_mail(loaded: LoadedHost) -> None:
    """PHPMailer sends 20 mails a second all the while: sent = delivered, mail by mail."""
    host, client = loaded.mail, loaded.mail.sandbox.client
    # In the first rotation IAM is slow: the new key works late, and the old one for longer.
    client.configure(new_key_delay_s=2.0, retired_key_delay_s=1.0)
    wait_until(lambda: not loaded.is_refused(loaded.current()), "the first key to work")
    load = loaded.start_load()
    try:
        for _ in range(ROTATIONS):
            loaded.rotate()
            client.configure(new_key_delay_s=0.0, retired_key_delay_s=0.0)
        leaked = loaded.current()
        loaded.used.append(leaked)
        response = loaded.panic.respond("ses", leaked.username, ignore, PanicOptions())
    finally:
        sent = load.stop()
    wait_until(lambda: host.exim.queue_size() == 0, "the held mail to be delivered")

    assert response.recovered
    assert () == response.problems
    assert_nothing_went_wrong(host, sent)
    assert len(sent) >= 200
    assert len(loaded.used) == ROTATIONS + 1
    assert all(map(loaded.is_refused, loaded.used))
    assert not loaded.is_refused(loaded.current())
    users = {mail.access_key_id for mail in client.inbox()}
    assert {version.username for version in loaded.used} | {loaded.current().username} == users


def test_release_overrides_the_retry_times_that_exim_noted(loaded: LoadedHost) -> None:
    """A 535 makes Exim put off all mail for SES by its retry time; after panic it goes out."""
    host = loaded.mail
    leaked, user = loaded.current(), host.key.user_name
    keys = IamKeys(admin_session(host.sandbox))
    keys.set_key_status(user, leaked.username, KeyStatus.INACTIVE)
    for number in range(1, 4):
        host.exim.inject(SENDER, f"customer{number}@{RECIPIENTS}")
    assert 3 == host.exim.queue_size()
    assert "retry time not reached for any host" in host.exim.log_text()

    response = loaded.panic.respond("ses", leaked.username, ignore, PanicOptions())
    wait_until(lambda: host.exim.queue_size() == 0, "the held mail to be delivered")
    host.exim.inject(SENDER, f"customer4@{RECIPIENTS}")

    assert response.recovered
    assert_nothing_went_wrong(host, [1, 2, 3, 4])

"""
Real Exim, real sesguardd, the sandbox: what happens when each of them fails.

G7: a failure of sesguard defers mail; it never bounces it and never sends unauthenticated or over
unverified TLS.
"""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rigs.daemon import start_daemon
from rigs.exim import needs_exim
from rigs.host import SENDER, MailHost
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.sandbox.model import TlsMode
from sesguard.sandbox.php_mail import php_available, send_by_php
from sesguard.sandbox.seed import seed_account

pytestmark = [pytest.mark.real, needs_exim]

NewHost = Callable[..., MailHost]


@pytest.fixture
def applied(new_host: NewHost) -> MailHost:
    """A host whose Exim asks sesguardd, which is not running."""
    host = new_host(canary=False)
    with host.daemon():
        host.apply()
    host.sandbox.client.clear_inbox()
    host.sandbox.client.clear_connections()
    return host


def test_exim_delivers_through_lookup_over_verified_tls(applied: MailHost) -> None:
    """With the daemon up, a mail is delivered with AUTH PLAIN over verified TLS."""
    with applied.daemon() as daemon:
        applied.exim.inject(SENDER, "b@example.net")
        granted = [
            event for event in daemon.events("lookup.granted") if event.get("sender") == SENDER
        ]

    mail = applied.sandbox.client.inbox()[0]
    assert ("b@example.net",) == mail.recipients
    assert applied.key.access_key_id == mail.access_key_id
    assert mail.tls_version == "TLSv1.3"
    assert "CV=yes A=sesguard_plain" in applied.exim.log_text()
    assert 1 == len(granted)
    assert SENDER == granted[0]["sender"]


@contextmanager
def silent_socket(path: Path, answer: bytes | None) -> Iterator[None]:
    """Something else on the lookup socket: it never answers, or always `answer`."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        connections: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if answer is None:
                    connections.append(connection)
                else:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in connections:
                connection.close()
    path.unlink(missing_ok=True)


def assert_deferred_then_delivered(host: MailHost, *, force: bool = False) -> None:
    """One mail waits, none bounced, none went out in an unsafe way; it goes out afterwards."""
    assert 1 == host.exim.queue_size()
    assert 0 == host.exim.bounced()
    assert host.delivered() == []
    assert host.nothing_unauthenticated()

    with host.daemon():
        host.exim.run_queue(force=force)

    assert ["b@example.net"] == host.delivered()
    assert 0 == host.exim.queue_size()
    assert 0 == host.exim.bounced()
    assert host.nothing_unauthenticated()


def test_mail_is_deferred_while_the_daemon_is_down(applied: MailHost) -> None:
    """No daemon: deferred without a retry record, delivered by the next queue run."""
    applied.exim.inject(SENDER, "b@example.net")

    assert_deferred_then_delivered(applied)


def test_mail_is_deferred_while_the_vault_key_is_away(applied: MailHost) -> None:
    """A daemon that cannot have its key does not start and says why; mail waits for it."""
    key = applied.directory / "state" / "vault.key"
    away = key.rename(key.with_name("away"))
    daemon = start_daemon(applied.settings_path)
    assert 4 == daemon.process.wait(30)
    assert f"there is no vault key {key}" in daemon.log_path.read_text()
    assert "hint: put the key back from its backup" in daemon.log_path.read_text()
    applied.exim.inject(SENDER, "b@example.net")
    assert 1 == applied.exim.queue_size()

    away.rename(key)

    assert_deferred_then_delivered(applied)


def test_mail_is_deferred_while_the_daemon_is_stopped(applied: MailHost) -> None:
    """A daemon that hangs (SIGSTOP) costs the time limit of 5 s and no mail."""
    with applied.daemon() as daemon:
        daemon.signal(signal.SIGSTOP)
        applied.exim.inject(SENDER, "b@example.net")
        daemon.signal(signal.SIGCONT)

    assert_deferred_then_delivered(applied)


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"\n", b"^", b"^^", b"fail", b"USER^PASSWORD", b"\0user\0password"],
    ids=["hangs", "empty", "newline", "caret", "carets", "word", "no-caret", "nul"],
)
def test_mail_is_deferred_on_any_other_answer(applied: MailHost, answer: bytes | None) -> None:
    """Whatever is on the socket instead, Exim sends no AUTH and keeps the mail."""
    with silent_socket(applied.directory / "run" / "exim.sock", answer):
        applied.exim.inject(SENDER, "b@example.net")

    assert not any(connection.auth for connection in applied.sandbox.client.connections())
    assert_deferred_then_delivered(applied)


def test_mail_is_deferred_for_a_user_that_may_not_ask(applied: MailHost) -> None:
    """When Exim's user is not on the list, the daemon closes and Exim keeps the mail."""
    path = applied.settings_path
    original = path.read_text()
    path.write_text(original.replace(f'users = ["{applied.exim.user.name}"]', 'users = ["daemon"]'))
    with applied.daemon() as daemon:
        # The mode of the socket refuses already; open it to see that the uid pin does, too.
        daemon.socket_path("exim").chmod(0o666)
        applied.exim.inject(SENDER, "b@example.net")
        assert daemon.events("lookup.refused")
    path.write_text(original)

    assert_deferred_then_delivered(applied)


@pytest.mark.parametrize("mode", [mode for mode in TlsMode if mode is not TlsMode.NORMAL])
def test_mail_is_deferred_on_unsafe_tls(applied: MailHost, mode: TlsMode) -> None:
    """A wrong, expired or unknown certificate, or STARTTLS stripped: nothing is sent."""
    applied.sandbox.client.set_tls_mode(mode)
    with applied.daemon():
        applied.exim.inject(SENDER, "b@example.net")
    applied.sandbox.client.set_tls_mode(TlsMode.NORMAL)

    assert not any(connection.auth for connection in applied.sandbox.client.connections())
    assert_deferred_then_delivered(applied, force=True)


def test_mail_is_deferred_while_the_credential_is_wrong(applied: MailHost) -> None:
    """535 from SES defers too; once the vault holds the right one, mail goes out."""
    other = seed_account(applied.sandbox, user_name="other", domain="example.com")
    wrong = derive_smtp_password(other.secret_key, applied.sandbox.info.region)
    applied.import_credential(password=wrong)
    with applied.daemon():
        applied.exim.inject(SENDER, "b@example.net")
    applied.import_credential()

    assert_deferred_then_delivered(applied, force=True)


def test_deleting_the_line_alone_would_bounce_mail(new_host: NewHost) -> None:
    """The danger is real: without client_send, hosts_try_auth sends unauthenticated and bounces."""
    host = new_host(form="plain")
    config = host.exim.config
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "client_send" not in line))

    host.exim.inject(SENDER, "b@example.net")

    assert host.exim.bounced() >= 1
    assert not host.nothing_unauthenticated()


@pytest.mark.skipif(not php_available(), reason="left out: PHP and PHPMailer are needed")
def test_credential_changes_under_load_without_a_lost_mail(new_host: NewHost) -> None:
    """1,000 mails through Exim while the CURRENT version changes: none is lost or sent twice."""
    host = new_host(canary=False)
    second = seed_account(host.sandbox, user_name="second", domain="example.com")
    password = derive_smtp_password(second.secret_key, host.sandbox.info.region)
    total, changes = 1000, 6
    with host.daemon():
        host.apply()
        host.exim.start()
        daemon_pid = host.exim.pid_file.read_text()
        stop = threading.Event()
        changed: list[int] = []

        def change() -> None:
            while len(changed) < changes and not stop.wait(1.0):
                if len(changed) % 2 == 0:
                    host.import_credential(password=password, username=second.access_key_id)
                else:
                    host.import_credential()
                changed.append(1)

        thread = threading.Thread(target=change)
        thread.start()
        sent = send_by_php(
            host.directory, host.exim.port, sender=SENDER, domain="example.net", count=total
        )
        stop.set()
        thread.join()
        assert host.exim.wait_until_delivered(120)
        assert daemon_pid == host.exim.pid_file.read_text()

    delivered = host.delivered()
    users = {mail.user_name for mail in host.sandbox.client.inbox()}
    assert total == sent
    assert total == len(delivered)
    assert total == len(set(delivered))
    assert 0 == host.exim.bounced()
    assert len(changed) >= 2
    assert {host.key.user_name, "second"} == users
    assert host.nothing_unauthenticated()


def test_unprivileged_user_sees_no_secret(applied: MailHost) -> None:
    """G1: neither Exim, nor /proc, nor the socket, nor a file gives a local user the secret."""
    secret = applied.password.reveal()
    config = applied.exim.config
    config.chmod(0o644)
    exim = str(applied.exim.binary)
    with applied.daemon() as daemon:
        applied.exim.inject(SENDER, "b@example.net")
        seen = b""
        for command in (
            [exim, "-C", str(config), "-bP", "config"],
            [exim, "-C", str(config), "-bP", "authenticators"],
            [exim, "-C", str(config), "-d+all", "-bt", "b@example.net"],
            [
                exim,
                "-be",
                f"${{readsocket{{{daemon.socket_path('exim')}}}{{plain ses\\n}}{{5s}}}}",
            ],
            ["cat", f"/proc/{daemon.pid}/environ"],
            ["cat", f"/proc/{daemon.pid}/cmdline"],
            ["cat", f"/proc/{daemon.pid}/mem"],
            ["cat", f"/proc/{daemon.pid}/maps"],
            ["grep", "-raF", secret, str(applied.directory)],
        ):
            completed = subprocess.run(command, capture_output=True, user="games", check=False)
            seen += completed.stdout + completed.stderr
        daemon.socket_path("exim").chmod(0o666)
        try:
            pid = os.fork()
            if pid == 0:
                os.setgid(65534)
                os.setuid(5)
                os._exit(1 if daemon.ask("exim", b"plain ses\n") else 0)
            assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            daemon.socket_path("exim").chmod(0o660)

    assert secret.encode() not in seen
    assert b"client_send = <value not displayable>" in seen

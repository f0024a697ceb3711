"""
G2: the kernel says who it is; nobody sends as somebody else, and nobody unknown sends at all.

Every client is a process of another user: the sites have a uid each, as PHP-FPM pools do.
"""

import re
import smtplib
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.relaying import (
    BLOG,
    BLOG_UID,
    OUTSIDER_UID,
    PYTHON,
    SHOP,
    SHOP_UID,
    RelayHost,
    make_relay_host,
    needs_users,
)
from rigs.sandbox import eventually
from rigs.spoofs import HARMLESS, SPOOFS, VICTIM, shown_authors
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import SeededKey

pytestmark = [pytest.mark.real, needs_users]

CONNECT = """\
import socket, smtplib, sys
place = sys.argv[1]
def connect():
    if place.isdigit():
        return socket.create_connection(("127.0.0.1", int(place)), timeout=20)
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(20)
    link.connect(place)
    return link
def client():
    it = smtplib.SMTP(local_hostname="site")
    it.sock = connect()
    it.getreply()
    it.ehlo()
    return it
"""
"""Beginning of every client: an SMTP connection to a port or a Unix socket."""


@pytest.fixture
def host(host_directory: Path, sandbox: Sandbox, key: SeededKey) -> Iterator[RelayHost]:
    """A host with a running relay."""
    made = make_relay_host(host_directory, sandbox, key, mta_uid=5004)
    with made.daemon():
        yield made


def places(host: RelayHost) -> dict[str, str]:
    """How clients name the listeners."""
    return {"tcp": str(host.port), "unix": str(host.socket_path)}


def run(host: RelayHost, uid: int, place: str, code: str) -> list[str]:
    """Run a client as a user, and give the lines that it prints."""
    completed = host.run_as(uid, PYTHON, "-c", CONNECT + textwrap.dedent(code), places(host)[place])
    assert 0 == completed.returncode, completed.stderr.decode()
    return completed.stdout.decode().splitlines()


def mail_as(sender: str, recipient: str = "b@example.net") -> str:
    """Code that sends one message and prints the code of the first refusal, or 250."""
    return f"""
        with client() as it:
            try:
                it.sendmail({sender!r}, [{recipient!r}],
                    "From: {sender}\\r\\nTo: {recipient}\\r\\nSubject: x\\r\\n\\r\\nhello\\r\\n")
                print(250)
            except smtplib.SMTPSenderRefused as error:
                print(error.smtp_code)
            except smtplib.SMTPRecipientsRefused as error:
                print(next(iter(error.recipients.values()))[0])
            except smtplib.SMTPDataError as error:
                print(error.smtp_code)
        """


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_two_sites_are_told_apart(host: RelayHost, place: str) -> None:
    """Each sends as itself, neither as the other; the ledger of SES says which it was."""
    assert ["250"] == run(host, SHOP_UID, place, mail_as(SHOP, "shop@example.net"))
    assert ["250"] == run(host, BLOG_UID, place, mail_as(BLOG, "blog@example.net"))
    assert run(host, SHOP_UID, place, mail_as(BLOG))[0].startswith("5")
    assert run(host, BLOG_UID, place, mail_as(SHOP))[0].startswith("5")

    assert "shop" == host.received("shop@example.net").tags["app"]
    assert "blog" == host.received("blog@example.net").tags["app"]
    assert ["blog@example.net", "shop@example.net"] == sorted(host.recipients())


LEAVE_EARLY = """
    import struct
    for number in range(40):
        link = connect()
        lines = "EHLO site\\r\\nMAIL FROM:<{sender}>\\r\\nRCPT TO:<b@example.net>\\r\\nDATA\\r\\n"
        text = "From: {sender}\\r\\nTo: b@example.net\\r\\n\\r\\nhello\\r\\n.\\r\\n"
        if number % 4 != 3:
            link.recv(1000)
        link.sendall((lines + text if number % 2 else lines).encode())
        if number % 4 == 1:
            link.shutdown(socket.SHUT_WR)
        elif number % 4 == 2:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
"""


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_client_that_leaves_early_is_nobody_else(host: RelayHost, place: str) -> None:
    """A site that sends as the other one and closes, resets or half-closes gains nothing."""
    run(host, SHOP_UID, place, LEAVE_EARLY.format(sender=BLOG))
    run(host, OUTSIDER_UID, place, LEAVE_EARLY.format(sender=BLOG))
    run(host, OUTSIDER_UID, place, LEAVE_EARLY.format(sender=SHOP))

    assert ["250"] == run(host, BLOG_UID, place, mail_as(BLOG, "last@example.net"))
    eventually(host.recipients, message="the last mail did not come")
    assert ["last@example.net"] == host.recipients()


def test_no_trick_sends_as_the_other_site(host: RelayHost) -> None:
    """A hundred ways for A to send as B over real SMTP: none arrives with B as an author."""
    assert len(SPOOFS) >= 100
    replies = run(
        host,
        SHOP_UID,
        "tcp",
        f"""
        spoofs = {[(spoof.envelope_sender, spoof.header) for spoof in SPOOFS]!r}
        for number, (sender, header) in enumerate(spoofs):
            with client() as it:
                def say(data):
                    it.send(data)
                    return it.getreply()[0]
                code = say(b"MAIL FROM:<" + sender.encode("utf-8", "surrogateescape") + b">\\r\\n")
                if code == 250:
                    code = say(b"RCPT TO:<t%d@example.net>\\r\\n" % number)
                if code == 250:
                    code = say(b"DATA\\r\\n")
                if code == 354:
                    code = say(header + b"hello\\r\\n.\\r\\n")
                print(code)
        """,
    )
    accepted = {spoof.name for spoof, code in zip(SPOOFS, replies, strict=True) if code == "250"}

    assert len(SPOOFS) == len(replies)
    assert set() == accepted - HARMLESS
    for mail in host.sandbox.client.inbox():
        raw = host.sandbox.client.raw_message(mail.id)
        assert VICTIM != mail.envelope_sender.lower()
        # It takes a header as it goes over the wire, with dots stuffed.
        assert VICTIM not in shown_authors(re.sub(rb"(?m)^\.", b"..", raw))


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_user_without_an_app_is_refused(host: RelayHost, place: str) -> None:
    """Whatever the sender; and so is the superuser, who is no app either."""
    for uid in (OUTSIDER_UID, 0):
        for sender in (SHOP, BLOG, "", "x@elsewhere.example"):
            assert run(host, uid, place, mail_as(sender))[0].startswith("5")

    assert [] == host.recipients()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_wrong_token_is_refused(host: RelayHost, mechanism: str) -> None:
    """A wrong token, or another app with it: 535, and no mail after it."""
    token = host.sesguard("app", "add", "site")
    for user, word in (("site", token[:-1] + "x"), ("shop", token)):
        with smtplib.SMTP("127.0.0.1", host.port, "site", timeout=20) as client:
            client.ehlo()
            client.user, client.password = user, word
            method = client.auth_plain if mechanism == "PLAIN" else client.auth_login
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.auth(mechanism, method)
            assert client.mail(SHOP)[0] >= 500 or client.rcpt("b@example.net")[0] >= 500

    assert [] == host.recipients()


def test_token_is_for_its_own_app(host: RelayHost) -> None:
    """A token names the app, also for a caller who has another by his uid."""
    token = host.sesguard("app", "add", "site")
    code = f"""
        with client() as it:
            it.login("site", {token!r})
            print(it.mail({BLOG!r})[0])
            it.rset()
            print(it.mail({SHOP!r})[0])
        """

    assert [True, False] == [line.startswith("5") for line in run(host, BLOG_UID, "tcp", code)]


def test_relay_listens_on_the_loopback_only(host: RelayHost) -> None:
    """No other address of this machine answers on its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("left out: this machine has no address besides the loopback")
        address = probe.getsockname()[0]
    with pytest.raises(OSError, match="refused"), socket.create_connection((address, host.port), 5):
        pass

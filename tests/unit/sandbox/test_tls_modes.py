"""What a client must refuse: wrong certificates, and a STARTTLS that somebody took away."""

import socket
import ssl

import pytest

from rigs.sandbox import SandboxRig, eventually, transaction
from sesguard.core.endpoints import SMTP_REGIONS, smtp_host
from sesguard.sandbox.model import SmtpConnection, TlsMode

WRONG = {
    TlsMode.WRONG_NAME: "mismatch",
    TlsMode.EXPIRED: "expired",
    TlsMode.UNKNOWN_CA: "unable to get local issuer|self-signed|signed certificate",
}


def only_connection(rig: SandboxRig) -> SmtpConnection:
    """The one entry of the log, once it is closed."""
    eventually(lambda: all(item.closed_at for item in rig.client.connections()))
    (entry,) = rig.client.connections()
    return entry


def wrapper_version(rig: SandboxRig, host: str) -> str | None:
    """Make a verified TLS connection to the wrapper port as `host`; gives the TLS version."""
    context = rig.client_context()
    with (
        socket.create_connection(("127.0.0.1", rig.info.tls_port), timeout=10) as peer,
        context.wrap_socket(peer, server_hostname=host) as secured,
    ):
        # With TLS 1.3 the client is ready first: the banner says that the server is as well.
        assert secured.recv(4096).startswith(b"220 ")
        return secured.version()


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", *map(smtp_host, sorted(SMTP_REGIONS))]
)
def test_the_certificate_names_every_ses_host(rig: SandboxRig, host: str) -> None:
    """A client that thinks it talks to SES in any region verifies the certificate."""
    assert wrapper_version(rig, host) in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3(rig: SandboxRig, version: ssl.TLSVersion) -> None:
    """Both versions that SES supports are there, and the log names the one that was used."""
    context = rig.client_context()
    context.minimum_version = context.maximum_version = version
    with rig.plain_connection() as connection:
        connection.starttls(context=context)

    assert version.name.replace("_", ".") == only_connection(rig).tls_version


@pytest.mark.parametrize(("mode", "reason"), WRONG.items())
def test_a_wrong_certificate_on_the_starttls_port(
    rig: SandboxRig, mode: TlsMode, reason: str
) -> None:
    """A client that verifies breaks off; the log shows a broken handshake and nothing else."""
    rig.client.set_tls_mode(mode)

    with pytest.raises(ssl.SSLCertVerificationError, match=reason), rig.tls_connection():
        pass

    entry = only_connection(rig)
    assert entry.tls_failed
    assert entry.tls_version is None
    assert entry.auth == ()
    assert not entry.mail_without_tls


@pytest.mark.parametrize(("mode", "reason"), WRONG.items())
def test_a_wrong_certificate_on_the_wrapper_port(
    rig: SandboxRig, mode: TlsMode, reason: str
) -> None:
    """The wrapper port shows the same certificate."""
    rig.client.set_tls_mode(mode)

    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        wrapper_version(rig, "localhost")


def test_the_mode_can_be_set_back(rig: SandboxRig) -> None:
    """The next connection sees the good certificate again."""
    login = rig.login()
    for mode in (TlsMode.EXPIRED, TlsMode.WRONG_NAME, TlsMode.NORMAL):
        rig.client.set_tls_mode(mode)

    assert rig.send(login)[0] == 250
    assert rig.client.status().tls_mode is TlsMode.NORMAL


def test_a_careless_client_falls_for_a_wrong_certificate(rig: SandboxRig) -> None:
    """A client that does not verify logs in: the trap is real."""
    login = rig.login()
    rig.client.set_tls_mode(TlsMode.UNKNOWN_CA)
    careless = ssl._create_unverified_context()
    with rig.plain_connection() as connection:
        connection.starttls(context=careless)
        connection.login(login.user, login.password.reveal())

        assert transaction(connection)[0] == 250


def test_stripped_starttls(rig: SandboxRig) -> None:
    """EHLO hides STARTTLS, the command is refused, and AUTH is offered in the clear."""
    rig.client.set_tls_mode(TlsMode.STRIPPED)
    with rig.plain_connection() as connection:
        assert connection.ehlo() == (
            250,
            b"email-smtp.amazonaws.com\n8BITMIME\nSIZE 41943040\nAUTH PLAIN LOGIN\nOk",
        )
        assert connection.docmd("STARTTLS") == (502, b"Error: command not implemented")


def test_stripping_catches_a_client_that_sends_in_the_clear(rig: SandboxRig) -> None:
    """The log is the witness of a credential and a mail that went out in the clear."""
    login = rig.login()
    rig.client.set_tls_mode(TlsMode.STRIPPED)
    with rig.plain_connection() as connection:
        connection.login(login.user, login.password.reveal())
        assert transaction(connection)[0] == 250

    entry = only_connection(rig)
    assert entry.auth_without_tls
    assert entry.mail_without_tls
    assert not entry.mail_without_auth
    assert [False] == [attempt.tls for attempt in entry.auth]
    assert [None] == [message.tls_version for message in rig.client.inbox()]


def test_stripping_leaves_the_wrapper_port_alone(rig: SandboxRig) -> None:
    """There is nothing to strip where TLS begins with the connection."""
    rig.client.set_tls_mode(TlsMode.STRIPPED)

    assert wrapper_version(rig, "localhost") is not None


def test_an_orderly_session_leaves_no_mark(rig: SandboxRig) -> None:
    """TLS, then AUTH, then MAIL: all three flags stay down."""
    rig.send(rig.login())

    entry = only_connection(rig)
    assert [False] * 3 == [
        entry.auth_without_tls,
        entry.mail_without_tls,
        entry.mail_without_auth,
    ]
    assert (entry.messages, entry.refused) == (1, 0)
    assert ["235 Authentication successful."] == [attempt.reply for attempt in entry.auth]


def test_attempts_are_marked_although_they_are_refused(rig: SandboxRig) -> None:
    """A client that tries MAIL or AUTH too early is caught, whatever it was answered."""
    with rig.plain_connection() as connection:
        connection.ehlo()
        connection.docmd("MAIL FROM:<a@example.com>")
        connection.docmd("AUTH PLAIN AAAA")

    entry = only_connection(rig)
    assert entry.mail_without_tls
    assert entry.mail_without_auth
    assert entry.auth_without_tls
    assert entry.auth == ()


def test_mail_without_auth_is_marked_also_before_ehlo(rig: SandboxRig) -> None:
    """The mark does not depend on the order of commands."""
    with rig.tls_connection() as connection:
        connection.mail("a@example.com")
    first = only_connection(rig)
    rig.client.clear_connections()
    with rig.plain_connection() as connection:
        connection.docmd("MAIL FROM:<a@example.com>")

    assert (True, False) == (first.mail_without_auth, first.mail_without_tls)
    assert only_connection(rig).mail_without_tls


def test_a_refused_message_is_counted(rig: SandboxRig) -> None:
    """The log tells accepted from refused messages."""
    login = rig.login()
    rig.aws("ses").delete_identity(Identity="example.com")
    rig.send(login)

    entry = only_connection(rig)
    assert (entry.messages, entry.refused) == (0, 1)


def test_sources_are_told_apart(rig: SandboxRig) -> None:
    """Each connection has the address it came from."""
    for source in ("127.0.0.1", "127.1.2.3", "127.255.255.254"):
        with rig.plain_connection(source):
            pass

    assert ["127.0.0.1", "127.1.2.3", "127.255.255.254"] == [
        item.source_address for item in rig.client.connections()
    ]

"""One SMTP session: verified TLS, AUTH, bounded waiting, and nothing of the secret in an error."""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from rigs.smtp_peer import Conversation, Peer, Server, server_context
from sesguard.core.endpoints import Endpoint
from sesguard.core.secret import Secret
from sesguard.errors import TemporaryFailure, UpstreamError
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.smtp import LoginRefused, SmtpUpstream, check_login

USER = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = Secret("BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS")
MESSAGE = b"From: a@example.com\nTo: b@example.net\nSubject: hello\n\n.leading dot\nlast line"

PeerFactory = Callable[..., Peer]


def _send(port: int, ca_file: Path, *, timeout_s: float = 5, source: str | None = None) -> Reply:
    with SmtpUpstream(
        Endpoint("127.0.0.1", port),
        ca_file=ca_file,
        timeout_s=timeout_s,
        final_timeout_s=timeout_s,
        source_address=source,
    ) as upstream:
        upstream.login(USER, PASSWORD)
        return upstream.send("a@example.com", ["b@example.net"], MESSAGE)


def test_message_is_delivered(server: Server, ca_file: Path) -> None:
    """A message reaches a real server over STARTTLS with AUTH, and SES's id comes back."""
    reply = _send(server.port, ca_file)

    assert Outcome.ACCEPTED is reply.outcome
    assert reply.message_id == "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"
    [envelope] = server.inbox.messages
    assert envelope.mail_from == "a@example.com"
    assert envelope.rcpt_tos == ["b@example.net"]
    assert MESSAGE.replace(b"\n", b"\r\n") + b"\r\n" == envelope.content


def test_session_is_reused(server: Server, ca_file: Path) -> None:
    """A refused message leaves the session usable for the next one."""
    with SmtpUpstream(Endpoint("127.0.0.1", server.port), ca_file=ca_file) as upstream:
        upstream.login(USER, PASSWORD)
        server.inbox.answer = "554 Message rejected: Sending paused for this account."
        first = upstream.send("a@example.com", ["b@example.net"], MESSAGE)
        server.inbox.answer = "250 Ok 0100018f5a2b3c4d"
        second = upstream.send("", ["b@example.net", "c@example.net"], MESSAGE)

    assert [first.outcome, second.outcome] == [Outcome.PAUSED, Outcome.ACCEPTED]


def test_source_address_is_used(server: Server, ca_file: Path) -> None:
    """The session comes from the address that was asked for."""
    _send(server.port, ca_file, source="127.0.0.9")

    assert server.inbox.peers == ["127.0.0.9"]


def test_tls_wrapper_port(peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """On port 2465 TLS comes before the first word."""
    heard: list[str] = []

    def script(talk: Conversation) -> None:
        talk.start_tls(server_tls)
        talk.say("220 ready")
        heard.append(talk.hear()[:4])
        talk.say("250-peer", "250 AUTH PLAIN")
        heard.append(talk.hear()[:10])
        talk.say("235 Authentication successful")
        talk.wait_for_end()

    address = _loopback_with_free_port(2465)
    peer(script, (address, 2465))
    check_login(Endpoint(address, 2465), USER, PASSWORD, ca_file=ca_file, timeout_s=5)

    assert heard == ["ehlo", "AUTH PLAIN"]


def _loopback_with_free_port(port: int) -> str:
    for last in range(10, 20):
        address = f"127.0.0.{last}"
        with contextlib.suppress(OSError), socket.create_server((address, port)):
            return address
    raise AssertionError("no loopback address has the port free")


def test_wrong_password_is_refused(server: Server, ca_file: Path) -> None:
    """535 is a refusal of the login, with what to check."""
    with pytest.raises(LoginRefused, match="535") as caught:
        check_login(
            Endpoint("127.0.0.1", server.port), USER, Secret("wrong"), ca_file=ca_file, timeout_s=5
        )

    assert caught.value.hint == "check that the key is active and the password is for this region"


def test_certificate_of_another_ca(peer: PeerFactory, ca_file: Path) -> None:
    """A certificate that does not chain to the CA ends the session before AUTH."""
    context = server_context(trustme.CA(), "127.0.0.1")
    refuser = peer(lambda talk: talk.greet(context))

    with pytest.raises(UpstreamError, match="does not verify"):
        _send(refuser.port, ca_file)

    assert not [line for line in refuser.heard if "AUTH" in line]


def test_certificate_for_another_name(
    peer: PeerFactory, authority: trustme.CA, ca_file: Path
) -> None:
    """A good certificate of another host ends the session before AUTH."""
    context = server_context(authority, "smtp.example.org")
    refuser = peer(lambda talk: talk.greet(context))

    with pytest.raises(UpstreamError, match="does not verify"):
        _send(refuser.port, ca_file)


def test_system_authorities_do_not_trust_a_private_ca(server: Server) -> None:
    """Without ca_file only the system's authorities count."""
    with pytest.raises(UpstreamError, match="does not verify"):
        check_login(Endpoint("127.0.0.1", server.port), USER, PASSWORD, timeout_s=5)


def test_old_tls_is_refused(peer: PeerFactory, authority: trustme.CA, ca_file: Path) -> None:
    """A peer that only has TLS 1.1 gets no session."""
    old = server_context(authority, "127.0.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    ancient = peer(lambda talk: talk.greet(old))

    with pytest.raises(UpstreamError, match="no TLS with"):
        _send(ancient.port, ca_file)


def test_starttls_stripped(peer: PeerFactory, ca_file: Path) -> None:
    """Where STARTTLS is missing nothing else is said."""

    def script(talk: Conversation) -> None:
        talk.say("220 ready")
        talk.hear()
        talk.say("250-peer", "250 AUTH PLAIN")
        talk.hear()

    stripper = peer(script)
    with pytest.raises(UpstreamError, match="does not offer STARTTLS"):
        _send(stripper.port, ca_file)
    stripper.stop()

    assert [line[:4] for line in stripper.heard if line] == ["ehlo"]


def test_starttls_refused_for_now(peer: PeerFactory, ca_file: Path) -> None:
    """454 to STARTTLS is a temporary failure."""

    def script(talk: Conversation) -> None:
        talk.say("220 ready")
        talk.hear()
        talk.say("250-peer", "250 STARTTLS")
        talk.hear()
        talk.say("454 TLS not available due to temporary reason")

    with pytest.raises(TemporaryFailure, match="454 TLS not available"):
        _send(peer(script).port, ca_file)


def test_reply_injected_before_tls(
    peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A second reply sent along with that of STARTTLS ends the session."""

    def script(talk: Conversation) -> None:
        talk.say("220 ready")
        talk.hear()
        talk.say("250-peer", "250 STARTTLS")
        talk.hear()
        talk.say("220 go ahead", "220 injected")
        talk.wait_for_end()

    with pytest.raises(UpstreamError, match="does not answer as an SMTP server"):
        _send(peer(script).port, ca_file)


def test_no_plain_offered(peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """Without AUTH PLAIN no password is sent."""

    def script(talk: Conversation) -> None:
        talk.greet(server_tls, "250 AUTH LOGIN")
        talk.wait_for_end()

    plainless = peer(script)

    with pytest.raises(UpstreamError, match="does not offer AUTH PLAIN"):
        _send(plainless.port, ca_file)

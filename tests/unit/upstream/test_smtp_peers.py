"""The sending session against a peer that breaks off, stalls, refuses or lies."""

import base64
import contextlib
import smtplib
import socket
import ssl
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.smtp_peer import Conversation, Peer, Script, Server
from sesguard.core.encodings import encoded_forms
from sesguard.core.endpoints import Endpoint
from sesguard.core.secret import Secret
from sesguard.errors import Error, TemporaryFailure, UpstreamError
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.smtp import LoginRefused, SmtpUpstream, check_login, require_address

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


@pytest.mark.parametrize(
    ("banner", "expected"),
    [
        ("421 Too many concurrent SMTP connections", TemporaryFailure),
        ("554 go away", UpstreamError),
        ("HTTP/1.1 400 Bad Request", UpstreamError),
        ("220-a", TemporaryFailure),
    ],
)
def test_banner_that_is_none(
    peer: PeerFactory, ca_file: Path, banner: str, expected: type[Error]
) -> None:
    """A peer that refuses at once, is no SMTP server or never finishes its banner is an error."""

    def script(talk: Conversation) -> None:
        talk.say(banner)
        talk.hear()

    with pytest.raises(expected):
        _send(peer(script).port, ca_file, timeout_s=0.5)


def test_ehlo_refused(peer: PeerFactory, ca_file: Path) -> None:
    """A peer that takes neither EHLO nor HELO is an error."""

    def script(talk: Conversation) -> None:
        talk.say("220 ready")
        while talk.hear():
            talk.say("502 no")

    with pytest.raises(UpstreamError, match="502 no"):
        _send(peer(script).port, ca_file)


def test_temporary_answer_to_auth(
    peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """454 to AUTH is a temporary failure, not a wrong password."""

    def script(talk: Conversation) -> None:
        talk.greet(server_tls)
        talk.hear()
        talk.say("454 Temporary authentication failure")
        talk.wait_for_end()

    with pytest.raises(TemporaryFailure, match="454 Temporary authentication failure"):
        _send(peer(script).port, ca_file)


STAGES = ["banner", "ehlo", "starttls", "tls", "ehlo2", "auth", "mail", "rcpt", "data", "dot"]


def _until(stage: str, context: ssl.SSLContext, stop: Script) -> Script:
    """A healthy peer up to `stage`, where `stop` takes over."""
    answers = {
        "banner": "220 ready",
        "ehlo": "250-peer\r\n250 STARTTLS",
        "starttls": "220 go ahead",
        "ehlo2": "250-peer\r\n250 AUTH PLAIN LOGIN",
        "auth": "235 ok",
        "mail": "250 ok",
        "rcpt": "250 ok",
        "data": "354 go ahead",
        "dot": "250 Ok 0100018f5a2b3c4d",
    }

    def script(talk: Conversation) -> None:
        for name in STAGES:
            if name == "dot":
                talk.hear_message()
            elif name not in ("banner", "tls"):
                talk.hear()
            if name == stage:
                stop(talk)
                return
            if name == "tls":
                talk.start_tls(context)
            else:
                talk.say(answers[name])
        talk.wait_for_end()

    return script


@pytest.mark.parametrize("stage", STAGES)
def test_peer_drops_the_connection(
    peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path, stage: str
) -> None:
    """A connection that ends at any stage is a temporary failure."""
    dropper = peer(_until(stage, server_tls, lambda talk: talk.socket.close()))

    with pytest.raises(TemporaryFailure):
        _send(dropper.port, ca_file)


@pytest.mark.parametrize("stage", STAGES)
def test_peer_stalls(
    peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path, stage: str
) -> None:
    """A peer that says nothing more at any stage is given up in time."""
    staller = peer(_until(stage, server_tls, lambda talk: talk.wait_for_end()))
    started = time.monotonic()

    with pytest.raises(TemporaryFailure, match="did not answer within"):
        _send(staller.port, ca_file, timeout_s=0.3)

    assert time.monotonic() - started < 4


def test_peer_trickles(peer: PeerFactory, ca_file: Path) -> None:
    """One byte now and then does not prolong the wait: the whole reply has one deadline."""

    def script(talk: Conversation) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk.socket.sendall(b"2")
                time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(TemporaryFailure, match="did not answer"):
        _send(peer(script).port, ca_file, timeout_s=0.5)

    assert time.monotonic() - started < 4


def test_reply_without_end(peer: PeerFactory, ca_file: Path) -> None:
    """A reply that goes on and on is cut off, not collected."""

    def script(talk: Conversation) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk.say(*["220-more"] * 1000)

    with pytest.raises(UpstreamError, match="does not answer as an SMTP server"):
        _send(peer(script).port, ca_file)


@pytest.mark.parametrize(
    ("stage", "answer", "outcome"),
    [
        ("mail", "554 Message rejected: Email address is not verified.", Outcome.UNVERIFIED),
        ("rcpt", "553 <b@example.net> Invalid email address", Outcome.BAD_ADDRESS),
        ("data", "451 Temporary service failure", Outcome.TEMPORARY),
        ("dot", "554 Access denied: User `u' is not authorized", Outcome.DENIED),
        ("dot", "454 Throttling failure: Maximum sending rate exceeded", Outcome.THROTTLED),
        ("dot", "552 Message is too long.", Outcome.TOO_LARGE),
    ],
)
def test_refusal_is_returned(
    peer: PeerFactory,
    server_tls: ssl.SSLContext,
    ca_file: Path,
    stage: str,
    answer: str,
    outcome: Outcome,
) -> None:
    """A refusal of the message at any stage comes back with its meaning."""

    def refuse(talk: Conversation) -> None:
        talk.say(answer)
        while talk.hear():
            talk.say("250 ok")

    reply = _send(peer(_until(stage, server_tls, refuse)).port, ca_file)

    assert (outcome, answer) == (reply.outcome, str(reply))


def test_peer_that_echoes_the_secret(
    peer: PeerFactory, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A peer that sends the password back, plain or encoded, does not get it into our error."""

    def echo(talk: Conversation) -> None:
        sent = talk.heard[-1].split()[-1]
        clear = base64.b64decode(sent).decode().replace("\0", " ")
        talk.say(f"535-5.7.8 bad AUTH {sent}", f"535 {clear}")
        talk.wait_for_end()

    with pytest.raises(LoginRefused) as caught:
        _send(peer(_until("auth", server_tls, echo)).port, ca_file)

    shown = "".join(traceback.format_exception(caught.value)).encode()
    assert [n for n, form in encoded_forms(PASSWORD, USER).items() if form in shown] == []
    assert b"<secret>" in shown


def test_nobody_listens(ca_file: Path) -> None:
    """A refused connection is a temporary failure with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    with pytest.raises(TemporaryFailure, match=f"no connection to 127.0.0.1:{port}"):
        _send(port, ca_file)


@pytest.mark.parametrize("host", ["fe80::1%no-such-interface", "a" * 70 + ".example"])
def test_unknown_host(host: str, ca_file: Path) -> None:
    """A name that cannot be found is a temporary failure that says so."""
    with pytest.raises(TemporaryFailure, match="cannot find the host"):
        check_login(Endpoint(host, 587), USER, PASSWORD, ca_file=ca_file, timeout_s=2)


def test_missing_ca_file(tmp_path: Path) -> None:
    """A CA file that cannot be read is named."""
    with pytest.raises(UpstreamError, match=r"cannot read CA certificates from .*absent\.pem"):
        SmtpUpstream(Endpoint("127.0.0.1"), ca_file=tmp_path / "absent.pem")


def test_ca_file_without_certificates(tmp_path: Path) -> None:
    """A CA file that holds no certificate is named."""
    path = tmp_path / "empty.pem"
    path.write_text("nothing\n")

    with pytest.raises(UpstreamError, match=r"cannot read CA certificates from .*empty\.pem"):
        SmtpUpstream(Endpoint("127.0.0.1"), ca_file=path)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "plain",
        "a b@example.com",
        "a@example.com\r\nRCPT TO:<c@d>",
        "a@b> SIZE=1",
        "ü@example.com",
    ],
)
def test_address_that_smtp_cannot_carry(address: str) -> None:
    """An address that could change the dialogue is refused before anything is sent."""
    with pytest.raises(UpstreamError, match="not an address"):
        require_address(address)


def test_too_many_recipients(server: Server, ca_file: Path) -> None:
    """More than fifty recipients, or none, are refused before anything is sent."""
    with SmtpUpstream(Endpoint("127.0.0.1", server.port), ca_file=ca_file) as upstream:
        upstream.login(USER, PASSWORD)
        for count in (0, 51):
            with pytest.raises(UpstreamError, match="1 to 50 recipients"):
                upstream.send("a@example.com", ["b@example.net"] * count, MESSAGE)


def test_send_needs_a_session(ca_file: Path) -> None:
    """Sending without a session is an error of the caller's."""
    upstream = SmtpUpstream(Endpoint("127.0.0.1", 1), ca_file=ca_file)

    with pytest.raises(UpstreamError, match="no session"):
        upstream.send("a@example.com", ["b@example.net"], MESSAGE)
    upstream.close()


def test_smtplib_still_calls_getreply() -> None:
    """The bounded reading replaces the method that smtplib reads every reply with."""
    assert "getreply" in vars(smtplib.SMTP)

"""Whatever a client sends, the endpoint answers or hangs up, and serves the next client."""

import random
import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rigs.sandbox import SandboxRig, eventually, mail, transaction


def talk(rig: SandboxRig, data: bytes) -> bytes:
    """Send bytes to the STARTTLS port, half-close, and give all that comes back."""
    with socket.create_connection(("127.0.0.1", rig.info.starttls_port), timeout=10) as peer:
        received = peer.recv(4096)
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        while chunk := _receive(peer):
            received += chunk
        return received


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except ConnectionResetError:
        return b""


def assert_alive(rig: SandboxRig) -> None:
    """A fresh connection is greeted."""
    with rig.plain_connection() as connection:
        assert connection.noop()[0] == 250


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"\0" * 4096,
        b"EHLO " + b"a" * 2_000_000 + b"\r\n",
        b"A" * 3_000_000,
        b"EHLO x\rMAIL FROM:<a@b>\r\n",
        b"EHLO x\nMAIL FROM:<a@b>\nDATA\n",
        b"\xff\xfe\xfd\r\n",
        b"STARTTLS extra\r\n",
        b"BOGUS\r\n" * 20,
        b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n",
        b"EHLO x\r\nAUTH PLAIN " + b"A" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_raw_garbage_leaves_the_endpoint_alive(rig: SandboxRig, data: bytes) -> None:
    """Garbage in the clear is refused, and nothing of it is mail."""
    answer = talk(rig, data)

    assert answer.startswith(b"220 ")
    assert b"250 Ok 0100" not in answer
    assert_alive(rig)


def test_commands_sent_before_the_handshake_are_dropped(rig: SandboxRig) -> None:
    """What was injected behind STARTTLS in the clear is not executed under TLS (RFC 3207)."""
    with socket.create_connection(("127.0.0.1", rig.info.starttls_port), timeout=10) as peer:
        peer.recv(4096)
        peer.sendall(b"EHLO x\r\n")
        while b"250 Ok" not in peer.recv(4096):
            pass
        peer.sendall(b"STARTTLS\r\nEHLO injected\r\n")
        assert peer.recv(4096).startswith(b"220 Ready")
        try:
            secured = rig.client_context().wrap_socket(peer, server_hostname="localhost")
        except (ssl.SSLError, OSError):
            return
        with secured:
            secured.sendall(b"NOOP\r\n")
            assert secured.recv(4096) == b"250 Ok\r\n"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_no_sequence_of_lines_breaks_the_session(rig: SandboxRig, lines: list[bytes]) -> None:
    """Each connection with arbitrary lines is answered in SMTP and ends cleanly."""
    answer = talk(rig, b"EHLO x\r\n" + b"\r\n".join(lines) + b"\r\n")

    assert all(line[:3].isdigit() for line in answer.split(b"\r\n") if line)


@pytest.mark.parametrize(
    "address", ["<", "<a@b", "((((((((((", '"\\', "@" * 400, "<@a,@b:c@d>", "a@[1.2.3", "\x01@x.y"]
)
def test_a_broken_address_is_answered(rig: SandboxRig, address: str) -> None:
    """No address, however broken, ends the session."""
    with rig.session(rig.login()) as connection:
        assert connection.docmd(f"MAIL FROM:{address}")[0] in {250, 501, 553, 555}
        connection.rset()
        connection.mail("app@example.com")
        assert connection.docmd(f"RCPT TO:{address}")[0] in {250, 501, 553, 555}
        assert connection.noop()[0] == 250


def test_a_reply_cannot_be_split_by_an_address(rig: SandboxRig) -> None:
    """Control characters of an address come back harmless."""
    with rig.session(rig.login()) as connection:
        connection.send(b"MAIL FROM:<a\r250 Ok@>\r\n")

        assert connection.getreply() == (553, b"<a?250 Ok@> Invalid email address")


def test_thousands_of_recipients(rig: SandboxRig) -> None:
    """Recipients beyond the fiftieth cost nothing."""
    with rig.session(rig.login()) as connection:
        connection.mail("app@example.com")
        codes = [connection.rcpt(f"user{number}@example.net")[0] for number in range(2000)]

    assert [250] * 50 + [452] * 1950 == codes


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n"])
def test_only_crlf_dot_crlf_ends_a_message(rig: SandboxRig, ending: bytes) -> None:
    """A bare CR or LF around the dot does not smuggle a second message in."""
    smuggled = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<a@b.c>\r\nDATA\r\n"
    content = mail() + b"first" + ending + smuggled + mail("evil@example.com")
    with rig.session(rig.login()) as connection:
        connection.mail("app@example.com")
        connection.rcpt("user@example.net")
        connection.docmd("DATA")
        connection.send(content + b"\r\n.\r\n")

        assert connection.getreply()[0] == 250

    (message,) = rig.client.inbox()
    assert message.envelope_sender == "app@example.com"
    assert smuggled in rig.client.raw_message(message.id)


def test_a_very_long_line_of_a_message_is_taken(rig: SandboxRig) -> None:
    """A line of 500 kB is no reason to lose mail."""
    content = mail() + b"x" * 500_000 + b"\r\n"

    code, text = rig.send(rig.login(), content)

    assert code == 250
    assert content == rig.client.raw_message(text.removeprefix("Ok "))


def test_a_line_beyond_the_buffer_is_refused_and_the_session_goes_on(rig: SandboxRig) -> None:
    """A line of 3 MB is refused with 500 after the message was read to its end."""
    with rig.session(rig.login()) as connection:
        assert transaction(connection, mail() + b"x" * 3_000_000 + b"\r\n")[0] == 500
        assert transaction(connection)[0] == 250


def test_random_bytes_as_a_message(rig: SandboxRig) -> None:
    """A message of random bytes is refused for want of From, not by a crash."""
    noise = random.Random(1).randbytes(200_000).replace(b"\r", b"").replace(b"\n", b"\r\n")

    code, text = rig.send(rig.login(), noise)

    assert (code, text) == (554, "Transaction failed: Missing required header 'From'.")


def test_a_client_that_leaves_in_the_middle_of_data(rig: SandboxRig) -> None:
    """A message without its end is not taken."""
    with rig.session(rig.login()) as connection:
        connection.mail("app@example.com")
        connection.rcpt("user@example.net")
        connection.docmd("DATA")
        connection.send(mail())
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)

    eventually(lambda: all(item.closed_at for item in rig.client.connections()))
    assert rig.client.inbox() == []

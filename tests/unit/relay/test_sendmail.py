"""The sendmail program, run as apps run it, against a real SMTP server on a Unix socket."""

import os
import pwd
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiosmtpd.controller import UnixSocketController
from aiosmtpd.smtp import SMTP, Envelope, Session

from sesguard.relay.sendmail import connect

PROGRAM = (sys.executable, "-c", "from sesguard.relay.sendmail import run; run()")
LONG = 40 * 1024 * 1024


@dataclass
class Relay:
    """What stands for the relay: it keeps messages, and refuses what it is told to."""

    socket: Path
    messages: list[Envelope] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Replies to MAIL, RCPT by their address, and ``DATA``."""

    async def handle_MAIL(  # noqa: N802 - the names that aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take or refuse a sender."""
        if address in self.refused:
            return self.refused[address]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Take or refuse the message."""
        if "DATA" in self.refused:
            return self.refused["DATA"]
        self.messages.append(envelope)
        return "250 2.0.0 taken"

    def run(
        self, *arguments: str, text: bytes = b"Subject: x\n\nhello\n", code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program and check its exit code."""
        environment = {**os.environ, "SESGUARD_RELAY_SOCKET": str(self.socket)}
        done = subprocess.run(
            (*PROGRAM, *arguments), input=text, env=environment, capture_output=True, timeout=60
        )
        assert code == done.returncode, done.stderr
        assert (code == 0) == (not done.stderr)
        return done

    def text(self) -> bytes:
        """The only message."""
        (message,) = self.messages
        assert isinstance(message.content, bytes)
        return message.content


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A server on a socket of its own."""
    relay = Relay(tmp_path / "relay.sock")
    controller = UnixSocketController(
        relay, str(relay.socket), data_size_limit=2 * LONG, enable_SMTPUTF8=True
    )
    controller.start()
    yield relay
    controller.stop()


def _body(text: bytes) -> bytes:
    return text.partition(b"\r\n\r\n")[2]


def test_php_mail_is_sent(relay: Relay) -> None:
    """``-t -i -f`` with LF sends to To, Cc and Bcc, each once, and drops the Bcc."""
    relay.run(
        "-t",
        "-i",
        "-fshop@a.example",
        text=b"To: A <a@x.example>, b@x.example\nCc: a@x.example\nbcc: c@x.example,\n d@x.example\n"
        b"From: shop@a.example\nSubject: x\n\nhello\n.\nworld",
    )

    message = relay.messages[0]
    assert "shop@a.example" == message.mail_from
    assert [f"{c}@x.example" for c in "abcd"] == message.rcpt_tos
    assert b"hello\r\n.\r\nworld\r\n" == _body(relay.text())
    assert b"bcc" not in relay.text().lower()
    assert b"d@x" not in relay.text()


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"A: 1\n\nx\ny\n", b"x\r\ny\r\n"),
        (b"A: 1\r\n\r\nx\r\ny\r\n", b"x\r\ny\r\n"),
        (b"A: 1\r\rx\ry\r", b"x\r\ny\r\n"),
        (b"A: 1\n\nx\ry\r\nz", b"x\r\ny\r\nz\r\n"),
        (b"A: 1\n\n.x\n..\n", b".x\r\n..\r\n"),
        (b"A: 1\n\nx\n.\nlost\n", b"x\r\n"),
        (b"A: 1\n\nx\n.", b"x\r\n"),
        (b"A: 1\n\n.\nlost", b""),
        (b".\nlost", b""),
        (b"no header\n\nat all\n", b"no header\r\n\r\nat all\r\n"),
        (b"A: 1\nno field\n", b"no field\r\n"),
        (b"From x@y.example Thu Jul 30 12:00:00 2026\nA: 1\n\nx", b"x\r\n"),
        (b"", b""),
        (b"A: 1\n", b""),
        (b"\n\nx\n", b"\r\nx\r\n"),
    ],
)
def test_line_ends_become_crlf(relay: Relay, text: bytes, body: bytes) -> None:
    """LF, CRLF and CR become CRLF, a lone dot ends the text, and a header is found or made."""
    relay.run("a@x.example", text=text)

    assert body == _body(relay.text())
    assert relay.text().count(b"\n") == relay.text().count(b"\r\n") == relay.text().count(b"\r")


@pytest.mark.parametrize("option", ["-i", "-oi", "-ti"])
def test_a_lone_dot_is_text_when_asked(relay: Relay, option: str) -> None:
    """With -i, -oi or a cluster with i, a line with a dot is part of the message."""
    relay.run(option, "a@x.example", text=b"A: 1\n\nx\n.\ny\n")

    assert b"x\r\n.\r\ny\r\n" == _body(relay.text())


def test_a_stray_cr_makes_no_field(relay: Relay) -> None:
    """A CR that a stranger put into a Subject does not become a header line."""
    relay.run("-t", text=b"To: a@x.example\nSubject: hi\rBcc: evil@y.example\n\nx\n")

    assert ["a@x.example"] == relay.messages[0].rcpt_tos
    assert b"Subject: hi Bcc: evil@y.example\r\n" in relay.text()


def test_what_is_missing_is_added(relay: Relay) -> None:
    """From, Date and Message-ID are added where there is none, and never a second time."""
    relay.run("-f", "shop@a.example", "-F", "The Shop", "a@x.example")
    relay.run("-fshop@a.example", "-FJoão <x>", "a@x.example")
    relay.run(
        "-r", "b@a.example", "a@x.example", text=b"From : c@a.example\nDATE: d\nMessage-Id: m\n\n"
    )

    first, second, third = (m.content for m in relay.messages)
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert b"From: The Shop <shop@a.example>\r\n" in first
    assert b" +0000\r\nMessage-ID: <" in first
    assert b"From: =?utf-8?B?Sm/Do28gPHg+?= <shop@a.example>\r\n" in second
    assert b"From : c@a.example\r\nDATE: d\r\nMessage-Id: m\r\n\r\n" == third


def test_the_null_sender_and_the_default(relay: Relay) -> None:
    """``-f ''`` and ``-f '<>'`` send a bounce; without -f the sender is the user of the process."""
    for arguments in (("-f", ""), ("-f", "<>"), ()):
        relay.run(*arguments, "root")

    senders = [message.mail_from for message in relay.messages]
    assert ["<>", "<>"] == senders[:2]
    assert str(senders[2]).startswith(f"{pwd.getpwuid(os.getuid()).pw_name}@")
    assert relay.messages[0].rcpt_tos[0].startswith("root@")


def test_addresses_beyond_ascii_are_announced(relay: Relay) -> None:
    """An address in UTF-8 is sent with SMTPUTF8."""
    relay.run("-fshop@a.example", "joão@x.example")

    assert ["BODY=8BITMIME", "SMTPUTF8"] == relay.messages[0].mail_options


@pytest.mark.parametrize(
    ("which", "reply", "code"),
    [
        ("shop@a.example", "550 5.7.1 not yours", 77),
        ("b@x.example", "550 5.1.1 nobody", 67),
        ("b@x.example", "550 5.7.1 not allowed", 77),
        ("b@x.example", "452 4.5.3 too many", 75),
        ("DATA", "451 4.3.0 later", 75),
        ("DATA", "550 5.7.1 not yours", 77),
        ("DATA", "550 5.6.0 broken header", 65),
        ("DATA", "552 5.3.4 too large", 65),
        ("DATA", "554 no", 69),
        ("DATA", "530 5.7.0 who are you", 77),
        ("DATA", "421 4.3.2 going down", 75),
    ],
)
def test_a_refusal_is_told_and_nothing_is_sent(
    relay: Relay, which: str, reply: str, code: int
) -> None:
    """One refusal is enough for nobody to get the message; the reply is shown."""
    relay.refused[which] = reply

    done = relay.run("-fshop@a.example", "a@x.example", "b@x.example", code=code)

    assert f"sesguard-sendmail: the relay said: {reply}\n".encode() == done.stderr
    assert [] == relay.messages


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        ((), b"Subject: x\n\n", 64),
        (("-bd",), b"", 64),
        (("-N", "sometimes", "a@x.example"), b"", 64),
        (("-Ynot",), b"", 64),
        (("-f", "a@b\r\nRCPT TO:<c@d>", "a@x.example"), b"", 64),
        (("-t",), b"Subject: x\n\n", 65),
        (("-t",), b"To: a b c\n\n", 65),
        (("-t",), b'To: "a b"\n\n', 65),
        (("-t",), b"To: " + b"(" * 2000 + b"\n\n", 65),
        (("-t",), b"To: <a@x.example\n\n", 65),
        (("-t",), b"To: =?x?Q?a?=@x.example\n\n", 65),
        (("a@x.example",), b"X: y\n" * 60_000, 65),
    ],
)
def test_wrong_use_is_told_apart_from_wrong_data(
    relay: Relay, arguments: tuple[str, ...], text: bytes, code: int
) -> None:
    """A wrong command line is 64, a message that cannot be sent is 65."""
    relay.run(*arguments, text=text, code=code)

    assert [] == relay.messages


def test_options_of_other_sendmails_are_ignored(relay: Relay, tmp_path: Path) -> None:
    """Options without a meaning here do nothing; none of them writes a file."""
    log = tmp_path / "log"
    relay.run(
        *("-q", "-q15m", "-v", "-n", "-oem", "-odi", "-O", f"QueueDirectory={tmp_path}"),
        *("-X", str(log), "-B8BITMIME", "-G", "-h", "3", "-L", "tag", "-N", "success,failure"),
        *("-R", "hdrs", "-V", "id +1", "-bm", "--", "a@x.example"),
    )

    assert ["a@x.example"] == relay.messages[0].rcpt_tos
    assert not log.exists()


def test_the_queue_is_somewhere_else(relay: Relay) -> None:
    """-bp says where to look."""
    assert b"sesguard queue list\n" in relay.run("-bp").stdout


def test_smtp_is_spoken_through_the_program(relay: Relay) -> None:
    """-bs copies both ways, to the end of the session."""
    done = relay.run(
        "-bs",
        text=b"EHLO x\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
        b"A: 1\r\n\r\nx\r\n.\r\nQUIT\r\n",
    )

    assert b"A: 1\r\n\r\nx\r\n" == relay.text()
    assert (
        b"250 2.0.0 taken\r\n221 Bye\r\n" == done.stdout[-len(b"250 2.0.0 taken\r\n221 Bye\r\n") :]
    )


@pytest.mark.parametrize("arguments", [("a@x.example",), ("-bs",)])
def test_no_relay_is_a_temporary_failure(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Without a relay the caller is told to try again."""
    done = Relay(tmp_path / "none.sock").run(*arguments, code=75)

    assert b"sesguard-sendmail: the relay cannot be reached: " in done.stderr


def test_a_long_message_needs_little_memory(relay: Relay) -> None:
    """40 MB pass in pieces."""
    text = b"A: 1\n\n" + (b"x" * 75 + b"\n") * (LONG // 76)
    program = (
        "from sesguard.relay.sendmail import main; print(main(['a@x.example']));"
        "print(open('/proc/self/status').read())"
    )

    done = subprocess.run(
        (sys.executable, "-c", program),
        input=text,
        env={**os.environ, "SESGUARD_RELAY_SOCKET": str(relay.socket)},
        capture_output=True,
        check=True,
    )

    assert done.stdout.startswith(b"0\n")
    assert len(_body(relay.text())) == LONG // 76 * 77
    (peak_kib,) = re.findall(rb"VmHWM:\s+(\d+) kB", done.stdout)
    assert int(peak_kib) < 60 * 1024


@pytest.mark.parametrize("script", [b"", b"220 hello\r\n", b"220-\xff\r\n", b"421 4.3.2 busy\r\n"])
def test_a_relay_that_hangs_up_is_a_temporary_failure(tmp_path: Path, script: bytes) -> None:
    """A relay that breaks off, or talks rubbish, has not taken the message."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "relay.sock"))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(script)

        thread = threading.Thread(target=serve)
        thread.start()
        Relay(tmp_path / "relay.sock").run("a@x.example", code=75)
        thread.join()


def test_a_tcp_address_serves_as_well() -> None:
    """The relay is found on loopback too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with connect(("/none/relay.sock", f"127.0.0.1:{port}")) as connection:
            assert ("127.0.0.1", port) == connection.getpeername()


def test_no_port_is_tried_while_the_socket_of_the_relay_is_there(tmp_path: Path) -> None:
    """While the relay is down another user may listen on its port: he does not get the mail."""
    path = tmp_path / "relay.sock"
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        with pytest.raises(Exception, match="cannot be reached"):
            connect((str(path), f"127.0.0.1:{listener.getsockname()[1]}"))


def test_a_wrong_address_of_the_relay_is_wrong_use() -> None:
    """What is neither a path nor HOST:PORT is told as such."""
    Relay(Path("relay.sock")).run("a@x.example", code=64)


def test_a_message_that_cannot_be_read_is_not_sent(relay: Relay) -> None:
    """A closed standard input is an error of its own, not an empty message."""
    done = subprocess.run(
        ("sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, "a@x.example"),
        env={**os.environ, "SESGUARD_RELAY_SOCKET": str(relay.socket)},
        capture_output=True,
        timeout=60,
    )

    assert 74 == done.returncode
    assert [] == relay.messages

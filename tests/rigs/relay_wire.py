"""
A client of the relay that says exactly what a test wants, in the pieces that it wants.

    with wire(host.unix()) as client:
        client.hello()
        assert b"250" == client.ask(b"MAIL FROM:<a@example.com>\r\n")[:3]
"""

import contextlib
import re
import socket
import time
from collections.abc import Iterator, Sequence

TIMEOUT_S = 20.0
SENDER, RECIPIENT = "app@example.com", "user@example.net"
TEXT = b"From: app@example.com\r\nTo: user@example.net\r\nSubject: test\r\n\r\nHello.\r\n"

_REPLY = re.compile(rb"(?:[2-5]\d\d-[^\r\n]*\r\n)*[2-5]\d\d [^\r\n]*\r\n")


class Wire:
    """
    One client.

    Args:
        channel: Connected, TCP or Unix; the greeting has not been read.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        channel.settimeout(TIMEOUT_S)
        if channel.family != socket.AF_UNIX:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard = b""

    def say(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """
        Send each piece by itself; the pause makes the relay read it by itself, too.

        That the relay has hung up is not told here but by what is heard next.
        """
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for number, piece in enumerate(pieces):
                if number and pause_s:
                    time.sleep(pause_s)
                self.channel.sendall(piece)

    def hear(self) -> bytes:
        """The next whole reply; empty when the relay has closed."""
        while not (match := _REPLY.match(self._heard)):
            data = self._receive()
            if not data:
                rest, self._heard = self._heard, b""
                return rest
            self._heard += data
        self._heard = self._heard[match.end() :]
        return match[0]

    def hear_codes(self, count: int) -> list[int]:
        """The codes of the next replies."""
        return [int(self.hear()[:3] or b"0") for _ in range(count)]

    def hear_piece(self) -> bytes:
        """What one read gives, once there is something."""
        return self._receive()

    def hear_end(self) -> bytes:
        """All that is said until the relay closes."""
        while data := self._receive():
            self._heard += data
        heard, self._heard = self._heard, b""
        return heard

    def ask(self, *pieces: bytes) -> bytes:
        """Send, and give the next reply."""
        self.say(*pieces)
        return self.hear()

    def hello(self, command: bytes = b"EHLO client.test") -> bytes:
        """Read the greeting, say hello, and give the reply to it."""
        assert self.hear().startswith(b"220 ")
        return self.ask(command + b"\r\n")

    def begin(self, sender: str = SENDER, recipients: Sequence[str] = (RECIPIENT,)) -> None:
        """MAIL and RCPT, all of which are taken."""
        self.say(envelope(sender, recipients))
        assert [250] * (1 + len(recipients)) == self.hear_codes(1 + len(recipients))

    def send(self, text: bytes = TEXT, sender: str = SENDER, to: str = RECIPIENT) -> bytes:
        """Send one message by DATA; gives the reply to the first command that is refused, or it."""
        for command in envelope(sender, [to]).splitlines(keepends=True):
            reply = self.ask(command)
            if not reply.startswith(b"250"):
                return reply
        reply = self.ask(b"DATA\r\n")
        return self.ask(text + b".\r\n") if reply.startswith(b"354") else reply

    def _receive(self) -> bytes:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            return self.channel.recv(65536)
        return b""


def envelope(sender: str = SENDER, recipients: Sequence[str] = (RECIPIENT,)) -> bytes:
    """MAIL and RCPT, as they go over the wire."""
    lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients)]
    return "".join(f"{line}\r\n" for line in lines).encode()


@contextlib.contextmanager
def wire(channel: socket.socket, hello: bytes | None = b"EHLO client.test") -> Iterator[Wire]:
    """A client on `channel` that has said hello; None: that has said nothing yet."""
    with channel:
        client = Wire(channel)
        if hello is not None:
            assert client.hello(hello).startswith(b"250")
        yield client

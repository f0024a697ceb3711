"""
SMTP servers for tests of the sending side.

`smtp_server` is a real one (aiosmtpd) that wants STARTTLS and AUTH, as SES does. `Peer` plays a
script, for everything that a peer may do wrong.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as ServerSession

USER = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS"


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Server side of TLS, with a certificate of `authority` for `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@dataclass
class Inbox:
    """What the server took, and what it answers to the next messages."""

    messages: list[Envelope] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    answer: str = "250 Ok 0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: SMTP, session: ServerSession, envelope: Envelope
    ) -> str:
        """Keep the message and give the answer."""
        self.messages.append(envelope)
        self.peers.append(str((session.peer or ("?",))[0]))
        return self.answer


@dataclass
class Server:
    """A running server."""

    port: int
    inbox: Inbox


def _authenticate(
    server: SMTP, session: ServerSession, envelope: Envelope, mechanism: str, data: object
) -> AuthResult:
    assert isinstance(data, LoginPassword)
    good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
    return AuthResult(success=good, handled=False)


@contextlib.contextmanager
def smtp_server(context: ssl.SSLContext) -> Iterator[Server]:
    """Run the real server on a free port of 127.0.0.1."""
    inbox = Inbox()
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=_free_port(),
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=_authenticate,
    )
    controller.start()
    try:
        yield Server(controller.port, inbox)
    finally:
        controller.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Conversation:
    """The peer's end of one connection, for a script to drive."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.heard: list[str] = []
        self._rest = b""

    def say(self, *lines: str) -> None:
        """Send lines."""
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def hear(self) -> str:
        """Read one line; empty at the end."""
        while b"\r\n" not in self._rest:
            data = self.socket.recv(65536)
            if not data:
                return ""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\r\n")
        self.heard.append(line.decode())
        return self.heard[-1]

    def hear_message(self) -> bytes:
        """Read up to the final dot."""
        while not self._rest.endswith(b"\r\n.\r\n"):
            data = self.socket.recv(65536)
            if not data:
                break
            self._rest += data
        message, self._rest = self._rest, b""
        return message

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Secure the connection."""
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self._rest = b""

    def greet(self, context: ssl.SSLContext, *features: str) -> None:
        """Do all up to the EHLO after STARTTLS."""
        self.say("220 peer ready")
        self.hear()
        self.say("250-peer", "250 STARTTLS")
        self.hear()
        self.say("220 go ahead")
        self.start_tls(context)
        self.hear()
        self.say("250-peer", *(features or ("250 AUTH PLAIN LOGIN",)))

    def wait_for_end(self) -> None:
        """Wait until the client has gone."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass


Script = Callable[[Conversation], None]


class Peer:
    """Listens on loopback and plays one script a connection."""

    def __init__(self, script: Script, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.listener = socket.create_server(address)
        self.port = int(self.listener.getsockname()[1])
        self.heard: list[str] = []
        self._script = script
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(20)
                conversation = Conversation(connection)
                with contextlib.suppress(OSError, ValueError):
                    self._script(conversation)
                self.heard += conversation.heard
                conversation.socket.close()
                connection.close()

    def stop(self) -> None:
        """Stop listening and wait for the script's end."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(20)

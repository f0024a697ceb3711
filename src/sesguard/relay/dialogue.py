"""
The commands of one SMTP or LMTP session, and their replies; no I/O.

Promises
    Nothing is relayed for a caller that no app was found for, and no command is obeyed before the
    client has said hello.
    A client that makes many errors, sends many commands without a message, or guesses tokens is let
    go with 421; so is a browser that was made to talk to us.

Sources: RFC 5321, 2034 (enhanced codes), 2033 (LMTP), 3030 (CHUNKING), 3461 (DSN), 4954 (AUTH),
6531 (SMTPUTF8).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import ClassVar, Final, Protocol

from sesguard.relay.authentication import Login
from sesguard.relay.commands import (
    CommandFault,
    parse_auth,
    parse_bdat,
    parse_mail,
    parse_rcpt,
    split_command,
)
from sesguard.relay.data_stream import ChunkStream, DotStream
from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.model import App, Caller, DeliveryMode, Reason, Refusal
from sesguard.relay.service import Relay
from sesguard.relay.transaction import Transaction

MAX_MESSAGE_BYTES: Final = 40 * 1024 * 1024
"""What SES takes."""

TOO_MANY_CONNECTIONS: Final = Refusal(Reason.BUSY, 421, "4.7.0", "Too many connections")

_MOST_ERRORS: Final = 20
_MOST_IDLE_COMMANDS: Final = 100
"""Commands without a message between them."""
_MOST_WRONG_TOKENS: Final = 3
_MOST_TRIED: Final = 1000
"""RCPT commands of one message, taken or not, that do not count as idle ones."""

_OK: Final = b"250 2.0.0 Ok\r\n"
_GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_BYE: Final = b"221 2.0.0 Bye\r\n"
_HELP: Final = b"214 2.0.0 See RFC 5321; apps are named in the settings of sesguard\r\n"
_CANNOT_VERIFY: Final = b"252 2.1.5 Send some mail and see\r\n"
_NO_TLS: Final = b"502 5.5.1 STARTTLS is not offered here\r\n"
_UNKNOWN: Final = b"500 5.5.2 Unknown command\r\n"
_HELLO_FIRST: Final = b"503 5.5.1 Say hello first\r\n"
_MAIL_FIRST: Final = b"503 5.5.1 MAIL first\r\n"
_RCPT_FIRST: Final = b"503 5.5.1 RCPT first\r\n"
_IN_MESSAGE: Final = b"503 5.5.1 Not within a message\r\n"
_LOGGED_IN: Final = b"235 2.7.0 Logged in\r\n"
_LOGGED_IN_ALREADY: Final = b"503 5.5.1 You are logged in already\r\n"
_TOO_MANY_ERRORS: Final = b"421 4.7.0 Too many errors\r\n"
_TOO_MANY_COMMANDS: Final = b"421 4.7.0 Too many commands\r\n"
_TOO_MANY_TOKENS: Final = b"421 4.7.0 Too many wrong tokens\r\n"
_TOO_LARGE: Final = Refusal(Reason.SIZE, 552, "5.3.4", "SES takes messages of up to 40 MiB")
_HTTP_VERBS: Final = frozenset(b"GET POST PUT HEAD OPTIONS CONNECT PATCH DELETE TRACE PRI".split())
"""A web page can make a browser say these to a port of the loopback."""
_HTTP_ENDS: Final = frozenset({b" HTTP/1.", b" HTTP/2."})
"""How the line ends, but for one digit, with whatever verb the page has chosen: also ours."""


class Link(Protocol):
    """The connection, as the dialogue sees it."""

    def go_on(self, reply: bytes) -> None:
        """Send a reply that was waited for, and read on."""
        ...

    def reply_later(self, reply: bytes, delay_s: float) -> None:
        """Send a reply after a while, and read on then."""
        ...

    def log_in(self, app: str) -> bool:
        """Know that the client is `app`; False: the app has as many connections as it may."""
        ...

    def pause(self) -> None:
        """Read nothing for now."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Dialogue:
    """
    What a client's commands mean; the `sesguard.relay.transaction.Client` of its messages.

    Args:
        relay: What all sessions share.
        link: The connection.
        caller: Who the kernel says it is.
        is_lmtp: Whether it speaks LMTP.
    """

    def __init__(self, relay: Relay, link: Link, caller: Caller, *, is_lmtp: bool) -> None:
        self.caller = caller
        self.login: str | None = None
        self.is_lmtp = is_lmtp
        self.stream: DotStream | ChunkStream | None = None
        """Set while the text of a message is due instead of commands."""
        self.waiting = False
        """Whether a reply is due that is not known yet; no command is to be given until then."""
        self.closing = False
        """Whether the connection is to be closed after the reply; no command is to be given."""
        self._relay = relay
        self._link = link
        self._greeted = False
        self._transaction: Transaction | None = None
        self._chunks: ChunkStream | None = None
        """Of a message that comes by BDAT."""
        self._auth: Login | None = None
        self._errors = 0
        self._idle_commands = 0
        self._tried_recipients = 0
        self._wrong_tokens = 0

    @property
    def is_logging_in(self) -> bool:
        """Whether the next line is a response to AUTH."""
        return self._auth is not None

    @property
    def in_message(self) -> bool:
        """Whether a message is under way."""
        return self._transaction is not None

    def command(self, line: bytes) -> bytes:
        """
        Obey one line, without its CRLF.

        Returns:
            The reply; empty while `waiting`.
        """
        try:
            reply = self._continue_login(line) if self._auth is not None else self._obey(line)
        except CommandFault as fault:
            return self.complain(fault)
        return self._counted(reply)

    def complain(self, fault: CommandFault) -> bytes:
        """The reply to what is no command at all."""
        self._auth = None
        return self._counted(fault.refusal.line())

    def text(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Take bytes while `stream` is set.

        Returns:
            The reply, mostly none yet, and the bytes that are commands again.
        """
        stream, transaction = self.stream, self._transaction
        assert stream is not None
        text = stream.feed(data)
        if transaction is not None:
            if stream.fault is not None:
                transaction.refuse(stream.fault)
            elif text:
                transaction.take(text)
        if stream.ended or stream.chunk_ended:
            return self._end_text(stream), stream.rest
        if stream.fault is not None and stream.seems_ended:
            # The client takes its message for complete, and would wait for a reply for ever.
            return self._hang_up(stream.fault.line()), b""
        return b"", b""

    def _end_text(self, stream: DotStream | ChunkStream) -> bytes:
        self.stream = None
        transaction = self._transaction
        if transaction is None:
            self._chunks = None
            return _MAIL_FIRST
        if not stream.ended:
            return _OK
        self.waiting = True
        transaction.finish(stream.size)
        return b""

    def lost(self) -> None:
        """The connection is gone."""
        self._end_transaction()

    # What a message needs of its session (`sesguard.relay.transaction.Client`).

    def answer(self, reply: bytes) -> None:
        """Pass the reply to the message on."""
        self._transaction = self._chunks = None
        self._idle_commands = 0
        self.waiting = False
        self._link.go_on(reply)

    def pause(self) -> None:
        """Read nothing for now."""
        self._link.pause()

    def resume(self) -> None:
        """Read on."""
        self._link.resume()

    # Commands.

    def _obey(self, line: bytes) -> bytes:
        verb, argument = split_command(line)
        self._idle_commands += 1
        if self._idle_commands > _MOST_IDLE_COMMANDS:
            return self._hang_up(_TOO_MANY_COMMANDS)
        if verb in _HTTP_VERBS or line[-9:-1] in _HTTP_ENDS:
            return self._hang_up(_TOO_MANY_ERRORS)
        command = self._COMMANDS.get(verb)
        if command is None:
            return _UNKNOWN
        return command(self, argument)

    def _hello(self, _argument: bytes) -> bytes:
        if self.is_lmtp:
            return _UNKNOWN
        self._end_transaction()
        self._greeted = True
        return f"250 {self._relay.host_name}\r\n".encode("ascii")

    def _extended_hello(self, _argument: bytes) -> bytes:
        return _UNKNOWN if self.is_lmtp else self._greet()

    def _lmtp_hello(self, _argument: bytes) -> bytes:
        return self._greet() if self.is_lmtp else _UNKNOWN

    def _greet(self) -> bytes:
        self._end_transaction()
        self._greeted = True
        app = self._relay.identities.app_for(self.caller, self.login)
        size = app.max_message_bytes if isinstance(app, App) else MAX_MESSAGE_BYTES
        # SES knows no DSN: it can be kept only for what lies in our own queue.
        dsn = isinstance(app, App) and app.delivery is DeliveryMode.SPOOL
        return _extensions(self._relay.host_name, size, dsn=dsn)

    def _mail(self, argument: bytes) -> bytes:
        if not self._greeted:
            return _HELLO_FIRST
        if self._transaction is not None:
            return _IN_MESSAGE
        app = self._relay.identities.app_for(self.caller, self.login)
        if isinstance(app, Refusal):
            self._report(app)
            return app.line()
        command = parse_mail(argument)
        if command.size is not None and command.size > MAX_MESSAGE_BYTES:
            return _TOO_LARGE.line()
        transaction = Transaction(self._relay, self, app, command)
        refusal = transaction.check_sender()
        if refusal is not None:
            return refusal.line()
        self._transaction = transaction
        self._tried_recipients = 0
        return _OK

    def _rcpt(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return _MAIL_FIRST
        if self._chunks is not None:
            # The envelope may have gone on with the first chunk (RFC 3030, 4.2).
            return _IN_MESSAGE
        refusal = transaction.add_recipient(parse_rcpt(argument, transaction.utf8))
        self._tried_recipients += 1
        self._idle_commands -= self._tried_recipients <= _MOST_TRIED
        return _OK if refusal is None else refusal.line()

    def _data(self, _argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return _MAIL_FIRST
        if self._chunks is not None:
            return _IN_MESSAGE
        if not transaction.has_recipients:
            return _RCPT_FIRST
        self.stream = DotStream(transaction.max_message_bytes)
        return _GO_AHEAD

    def _bdat(self, argument: bytes) -> bytes:
        try:
            size, last = parse_bdat(argument)
        except CommandFault:
            # Octets may follow, and nobody knows how many: they must not be taken for commands.
            self.closing = True
            raise
        if self._transaction is not None and not self._transaction.has_recipients:
            self._end_transaction()
        if self._chunks is None:
            transaction = self._transaction
            # Without a message the octets of the chunk are read all the same, and thrown away.
            self._chunks = ChunkStream(transaction.max_message_bytes if transaction else 0)
        self._chunks.begin_chunk(size, last)
        self.stream = self._chunks
        return self.text(b"")[0] if size == 0 else b""

    def _auth_command(self, argument: bytes) -> bytes:
        if not self._greeted:
            return _HELLO_FIRST
        if self.login is not None:
            return _LOGGED_IN_ALREADY
        if self._transaction is not None:
            return _IN_MESSAGE
        mechanism, initial = parse_auth(argument)
        self._auth = Login(mechanism)
        return self._challenge(self._auth.begin(initial))

    def _continue_login(self, line: bytes) -> bytes:
        assert self._auth is not None
        return self._challenge(self._auth.take(line))

    def _challenge(self, challenge: bytes | None) -> bytes:
        login = self._auth
        assert login is not None
        if challenge is not None:
            return challenge
        self._auth = None
        assert login.credentials is not None
        name = self._relay.identities.login(self.caller, *login.credentials)
        if isinstance(name, Refusal):
            return self._refuse_login(name)
        self._relay.guessing.clear(self.caller.uid)
        self.login = name
        if not self._link.log_in(name):
            self._report(TOO_MANY_CONNECTIONS)
            return self._hang_up(TOO_MANY_CONNECTIONS.line())
        return _LOGGED_IN

    def _refuse_login(self, refusal: Refusal) -> bytes:
        self._report(refusal)
        self._wrong_tokens += 1
        self.closing = self._wrong_tokens >= _MOST_WRONG_TOKENS
        self.waiting = True
        reply = _TOO_MANY_TOKENS if self.closing else refusal.line()
        self._link.reply_later(reply, self._relay.guessing.delay_s(self.caller.uid))
        return b""

    def _reset(self, _argument: bytes) -> bytes:
        self._end_transaction()
        return _OK

    def _nothing(self, _argument: bytes) -> bytes:
        return _OK

    def _verify(self, _argument: bytes) -> bytes:
        return _CANNOT_VERIFY

    def _help(self, _argument: bytes) -> bytes:
        return _HELP

    def _starttls(self, _argument: bytes) -> bytes:
        return _NO_TLS

    def _quit(self, _argument: bytes) -> bytes:
        return self._hang_up(_BYE)

    # Inside.

    def _counted(self, reply: bytes) -> bytes:
        if reply.startswith(b"5"):
            self._errors += 1
            if self._errors >= _MOST_ERRORS:
                return self._hang_up(_TOO_MANY_ERRORS)
        return reply

    def _hang_up(self, reply: bytes) -> bytes:
        self.closing = True
        return reply

    def _end_transaction(self) -> None:
        transaction, self._transaction, self._chunks = self._transaction, None, None
        if transaction is not None:
            transaction.abandon()

    def _report(self, refusal: Refusal) -> None:
        fate = Fate.DEFERRED if refusal.is_kept else Fate.REFUSED
        protocol = "lmtp" if self.is_lmtp else "smtp"
        self._relay.sink(
            RelayEvent(
                fate,
                protocol,
                app=self.login,
                uid=self.caller.uid,
                reason=refusal.reason,
                reply=refusal.text,
            )
        )

    _COMMANDS: ClassVar[Mapping[bytes, Callable[["Dialogue", bytes], bytes]]] = {
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"BDAT": _bdat,
        b"EHLO": _extended_hello,
        b"HELO": _hello,
        b"LHLO": _lmtp_hello,
        b"AUTH": _auth_command,
        b"RSET": _reset,
        b"NOOP": _nothing,
        b"VRFY": _verify,
        b"HELP": _help,
        b"STARTTLS": _starttls,
        b"QUIT": _quit,
    }


@lru_cache(maxsize=256)
def _extensions(host_name: str, size: int, *, dsn: bool) -> bytes:
    """The reply to EHLO; apps differ in little of it."""
    lines = [host_name, "PIPELINING", "8BITMIME", "SMTPUTF8", f"SIZE {size}"]
    lines += ["ENHANCEDSTATUSCODES", "CHUNKING"]
    if dsn:
        lines.append("DSN")
    text = "".join(f"250-{line}\r\n" for line in lines) + "250 AUTH PLAIN LOGIN\r\n"
    return text.encode("ascii")

"""
An SMTP session that is logged in, for any number of messages, driven by callbacks.

Every reply of the peer is one call: no coroutine and no timer for a command. A message is a
`Transaction` given to `start`; its envelope is said in one write where the upstream offers
PIPELINING, else command by command, and its text follows the upstream's 354.

Promises
    The line that ends a message is written once, after everything that was written to it, and only
    when `Transaction.finished`. A message that is given up is followed by RSET, or, once DATA was
    said, by the end of the connection.
    Replies are bounded in size, and in time by `check_time`, which the owner calls about once a
    second. What the peer says beyond what is due is never taken for the reply to a later message.
    A client that stops in the middle of its message, or lets others wait for it, loses the session.
    No text that leaves here holds the password, also when the peer sends it back.

Raises nothing: whatever happens to a message is a `Result`. When the connection breaks between the
end of a message and its reply, the result is `uncertain` (RFC 1047).

Sources: RFC 5321, 4.1.1, 4.5.3.2.
"""

import asyncio
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Protocol

from sesguard.core.envelope import Envelope
from sesguard.upstream.failures import deferral
from sesguard.upstream.handshake import Session
from sesguard.upstream.interface import Result
from sesguard.upstream.introduction import Introduction
from sesguard.upstream.pace import Pace
from sesguard.upstream.replies import Outcome, Reply, classify
from sesguard.upstream.timeouts import Timeouts
from sesguard.upstream.wire import END_OF_DATA, NotSmtp, ReplyReader

WRITE_BUFFER_BYTES: Final = 128 * 1024
"""Over it the writer of a message is paused."""

_GO_AHEAD: Final = 354
_GOES_AWAY: Final = 421
_NOBODY: Final[Mapping[str, Reply]] = {}
_GIVEN_UP: Final = deferral("4.3.0", "the message was given up")
_SILENT: Final = deferral("4.4.2", "the message stopped coming in")
_SLOW: Final = deferral("4.4.2", "the message came in too slowly while others waited")


class Transaction(Protocol):
    """One message, as the connection sees it."""

    @property
    def envelope(self) -> Envelope:
        """From whom, to whom."""
        ...

    @property
    def partial(self) -> bool:
        """Whether it goes to the other recipients when some are refused."""
        ...

    @property
    def finished(self) -> bool:
        """Whether everything was written to it."""
        ...

    @property
    def size(self) -> int:
        """Octets written to it so far."""
        ...

    def open_body(self) -> bytes:
        """The upstream takes the text: give what there is, and write the rest to the connection."""
        ...

    def pause(self) -> None:
        """Write nothing for now."""
        ...

    def resume(self) -> None:
        """Write on."""
        ...

    def settle(self, result: Result) -> None:
        """The end."""
        ...


class Owner(Protocol):
    """Whoever uses a connection."""

    def connection_free(self, connection: "Connection") -> None:
        """Its message is done, and it takes another one."""
        ...

    def connection_gone(self, connection: "Connection") -> None:
        """It takes no more messages; called once."""
        ...

    def connection_ended(self, connection: "Connection") -> None:
        """It is closed; nothing of it is left on the event loop."""
        ...

    def try_again(self, transaction: Transaction, result: Result) -> bool:
        """
        The connection was dead before the upstream took any of the message.

        Returns:
            Whether the owner goes on with it; else the connection settles it with `result`.
        """
        ...


class _Phase(Enum):
    IDLE = auto()
    ENVELOPE = auto()
    """MAIL, RCPT and DATA: some replies are due."""
    BODY = auto()
    """354 came; no reply is due."""
    FINAL = auto()
    """The message is complete; its reply is due."""
    RESET = auto()
    CLOSED = auto()


class Connection(asyncio.Protocol):
    """
    One session; it takes over the transport of `session`.

    Args:
        session: From `open_session`.
        owner: Told when the connection is free and when it is gone.
        timeouts: How long things may take.
    """

    def __init__(self, session: Session, owner: Owner, timeouts: Timeouts) -> None:
        self.session = session
        self.retired = False
        """Whether it is closed as soon as its message is done."""
        self.was_throttled = False
        """Whether the upstream closed it because there are too many connections."""
        self.messages = 0
        """Messages begun."""
        self.is_fresh = True
        """Whether it had no time to die unnoticed: it serves the first message at once."""
        self.was_stillborn = False
        """Whether the upstream closed it after the login, before it said anything more."""
        self._has_answered = False
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self.free_since = self.opened_at
        self._owner = owner
        self._timeouts = timeouts
        self._transport = session.transport
        self._reader = ReplyReader()
        self._phase = _Phase.IDLE
        self._deadline = 0.0
        self._transaction: Transaction | None = None
        self._introduction: Introduction | None = None
        self._pace: Pace | None = None
        """Of the client, while the upstream waits for text."""
        self._write_paused = False
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    @property
    def is_closed(self) -> bool:
        """Whether it can be used no more."""
        return self._phase is _Phase.CLOSED or self._transport.is_closing()

    @property
    def transaction(self) -> Transaction | None:
        """The message under way."""
        return self._transaction

    @property
    def is_write_paused(self) -> bool:
        """Whether the upstream is slower than the writer."""
        return self._write_paused

    # What the owner does with it.

    def start(self, transaction: Transaction) -> None:
        """Begin a message; the connection is free. Nothing is settled before this returns."""
        self.messages += 1
        self._phase = _Phase.ENVELOPE
        self._transaction = transaction
        self._introduction = Introduction(
            transaction.envelope,
            self.session.offer,
            transaction.size if transaction.finished else None,
            partial=transaction.partial,
        )
        if self._introduction.refusal is None:
            self._say(self._introduction.say())
        else:
            self._loop.call_soon(self._go_on, self._introduction)

    def write(self, data: bytes) -> None:
        """Take more of the message's text, after `Transaction.open_body`."""
        self._transport.write(data)

    def end_data(self, data: bytes = b"") -> None:
        """Take the last of the text: from here on the upstream may deliver the message."""
        self._phase = _Phase.FINAL
        self._deadline = self._loop.time() + self._timeouts.final_s
        self._transport.write(data + END_OF_DATA)

    def abandon(self) -> None:
        """Give its message up, before `end_data`; nothing of it is delivered."""
        self._transaction = None
        introduction = self._introduction
        if introduction is None or introduction.data_said:
            self.drop()

    def quit(self) -> None:
        """Take leave; no message is under way."""
        if not self._transport.is_closing():
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
        self._lose("")

    def drop(self, why: str = "gave the connection up") -> None:
        """End the connection at once; what was not sent yet is thrown away."""
        self._transport.abort()
        self._lose(why)

    def check_time(self, now: float, *, crowded: bool) -> None:
        """
        Give up a peer whose reply is late and a client that is too slow; about once a second.

        Args:
            now: Time of the event loop.
            crowded: Whether others wait for a session.
        """
        if self._deadline and now > self._deadline:
            self.drop("did not answer in time")
        elif self._phase is _Phase.BODY and self._pace and self._transaction:
            self._pace.look(now, self._transaction.size, held=self._write_paused)
            if self._pace.is_silent:
                self._end(_SILENT, drop=True)
            elif crowded and self._pace.is_behind:
                self._end(_SLOW, drop=True)

    # What the event loop tells (`asyncio.Protocol`).

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            replies = self._reader.feed(data)
        except NotSmtp:
            self.drop("does not answer as an SMTP server does")
            return
        self._has_answered = True
        if len(replies) > self._due() or (self._reader.is_within_reply and not self._due()):
            self.retired = True
        for code, text in replies:
            self._hear(code, text)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._write_paused = True
        if self._transaction is not None and self._phase is _Phase.BODY:
            self._deadline = self._loop.time() + self._timeouts.data_s
            self._transaction.pause()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._write_paused = False
        if self._transaction is not None and self._phase is _Phase.BODY:
            self._deadline = 0.0
            self._transaction.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's
        """See `asyncio.BaseProtocol`."""
        is_open = self._phase is not _Phase.CLOSED
        self.was_stillborn = is_open and self.is_fresh and not self._has_answered
        self._lose("closed the connection")
        self._owner.connection_ended(self)

    # Replies.

    def _due(self) -> int:
        match self._phase:
            case _Phase.ENVELOPE:
                assert self._introduction is not None
                return self._introduction.due
            case _Phase.FINAL | _Phase.RESET:
                return 1
            case _:
                return 0

    def _hear(self, code: int, text: bytes) -> None:
        match self._phase:
            case _Phase.FINAL:
                self._end(self._reply(code, text))
            case _Phase.ENVELOPE:
                assert self._introduction is not None
                self._hear_envelope(self._introduction, code, text)
            case _Phase.RESET if code // 100 == 2:
                self._free()
            case _Phase.BODY if code >= 400:
                self._end(self._reply(code, text), drop=True)
            case _Phase.CLOSED:
                pass
            case _:
                self.drop("said more than was due")

    def _hear_envelope(self, introduction: Introduction, code: int, text: bytes) -> None:
        if introduction.due == 0:
            self.drop("said more than was due")
            return
        if introduction.is_data_reply_next() and code == _GO_AHEAD:
            self._begin_body(introduction)
            return
        if code // 100 == 2:
            if introduction.is_data_reply_next():
                # Never a refusal with a good reply: the message would count as sent.
                self.drop("does not answer as an SMTP server does")
                return
            introduction.hear_taken()
        else:
            reply = self._reply(code, text)
            if code == _GOES_AWAY:
                self._end_early(introduction, reply)
                return
            introduction.hear_refused(reply)
        if introduction.due == 0:
            self._go_on(introduction)

    def _begin_body(self, introduction: Introduction) -> None:
        transaction = self._transaction
        if transaction is None or introduction.refusal is not None:
            # DATA was begun although the message must not go: there is no other way back.
            self._end(introduction.refusal or _GIVEN_UP, drop=True)
            return
        self._phase = _Phase.BODY
        self._deadline = 0.0
        data = transaction.open_body()
        if transaction.finished:
            self.end_data(data)
            return
        times = self._timeouts
        self._pace = Pace(
            self._loop.time(), transaction.size, silence_s=times.silence_s, lag_s=times.lag_s
        )
        self._transport.write(data)
        if not self._write_paused:
            transaction.resume()

    def _go_on(self, introduction: Introduction) -> None:
        """Every reply to what was said has come: say the next, or end the message."""
        if introduction is not self._introduction:
            return
        if introduction.refusal is None and self._transaction is not None:
            self._say(introduction.say())
            return
        self._end(introduction.refusal or _GIVEN_UP, reset=introduction.mail_taken)

    def _end_early(self, introduction: Introduction, reply: Reply) -> None:
        """The upstream goes away (421) before it has the message."""
        self.was_throttled = reply.outcome is Outcome.THROTTLED
        self.retired = True
        if not self.was_throttled and self._is_replaced(reply):
            self._transaction = None
        self._end(introduction.refusal or reply, drop=True)

    def _reply(self, code: int, text: bytes) -> Reply:
        return classify(code, self.session.redactor.clean(text))

    def _say(self, commands: bytes) -> None:
        self._deadline = self._loop.time() + self._timeouts.reply_s
        self._transport.write(commands)

    # Ends.

    def _end(self, reply: Reply, *, reset: bool = False, drop: bool = False) -> None:
        """The message is done; the connection is made ready for the next before anybody hears."""
        transaction, self._transaction = self._transaction, None
        introduction, self._introduction = self._introduction, None
        result = self._result(reply, introduction)
        if reply.code == _GOES_AWAY:
            self.was_throttled = self.was_throttled or reply.outcome is Outcome.THROTTLED
        if drop or reply.code == _GOES_AWAY:
            self.drop()
        elif reset:
            self._phase = _Phase.RESET
            self._say(b"RSET\r\n")
        else:
            self._free()
        if transaction is not None:
            transaction.settle(result)

    def _free(self) -> None:
        self._phase = _Phase.IDLE
        self.is_fresh = False
        self._deadline = 0.0
        self.free_since = self._loop.time()
        self._owner.connection_free(self)

    def _lose(self, why: str) -> None:
        """The connection is over, at whatever point."""
        if self._phase is _Phase.CLOSED:
            return
        phase, self._phase = self._phase, _Phase.CLOSED
        self._deadline = 0.0
        transaction = self._transaction
        introduction, self._introduction = self._introduction, None
        reply = deferral("4.4.2", f"{self.session.endpoint.host} {why}", told=f"the upstream {why}")
        if phase is _Phase.ENVELOPE and introduction is not None and introduction.refusal:
            # The refusal is the answer, also when the peer hangs up after it.
            reply = introduction.refusal
        elif phase is _Phase.ENVELOPE and self._is_replaced(reply):
            transaction = None
        self._transaction = None
        self._owner.connection_gone(self)
        if transaction is not None:
            uncertain = phase is _Phase.FINAL
            transaction.settle(self._result(reply, introduction, uncertain=uncertain))

    def _is_replaced(self, reply: Reply) -> bool:
        """Whether the owner sends the message again: the fault was the connection's alone."""
        if self._transaction is None or (self.is_fresh and not self.was_stillborn):
            return False
        return self._owner.try_again(self._transaction, self._result(reply, None))

    def _result(
        self, reply: Reply, introduction: Introduction | None, *, uncertain: bool = False
    ) -> Result:
        login = self.session.login
        return Result(
            reply,
            introduction.refused if introduction is not None else _NOBODY,
            uncertain,
            self.session.endpoint.host,
            login.credential_id,
            login.version,
        )

"""
One client's connection, on the event loop's callbacks.

What came in one piece is answered in one write, so that pipelined commands and replies of many
lines cost one packet. While a reply is not known yet, what the client sends ahead waits.

Promises
    A command that is not ended by CRLF is no command; a text ends with CRLF.CRLF and nowhere else.
    A client that is slow or silent is let go with 421, also one that sends an octet now and then.
    A client that does not read its replies is not read from; once it is let go it has
    `parting_s` to take what is left, and is cut off then. It is counted until its end.
    A caller that is no app has a short time to log in, whatever it says meanwhile.

Sources: RFC 5321, 4.5.3.2 (time limits); RFC 2920 (PIPELINING).
"""

import asyncio
from typing import Final, cast

from sesguard.relay.commands import (
    MAX_AUTH_LINE_BYTES,
    MAX_LINE_BYTES,
    CommandFault,
    CommandLines,
)
from sesguard.relay.dialogue import TOO_MANY_CONNECTIONS, Dialogue
from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.identity import caller_of
from sesguard.relay.model import UNKNOWN, Caller, Reason, Refusal
from sesguard.relay.service import Relay
from sesguard.relay.shares import Place

_MOST_AHEAD: Final = 64 * 1024
"""Octets that a client may send ahead of a reply."""
_NEVER: Final = float("inf")
_TLS_HANDSHAKE: Final = b"\x16"
"""How a client begins that takes this for a port with TLS; no command has it."""
_TOO_SLOW: Final = b"421 4.4.2 You took too long\r\n"
_STOPPING: Final = b"421 4.3.2 Going down\r\n"


class Session(asyncio.Protocol):
    """
    One connection.

    Args:
        relay: What all sessions share.
        is_lmtp: Whether it speaks LMTP.
        place: The one of a client from elsewhere, whom only a token names. None: a client on this
            host, whose place is that of its uid.
    """

    def __init__(self, relay: Relay, *, is_lmtp: bool, place: Place | None = None) -> None:
        self._relay = relay
        self._is_lmtp = is_lmtp
        self._place = place
        self._is_public = place is not None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._dialogue: Dialogue | None = None
        self._lines = CommandLines()
        self._out = bytearray()
        self._ahead = bytearray()
        """What came while a reply was waited for."""
        self._processing = False
        self._paused_by: set[str] = set()
        self._deadline = _NEVER
        self._message_deadline = _NEVER
        self._login_deadline = _NEVER
        if self._is_public:
            self._login_deadline = self._loop.time() + relay.limits.public_login_timeout_s
        self._stopping = False
        self._at_end = False
        """Whether the client has sent all that it will."""

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        relay = self._relay
        self._transport = cast("asyncio.Transport", transport)
        relay.sessions.add(self)
        caller = UNKNOWN if self._is_public else caller_of(transport.get_extra_info("socket"))
        if caller is None:
            # It has closed already: nobody can tell any more who it was.
            self._drop(b"")
        elif (place := self._place or self._take_place(caller)) is None:
            protocol = "lmtp" if self._is_lmtp else "smtp"
            relay.sink(RelayEvent(Fate.DEFERRED, protocol, uid=caller.uid, reason=Reason.BUSY))
            self._drop(TOO_MANY_CONNECTIONS.line())
        else:
            self._place = place
            self._dialogue = Dialogue(relay, self, caller, is_lmtp=self._is_lmtp)
            self._expect_command()
            self._transport.write(relay.greeting)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        if dialogue.waiting:
            self._ahead += data
            if len(self._ahead) > _MOST_AHEAD:
                self._pause("ahead")
        else:
            self._process(dialogue, data)

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: a client that has sent all may still wait for its reply."""
        self._at_end = True
        if self._dialogue is None:
            return False
        if self._dialogue.waiting and not self._is_public:
            return True
        self._drop(b"")
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._end_dialogue()
        self._transport = None
        self._relay.sessions.discard(self)
        if self._place is not None:
            self._place.give_back()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._pause("replies")

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._resume("replies")

    # What the dialogue asks for (`sesguard.relay.dialogue.Link`).

    def go_on(self, reply: bytes) -> None:
        """Send a reply that was waited for, and go on with what came meanwhile."""
        self._out += reply
        self._expect_command()
        if not self._processing and self._dialogue is not None:
            ahead, self._ahead = self._ahead, bytearray()
            self._resume("ahead")
            self._process(self._dialogue, bytes(ahead))

    def reply_later(self, reply: bytes, delay_s: float) -> None:
        """Send a reply after a while, and go on then."""
        self._loop.call_later(delay_s, self._reply_now, reply)

    def log_in(self, app: str) -> bool:
        """Know that the client is `app`; False: the app has as many connections as it may."""
        self._login_deadline = _NEVER
        return self._place is None or self._place.log_in(app, self._relay.limits.max_connections)

    def pause(self) -> None:
        """Read nothing for now."""
        self._pause("message")

    def resume(self) -> None:
        """Read on."""
        self._resume("message")

    # What the server does to it.

    def check(self, now: float) -> None:
        """Let the client go when its time is over; called once a second."""
        dialogue = self._dialogue
        if dialogue is None:
            if now > self._deadline:
                self.abort()
        elif not dialogue.waiting and now > min(self._deadline, self._login_deadline):
            self._drop(_TOO_SLOW)

    def stop(self, *, at_once: bool = False) -> None:
        """Let the client go, as soon as no message of it is under way or at once."""
        self._stopping = True
        if self._dialogue is not None and (at_once or self._is_to_go(self._dialogue)):
            self._drop(_STOPPING)

    def abort(self) -> None:
        """Close at once; what is left to say is lost."""
        if self._transport is not None:
            self._transport.abort()

    # Inside.

    def _take_place(self, caller: Caller) -> Place | None:
        relay, limits = self._relay, self._relay.limits
        answer = relay.identities.app_for(caller, None)
        is_stranger = isinstance(answer, Refusal) and answer.reason is Reason.UNKNOWN_CALLER
        if is_stranger:
            self._login_deadline = self._loop.time() + limits.login_timeout_s
        return relay.shares.take(caller.uid, limits.max_connections, is_stranger=is_stranger)

    def _process(self, dialogue: Dialogue, data: bytes) -> None:
        self._processing = True
        try:
            while data and not (dialogue.waiting or dialogue.closing or self._is_to_go(dialogue)):
                if dialogue.stream is None:
                    data = self._read_commands(dialogue, data)
                else:
                    data = self._read_text(dialogue, data)
        finally:
            self._processing = False
        self._ahead += data
        if not dialogue.waiting and (dialogue.closing or self._at_end):
            self._drop(b"")
        elif self._is_to_go(dialogue):
            self._drop(_STOPPING)
        elif self._out:
            self._write()

    def _is_to_go(self, dialogue: Dialogue) -> bool:
        return self._stopping and not dialogue.in_message

    def _read_commands(self, dialogue: Dialogue, data: bytes) -> bytes:
        if data.startswith(_TLS_HANDSHAKE):
            dialogue.closing = True
            return b""
        lines = self._lines
        lines.feed(data)
        while True:
            lines.limit = MAX_AUTH_LINE_BYTES if dialogue.is_logging_in else MAX_LINE_BYTES
            try:
                line = lines.next()
                if line is None:
                    return b""
                self._out += dialogue.command(line)
            except CommandFault as fault:
                self._out += dialogue.complain(fault)
            self._expect_command()
            if dialogue.closing:
                return b""
            if dialogue.stream is not None:
                now = self._loop.time()
                self._message_deadline = now + self._relay.limits.message_timeout_s
                return lines.take_rest()
            if dialogue.waiting:
                return lines.take_rest()

    def _read_text(self, dialogue: Dialogue, data: bytes) -> bytes:
        reply, rest = dialogue.text(data)
        self._out += reply
        self._expect_command()
        if dialogue.stream is not None:
            self._deadline = min(self._deadline, self._message_deadline)
        return rest

    def _expect_command(self) -> None:
        self._deadline = self._loop.time() + self._relay.limits.command_timeout_s

    def _reply_now(self, reply: bytes) -> None:
        if self._dialogue is not None:
            self._dialogue.waiting = False
            self.go_on(reply)

    def _drop(self, reply: bytes) -> None:
        """Send what is there, then `reply`, and close."""
        transport = self._transport
        self._out += reply
        if self._out:
            self._write()
        if transport is not None:
            transport.close()
        self._deadline = self._loop.time() + self._relay.limits.parting_s
        self._end_dialogue()

    def _write(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._out))
        self._out.clear()

    def _end_dialogue(self) -> None:
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            dialogue.lost()

    def _pause(self, why: str) -> None:
        transport = self._transport
        if not self._paused_by and transport is not None and not transport.is_closing():
            transport.pause_reading()
        self._paused_by.add(why)

    def _resume(self, why: str) -> None:
        if why not in self._paused_by:
            return
        self._paused_by.discard(why)
        transport = self._transport
        if not self._paused_by and transport is not None and not transport.is_closing():
            transport.resume_reading()

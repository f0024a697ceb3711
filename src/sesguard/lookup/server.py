"""
The server behind every socket of sesguardd: exim, postfix and control.

It stands on the event loop's readiness callbacks and on nothing else. Most clients have sent their
request by the time they are accepted, so the usual connection is accepted, checked, read, answered
and closed in one go, without a task, a stream or a timer. Only a client that lets us wait is
registered with the loop, with a time limit.

Promises:
- The peer's uid (SO_PEERCRED) is checked before anything is read, and again for each request, so
  that a changed list of users counts at once. Root is allowed only where it is listed.
- At most `max_connections` clients wait at a time; a further one is closed at once.
- A request must be complete `timeout_s` after the connection or its first byte, and its answer must
  be taken within the same time. A client that may ask again can be silent for `IDLE_S`.
- Answers are sent in order, and nothing is read from a client that does not take its answer.
- Without a free file descriptor accepting pauses for `PAUSE_S`; it neither spins nor fails.
- Every refusal is one event; a client that is only slow, or gone, never hurts another.

Raises nothing: an error on a connection ends that connection. A bug in a dialogue ends it too, and
goes to the loop's exception handler.
"""

import asyncio
import contextlib
import enum
import socket
from dataclasses import dataclass
from typing import Final

from sesguard.lookup.interface import Answer, Dialogue
from sesguard.lookup.model import EventSink, LookupEvent, Outcome, Reason
from sesguard.system.peers import Peer, peer_of

IDLE_S: Final = 60.0
"""Postfix closes an idle connection after 10 s on its own, so ours must be longer."""
PAUSE_S: Final = 0.05

_ACCEPT_BATCH: Final = 64
"""Connections accepted in one go; then the waiting clients get their turn."""
_CHUNK_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """Who may ask, and how much of us one socket may use."""

    allowed_uids: frozenset[int]
    max_connections: int = 256
    timeout_s: float = 5.0


class _Watch(enum.Enum):
    """What the event loop watches a connection for."""

    NOT = enum.auto()
    READ = enum.auto()
    WRITE = enum.auto()


class _Link:
    """One connection."""

    __slots__ = (
        "closing",
        "connection",
        "idle",
        "peer",
        "received",
        "served",
        "timer",
        "to_send",
        "watched",
    )

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        self.connection = connection
        self.peer = peer
        self.received = bytearray()
        self.to_send = memoryview(b"")
        self.closing = False
        """Whether to close once everything is sent."""
        self.served = False
        """Whether it had an answer."""
        self.idle = False
        """Whether it had an answer and has asked nothing since."""
        self.watched = _Watch.NOT
        self.timer: asyncio.TimerHandle | None = None


class LookupServer:
    """
    Serves one dialogue on one listening Unix socket, on the running event loop.

    Args:
        listener: Bound and listening; the server owns it from now on.
        dialogue: The protocol.
        limits: Who may ask; assign to `limits` to change them.
        sink: Takes refusals that happen outside of a complete request.
    """

    def __init__(
        self, listener: socket.socket, dialogue: Dialogue, limits: Limits, sink: EventSink
    ) -> None:
        self.limits = limits
        self._listener = listener
        self._dialogue = dialogue
        self._sink = sink
        self._waiting: set[_Link] = set()
        self._pausing: asyncio.TimerHandle | None = None
        self._stopping = False
        self._drained = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    async def stop(self, *, timeout_s: float) -> None:
        """Accept nothing more, give requests in progress `timeout_s` to end, close everything."""
        self._stopping = True
        if self._pausing is not None:
            self._pausing.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for link in [link for link in self._waiting if link.idle]:
            self._drop(link)
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), timeout_s)
        for link in list(self._waiting):
            self._give_up(link)

    # Accepting.

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            self._welcome(connection)

    def _pause(self, error: OSError) -> None:
        # The listener stays readable, so trying again at once would spin.
        descriptor = self._listener.fileno()
        self._loop.remove_reader(descriptor)
        self._pausing = self._loop.call_later(
            PAUSE_S, self._loop.add_reader, descriptor, self._accept
        )
        self._refuse(Reason.NO_FILE_DESCRIPTORS, None, error.strerror)

    def _welcome(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            link = _Link(connection, peer_of(connection))
        except OSError:
            connection.close()
            return
        if not self._allows(link):
            return
        if len(self._waiting) >= self.limits.max_connections:
            self._refuse(Reason.TOO_MANY_CONNECTIONS, link.peer)
            self._drop(link)
            return
        self._read(link)

    def _allows(self, link: _Link) -> bool:
        if link.peer.uid in self.limits.allowed_uids:
            return True
        self._refuse(Reason.UID_NOT_ALLOWED, link.peer)
        self._drop(link)
        return False

    # One connection.

    def _read(self, link: _Link) -> None:
        try:
            data = link.connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            self._wait_for_request(link)
            return
        except OSError:
            data = b""
        if data:
            link.received += data
            self._serve(link)
            return
        if link.received or not self._dialogue.keeps_open:
            self._refuse(Reason.HUNG_UP, link.peer)
        self._drop(link)

    def _serve(self, link: _Link) -> None:
        try:
            while self._allows(link):
                answer = self._dialogue.answer(link.received, link.peer)
                if answer is None:
                    self._wait_for_request(link)
                    return
                if not self._send(link, answer):
                    return
        except BaseException:
            self._drop(link)
            raise

    def _send(self, link: _Link, answer: Answer) -> bool:
        """Send an answer. Returns whether all of it is sent and the connection goes on."""
        link.served = True
        link.to_send = memoryview(answer.data)
        link.closing = answer.close
        self._stop_timer(link)
        return self._flush(link)

    def _flush(self, link: _Link) -> bool:
        try:
            while link.to_send:
                link.to_send = link.to_send[link.connection.send(link.to_send) :]
        except BlockingIOError:
            self._wait_for_room(link)
            return False
        except OSError:
            self._drop(link)
            return False
        if link.closing:
            self._drop(link)
        return not link.closing

    def _send_rest(self, link: _Link) -> None:
        if self._flush(link):
            self._stop_timer(link)
            self._serve(link)

    # Waiting for a client.

    def _wait_for_request(self, link: _Link) -> None:
        idle = link.served and not link.received
        if idle and self._stopping:
            self._drop(link)
            return
        if link.timer is None or link.idle != idle:
            link.idle = idle
            self._start_timer(link, IDLE_S if idle else self.limits.timeout_s)
        self._watch(link, _Watch.READ)

    def _wait_for_room(self, link: _Link) -> None:
        if link.timer is None:
            link.idle = False
            self._start_timer(link, self.limits.timeout_s)
        self._watch(link, _Watch.WRITE)

    def _watch(self, link: _Link, watch: "_Watch") -> None:
        if watch is link.watched:
            return
        descriptor = link.connection.fileno()
        if link.watched is _Watch.READ:
            self._loop.remove_reader(descriptor)
        elif link.watched is _Watch.WRITE:
            self._loop.remove_writer(descriptor)
        link.watched = watch
        if watch is _Watch.READ:
            self._waiting.add(link)
            self._loop.add_reader(descriptor, self._read, link)
        elif watch is _Watch.WRITE:
            self._waiting.add(link)
            self._loop.add_writer(descriptor, self._send_rest, link)

    def _start_timer(self, link: _Link, seconds: float) -> None:
        self._stop_timer(link)
        link.timer = self._loop.call_later(seconds, self._give_up, link)

    def _stop_timer(self, link: _Link) -> None:
        if link.timer is not None:
            link.timer.cancel()
            link.timer = None

    def _give_up(self, link: _Link) -> None:
        if not link.idle:
            self._refuse(Reason.TIMED_OUT, link.peer)
        self._drop(link)

    def _drop(self, link: _Link) -> None:
        self._stop_timer(link)
        self._watch(link, _Watch.NOT)
        link.connection.close()
        self._waiting.discard(link)
        if not self._waiting:
            self._drained.set()

    def _refuse(self, reason: Reason, peer: Peer | None, detail: str | None = None) -> None:
        self._sink(LookupEvent(Outcome.REFUSED, self._dialogue.protocol, peer, reason, detail))

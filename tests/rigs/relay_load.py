"""
Clients that send numbered messages and keep what was not taken, as a mail server does.

    load = Load(host.tcp, clients=4)
    with load.running(): ...          # kill and start the relay meanwhile
    load.accepted                     # numbers that got 250

A client goes on with a number until it gets 250 for it, over as many connections as that takes. It
notes where the reply to a whole message never came: such a message may rightly arrive once more.
"""

import contextlib
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from rigs.relay_wire import RECIPIENT, SENDER, Wire, envelope
from sesguard.sandbox.model import ReceivedMessage

_AGAIN_S = 0.02
_END_S = 60.0
_NUMBER = "X-Number"


def numbered(number: int) -> bytes:
    """The text of a message: every fortieth is longer than one piece of the queue."""
    size = 300_000 if number % 40 == 0 else 500
    head = f"From: {SENDER}\r\nTo: {RECIPIENT}\r\n{_NUMBER}: {number}\r\n\r\n"
    return head.encode() + b"x" * size + b"\r\n"


class Load:
    """
    The clients.

    Args:
        connect: Gives a new connection.
        clients: How many send at one time.
        pause_s: How long each rests after a message, so that nothing piles up.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], *, clients: int = 4, pause_s: float = 0.02
    ) -> None:
        self.accepted: set[int] = set()
        self.unanswered: Counter[int] = Counter()
        """Tries of a number whose message was complete and whose reply never came."""
        self.refused: list[tuple[int, bytes]] = []
        """5xx, which would be a bounce."""
        self.deferred: list[tuple[int, bytes]] = []
        """4xx."""
        self._connect = connect
        self._clients = clients
        self._pause_s = pause_s
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Send for the length of a block, at the end of which the relay must be up."""
        self._threads = [threading.Thread(target=self._run) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(_END_S)
        assert not any(thread.is_alive() for thread in self._threads), "a message was never taken"

    def copies(self, inbox: Iterable[ReceivedMessage]) -> Counter[int]:
        """How often each number arrived."""
        return Counter(number_of(message) for message in inbox)

    def _run(self) -> None:
        client: Wire | None = None
        while not self._stopping.is_set():
            number = next(self._numbers)
            deadline = time.monotonic() + _END_S
            while time.monotonic() < deadline:
                client, reply = self._try(client, number)
                if reply.startswith(b"250"):
                    self.accepted.add(number)
                    time.sleep(self._pause_s)
                    break
                if reply.startswith(b"5"):
                    self.refused.append((number, reply))
                    break
                time.sleep(_AGAIN_S)
        if client is not None:
            client.channel.close()

    def _try(self, client: Wire | None, number: int) -> tuple[Wire | None, bytes]:
        """Send once; gives the connection, if it is still good, and the reply, if one came."""
        try:
            client = client or self._new_client()
        except (OSError, AssertionError):
            return None, b""
        reply = self._send(client, number)
        if reply.startswith(b"4"):
            self.deferred.append((number, reply))
        if reply[:3] in (b"", b"421"):
            client.channel.close()
            return None, reply
        if not reply.startswith(b"250"):
            client.ask(b"RSET\r\n")
        return client, reply

    def _new_client(self) -> Wire:
        with contextlib.ExitStack() as stack:
            client = Wire(stack.enter_context(self._connect()))
            assert client.hello()
            stack.pop_all()
        return client

    def _send(self, client: Wire, number: int) -> bytes:
        for command in (*envelope().splitlines(keepends=True), b"DATA\r\n"):
            reply = client.ask(command)
            if reply[:3] not in (b"250", b"354"):
                return reply
        reply = client.ask(numbered(number) + b".\r\n")
        if not reply:
            self.unanswered[number] += 1
        return reply


def number_in(text: bytes) -> int:
    """The number of a message's text."""
    return int(text.partition(f"\n{_NUMBER}: ".encode())[2].partition(b"\r")[0])


def number_of(message: ReceivedMessage) -> int:
    """The number of a message in the inbox."""
    return int(message.header(_NUMBER) or 0)

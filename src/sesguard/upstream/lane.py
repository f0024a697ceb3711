"""
The sessions of one credential: which are idle, which are busy, and who waits.

Promises
    Messages get a session each app in its turn, those of one app in the order in which they came,
    and wait no longer than they may.
    The messages of one app that are not complete hold at most half of the sessions (or one), so
    that no client keeps the mail of others waiting by sending slowly.
    A message begins on a session of the version that is CURRENT at that moment. Sessions of an
    older version are closed at once when idle, and after their message when busy.
    The first endpoint that can be reached is used; one that failed is left alone for
    `Timeouts.endpoint_rest_s` while another one works.
    A dead upstream costs one attempt a second however many messages come, a refused login one in
    `Timeouts.login_rest_s`; what comes meanwhile hears the reason. An upstream that closes sessions
    right after the login is a dead one, from the second time on.
    "Too many concurrent connections" lowers the number of sessions, and it grows back slowly.

Known fault: sessions at a second endpoint are used until they are renewed (`Timeouts.age_s`), also
when the first one is back before that.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint
from sesguard.core.routing import RoutingRule, smtp_password
from sesguard.errors import Error, TemporaryFailure
from sesguard.upstream.connection import Connection, Transaction
from sesguard.upstream.failures import deferral, reply_of
from sesguard.upstream.handshake import Login, Session, open_session
from sesguard.upstream.interface import Result
from sesguard.upstream.line import Line
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.smtp import LoginRefused
from sesguard.upstream.timeouts import Timeouts
from sesguard.upstream.tls import tls_context
from sesguard.upstream.transfer import PoolTransfer

MAX_MESSAGES: Final = 500
"""A session is renewed after so many: SES sits behind load balancers that recycle connections."""
LIMIT_GROWTH: Final = 0.1
"""Sessions a second that a lowered limit grows by."""

_CLOSING: Final = deferral("4.3.2", "the relay is shutting down")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a credential's mail goes."""

    rule: RoutingRule
    endpoints: tuple[Endpoint, ...]
    """The first is the main one; the others are for when it cannot be reached."""
    ca_file: Path | None = None
    """Trusted CA certificates instead of the system's."""


class Lane:
    """
    The sessions of one credential.

    Args:
        destination: Where they go.
        max_connections: The most sessions at one time.
        max_messages: The most messages of one session.
        timeouts: How long things may take.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        max_connections: int,
        max_messages: int,
        timeouts: Timeouts,
    ) -> None:
        self.destination: Final = destination
        self._loop = asyncio.get_running_loop()
        self._max_connections = max_connections
        self._max_messages = max_messages
        self._timeouts = timeouts
        self._version: CredentialVersion | None = None
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._leaving: set[Connection] = set()
        """Sessions that end: the peer has yet to close its side."""
        self._opening: set[asyncio.Task[Session]] = set()
        self._line = Line()
        self._limit = float(max_connections)
        self._has_worked = False
        """Whether a session was opened since the last failure; until then one is tried."""
        self._stillborn = 0
        """Sessions in a row that ended before they were of use."""
        self._rests_until = 0.0
        self._fault: Result | None = None
        """Why no session could be opened at last."""
        self._retired = False
        self._rest_of: dict[Endpoint, float] = {}

    @property
    def open_connections(self) -> int:
        """Sessions that are up."""
        return len(self._idle) + len(self._busy)

    @property
    def waiting(self) -> int:
        """Messages without a session."""
        return len(self._line)

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing left to do."""
        return not (self._idle or self._busy or self._leaving or self._opening or self._line)

    def use(self, version: CredentialVersion) -> None:
        """From here on messages begin with `version`."""
        known = self._version
        if known is not None and (known.number, known.username) == (
            version.number,
            version.username,
        ):
            return
        self._version = version
        self._rests_until = 0.0
        self._has_worked = False
        for connection in self._busy:
            connection.retired = True
        self.close_idle()

    def add(self, transfer: PoolTransfer) -> None:
        """Take a message; nothing is told to its listener before this returns."""
        may_begin = transfer.finished or self._room(transfer.app) > 0
        connection = self._take_idle() if may_begin else None
        if connection is not None:
            self._begin(transfer, connection)
            return
        transfer.deadline = self._loop.time() + self._timeouts.wait_s
        transfer.wait_at(self)
        self._line.add(transfer)
        self._grow()
        if not self._opening and not self._busy:
            self._loop.call_soon(self._serve)

    def ready(self, transfer: PoolTransfer) -> None:  # noqa: ARG002 - any of them may go now
        """See `Waiter`."""
        self._hand_out()
        self._grow()

    def give_up(self, transfer: PoolTransfer) -> None:
        """See `Waiter`."""
        self._line.remove(transfer)

    def tick(self, now: float) -> None:
        """Close what was idle for long, and give up what is late; about once a second."""
        for connection in [*self._busy, *self._idle]:
            connection.check_time(now, crowded=bool(self._line))
        for connection in [c for c in self._idle if now - c.free_since > self._timeouts.idle_s]:
            self._idle.remove(connection)
            connection.quit()
        self._limit = min(self._limit + LIMIT_GROWTH, self._max_connections)
        for transfer in self._line.remove_late(now):
            transfer.settle(self._fault or self._failure(_no_session(self._timeouts)))
        self._serve()

    def retire(self) -> list[PoolTransfer]:
        """
        Take no more messages, and close every session once its message is done.

        Returns:
            The messages that have no session yet.
        """
        self._retired = True
        for connection in self._busy:
            connection.retired = True
        self.close_idle()
        return self._line.clear()

    def cut_unfinished(self) -> None:
        """End every message that is not complete, with a result that keeps it."""
        transfers = [*self._line, *(c.transaction for c in self._busy)]
        for transfer in transfers:
            if isinstance(transfer, PoolTransfer) and not transfer.finished:
                transfer.cut(self._failure(_CLOSING))

    def stop(self) -> None:
        """End everything at once."""
        for task in self._opening:
            task.cancel()
        for transfer in self.retire():
            transfer.settle(self._failure(_CLOSING))
        for connection in [*self._busy]:
            connection.drop("was given up, because the relay is shutting down")
        for connection in self._leaving:
            connection.session.transport.abort()

    # What its connections tell (`Owner`).

    def connection_free(self, connection: Connection) -> None:
        """See `Owner`."""
        if not connection.is_fresh:
            self._stillborn = 0
        worn = connection.messages >= self._max_messages
        worn = worn or self._loop.time() - connection.opened_at > self._timeouts.age_s
        if connection.retired or worn or self._retired:
            connection.quit()
            return
        self._busy.discard(connection)
        transfer = self._line.take(self._room)
        if transfer is not None:
            self._begin(transfer, connection)
        else:
            connection.is_fresh = False
            self._idle.append(connection)

    def connection_gone(self, connection: Connection) -> None:
        """See `Owner`."""
        self._leaving.add(connection)
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.was_throttled:
            self._lower_limit()
        if connection.was_stillborn:
            self._note_stillborn(connection)
        if self._line:
            self._loop.call_soon(self._serve)

    def connection_ended(self, connection: Connection) -> None:
        """See `Owner`."""
        self._leaving.discard(connection)

    def try_again(self, transaction: Transaction, result: Result) -> bool:  # noqa: ARG002
        """See `Owner`."""
        assert isinstance(transaction, PoolTransfer)
        if transaction.retried or self._retired:
            return False
        transaction.retried = True
        transaction.deadline = self._loop.time() + self._timeouts.wait_s
        transaction.wait_at(self)
        self._line.add_first(transaction)
        # What killed one idle session has likely killed the others.
        self.close_idle()
        return True

    # Inside.

    def _begin(self, transfer: PoolTransfer, connection: Connection) -> None:
        self._busy.add(connection)
        transfer.begin_at(connection)

    def _room(self, app: str) -> int:
        """How many more messages of an app may have a session before they are complete."""
        held = sum(
            isinstance(each := connection.transaction, PoolTransfer)
            and each.app == app
            and not each.finished
            for connection in self._busy
        )
        return max(1, int(self._limit) // 2) - held

    def _hand_out(self) -> None:
        """Give idle sessions to those who wait and may have one."""
        while self._line and (connection := self._take_idle()) is not None:
            transfer = self._line.take(self._room)
            if transfer is None:
                self._idle.append(connection)
                return
            self._begin(transfer, connection)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                return connection
            connection.drop()
        return None

    def close_idle(self) -> None:
        """Close every session without a message."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.quit()

    def _serve(self) -> None:
        """Find sessions for those who wait; tell them when that cannot be."""
        self._hand_out()
        self._grow()
        if self._line and not self._opening and not self._busy:
            for transfer in self._line.clear():
                transfer.settle(self._fault or self._failure(_no_session(self._timeouts)))

    def _grow(self) -> None:
        allowed = max(1, int(self._limit)) - self.open_connections
        if allowed <= 0 or not self._line or self._retired:
            return
        if self._loop.time() < self._rests_until:
            return
        wanted = self._line.count(self._room) - len(self._idle)
        allowed = min(allowed, wanted if self._has_worked else min(wanted, 1))
        while len(self._opening) < allowed:
            assert self._version is not None
            task = self._loop.create_task(self._open(self._version))
            self._opening.add(task)
            task.add_done_callback(self._opened)

    async def _open(self, version: CredentialVersion) -> Session:
        """Open a session at the first endpoint that can be reached."""
        now = self._loop.time()
        endpoints = self.destination.endpoints
        rested = [each for each in endpoints if self._rest_of.get(each, 0.0) <= now]
        fault: Error = TemporaryFailure("there is no endpoint to send to")
        for endpoint in rested or endpoints:
            try:
                login = self._login(version, endpoint)
                return await open_session(endpoint, login, self._tls(), self._timeouts.session_s)
            except Error as error:
                if isinstance(error, LoginRefused) or _is_throttled(error):
                    raise
                fault = error
                self._rest_of[endpoint] = self._loop.time() + self._timeouts.endpoint_rest_s
        raise fault

    def _login(self, version: CredentialVersion, endpoint: Endpoint) -> Login:
        rule = self.destination.rule
        password = smtp_password(version, rule, endpoint.host)
        return Login(rule.credential_id, version.number, version.username, password)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self.destination.ca_file)
        return self._context

    def _opened(self, task: asyncio.Task[Session]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._add_session(task.result())
        else:
            self._note_failure(error)
        self._serve()

    def _add_session(self, session: Session) -> None:
        connection = Connection(session, self, self._timeouts)
        if connection.is_closed:
            # The handshake's protocol was told of it, when the handshake was over.
            connection.connection_lost(None)
            return
        self._has_worked = True
        self._fault = None
        version = self._version
        assert version is not None
        connection.retired = (session.login.version, session.login.username) != (
            version.number,
            version.username,
        )
        self._busy.add(connection)
        self.connection_free(connection)

    def _note_stillborn(self, connection: Connection) -> None:
        self._stillborn += 1
        if self._stillborn > 1:
            host = connection.session.endpoint.host
            self._note_failure(
                TemporaryFailure("{host} closes each session after the login", host=host)
            )

    def _note_failure(self, error: BaseException) -> None:
        if not isinstance(error, Error):
            self._loop.call_exception_handler({"message": "opening a session", "exception": error})
            error = TemporaryFailure("a session could not be opened, because of a fault of ours")
        self._has_worked = False
        refused = isinstance(error, LoginRefused)
        rest_s = self._timeouts.login_rest_s if refused else self._timeouts.connect_rest_s
        self._rests_until = self._loop.time() + rest_s
        self._fault = self._failure(reply_of(error))
        if _is_throttled(error):
            self._lower_limit()

    def _lower_limit(self) -> None:
        self._limit = max(1.0, min(self._limit, self.open_connections))

    def _failure(self, reply: Reply) -> Result:
        version = self._version
        return Result(
            reply,
            credential_id=self.destination.rule.credential_id,
            credential_version=version.number if version is not None else None,
        )


def _is_throttled(error: Error) -> bool:
    return reply_of(error).outcome is Outcome.THROTTLED


def _no_session(timeouts: Timeouts) -> Reply:
    return deferral("4.3.2", f"no session was free within {timeouts.wait_s:g} s")

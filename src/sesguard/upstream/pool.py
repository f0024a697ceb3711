"""
Mail to SES by SMTP, over sessions that stay open: the `Carrier` of the credential.

Promises
    The credential is chosen for each message as `sesguard.core.routing` says, and its version is
    asked for each message: a rotation holds from the next message on. Sessions of the old version
    end by themselves, also without traffic, and no message is cut.
    A session that turns out dead before the upstream took anything of a message is replaced once,
    and the writer of the message does not notice.
    A message gets a session when it is complete or large, and each app has its turn: see
    `sesguard.upstream.transfer` and `sesguard.upstream.line`.
    After `close` nothing of ours is left on the event loop.
    `begin` raises nothing and tells nothing; a credential that cannot be had, an upstream that
    cannot be reached or trusted, a refused login: each is a `Result` with a 4xx reply.

Limits: `max_connections` sessions a credential, beyond which messages wait up to
`Timeouts.wait_s`; see `sesguard.upstream.lane` for how long sessions live.

Known fault: a message without a session keeps up to `sesguard.upstream.transfer.BUFFER_BYTES` and
one piece of its text in memory.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from sesguard.core.envelope import Envelope
from sesguard.core.interfaces import CredentialSource
from sesguard.core.routing import RoutingRule, choose_rule, rule_named
from sesguard.errors import Error
from sesguard.upstream.failures import deferral, reply_of
from sesguard.upstream.interface import Result, Transfer, TransferListener
from sesguard.upstream.lane import MAX_MESSAGES, Destination, Lane
from sesguard.upstream.replies import Reply
from sesguard.upstream.timeouts import Timeouts
from sesguard.upstream.transfer import PoolTransfer
from sesguard.upstream.wire import find_unsayable

__all__ = ["Destination", "Timeouts", "UpstreamPool"]

TICK_S: Final = 1.0
_POLL_S: Final = 0.01
_LAST_S: Final = 0.5
"""For what was broken off at the end to leave the event loop."""

_CLOSED: Final = deferral("4.3.2", "the relay is shutting down")
_DEFAULT_TIMEOUTS: Final = Timeouts()


class UpstreamPool:
    """
    Sessions with SES for every credential; a `Carrier`. Made and used on one event loop.

    Args:
        source: Gives the version of a credential that is in use; asked for each message.
        destinations: Every credential and where its mail goes.
        max_connections: The most sessions at one time, for each credential.
        max_messages: The most messages of one session; then it is renewed.
        timeouts: How long things may take.
    """

    def __init__(
        self,
        source: CredentialSource,
        destinations: Sequence[Destination],
        *,
        max_connections: int = 20,
        max_messages: int = MAX_MESSAGES,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
    ) -> None:
        self._source = source
        self._max_connections = max_connections
        self._max_messages = max_messages
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._destinations: dict[str, Destination] = {}
        self._rules: list[RoutingRule] = []
        self._coming: set[PoolTransfer] = set()
        """Messages that are not worth a session yet."""
        self._lanes: dict[str, Lane] = {}
        self._draining: list[Lane] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        shortest_s = min(
            timeouts.reply_s,
            timeouts.final_s,
            timeouts.wait_s,
            timeouts.idle_s,
            timeouts.silence_s,
            timeouts.lag_s,
        )
        self._tick_s = min(TICK_S, shortest_s / 4)
        self.update(destinations)

    @property
    def open_connections(self) -> int:
        """Sessions that are up now."""
        return sum(lane.open_connections for lane in self._all_lanes())

    @property
    def waiting(self) -> int:
        """Messages that have no session yet."""
        return sum(lane.waiting for lane in self._all_lanes())

    def update(self, destinations: Sequence[Destination]) -> None:
        """
        Use these destinations from the next message on.

        Sessions are opened anew, because a file with CA certificates may have changed as well;
        messages that are under way go on where they are.
        """
        self._destinations = {each.rule.credential_id: each for each in destinations}
        self._rules = [each.rule for each in destinations]
        lanes, self._lanes = [*self._lanes.values()], {}
        self._draining += lanes
        for lane in lanes:
            for transfer in lane.retire():
                self._place(transfer, lane.destination.rule.credential_id)

    def begin(
        self,
        envelope: Envelope,
        listener: TransferListener,
        *,
        credential_id: str | None = None,
        partial: bool = False,
        app: str = "",
    ) -> Transfer:
        """See `Carrier`."""
        refusal = _CLOSED if self._is_closed else find_unsayable(envelope)
        transfer = PoolTransfer(
            envelope,
            listener,
            self if refusal is None else None,
            credential_id=credential_id,
            partial=partial,
            app=app,
        )
        if refusal is None:
            self._coming.add(transfer)
        else:
            self._settle_soon(transfer, refusal, credential_id)
        return transfer

    async def close(self, *, timeout_s: float) -> None:
        """See `Carrier`."""
        self._is_closed = True
        for transfer in [*self._coming]:
            transfer.cut(Result(_CLOSED, credential_id=transfer.credential_id))
        for lane in self._all_lanes():
            lane.cut_unfinished()
        await self._wait_for_the_end(timeout_s)
        for lane in self._all_lanes():
            lane.stop()
        await self._wait_for_the_end(_LAST_S)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What its transfers tell (`Waiter`).

    def ready(self, transfer: PoolTransfer) -> None:
        """See `Waiter`."""
        if transfer in self._coming:
            self._coming.remove(transfer)
            self._place(transfer, transfer.credential_id)

    def give_up(self, transfer: PoolTransfer) -> None:
        """See `Waiter`."""
        self._coming.discard(transfer)

    def _place(self, transfer: PoolTransfer, credential_id: str | None) -> None:
        """Give the message to the lane of its credential."""
        try:
            if credential_id is None:
                rule = choose_rule(self._rules, None, transfer.envelope.sender)
            else:
                rule = rule_named(self._rules, credential_id)
            credential_id = rule.credential_id
            version = self._source.current(credential_id)
        except Error as error:
            # It may be given up before that, and a lane that it came from knows it no more.
            transfer.wait_at(self)
            self._settle_soon(transfer, reply_of(error), credential_id)
            return
        lane = self._lanes.get(credential_id)
        if lane is None:
            lane = self._lanes[credential_id] = Lane(
                self._destinations[credential_id],
                max_connections=self._max_connections,
                max_messages=self._max_messages,
                timeouts=self._timeouts,
            )
        lane.use(version)
        lane.add(transfer)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _settle_soon(self, transfer: PoolTransfer, reply: Reply, credential_id: str | None) -> None:
        self._loop.call_soon(transfer.settle, Result(reply, credential_id=credential_id))

    def _tick(self) -> None:
        """Follow the vault and the clock, also when no message comes."""
        now = self._loop.time()
        for credential_id, lane in self._lanes.items():
            try:
                lane.use(self._source.current(credential_id))
            except Error:
                # The next message hears of it; open sessions may finish theirs.
                lane.close_idle()
        for lane in [*self._all_lanes()]:
            lane.tick(now)
        self._draining = [lane for lane in self._draining if not lane.is_empty]
        self._timer = None
        if not self._is_empty():
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes.values(), *self._draining]

    def _is_empty(self) -> bool:
        return all(lane.is_empty for lane in self._all_lanes())

    async def _wait_for_the_end(self, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        while not self._is_empty() and self._loop.time() < deadline:
            for lane in self._all_lanes():
                lane.close_idle()
            await asyncio.sleep(min(_POLL_S, timeout_s))

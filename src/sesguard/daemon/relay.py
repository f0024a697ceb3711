"""
The relay of one process: settings to objects, their life, and what they tell.

Worker 0 delivers the queue; the other workers put mail into it and ring. Every worker writes its
numbers on the board once a second, so that the one that is asked can add them up.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

import msgspec

from sesguard.aws.raw_mail import RawMailSender
from sesguard.config.schema import Settings
from sesguard.core.envelope import Envelope
from sesguard.core.interfaces import CredentialSource
from sesguard.daemon.board import Board
from sesguard.daemon.build import destinations, routing_rules
from sesguard.daemon.late_listeners import LateListeners
from sesguard.daemon.log import JsonLog
from sesguard.daemon.relay_log import RelayLog
from sesguard.daemon.relay_sockets import ListenerPlan, RelayListener
from sesguard.errors import Error, SettingsError, SystemFault
from sesguard.relay.apps import app_rules
from sesguard.relay.bounce import bounce, relayed
from sesguard.relay.delivery import Deliverer, DeliveryLimits
from sesguard.relay.identity import Identities
from sesguard.relay.ledger import Ledger
from sesguard.relay.metrics import Counters, Snapshot, add_up
from sesguard.relay.rates import RATES_FILE, RateTable
from sesguard.relay.registry import REGISTRY_FILE, AppRegistry
from sesguard.relay.routes import Routes
from sesguard.relay.server import RelayServer
from sesguard.relay.service import Relay, SessionLimits
from sesguard.relay.spool import Spool, SpoolCarrier, ring
from sesguard.relay.spool_records import State, Total
from sesguard.relay.trace import Trace
from sesguard.system.files import ensure_directory
from sesguard.system.privileges import User, current_user
from sesguard.upstream.api import ApiCarrier
from sesguard.upstream.interface import Carrier
from sesguard.upstream.pool import UpstreamPool
from sesguard.upstream.replies import Reply

_PUBLISH_S: Final = 1.0
_STOP_S: Final = 20.0
"""Time for messages to be finished when the daemon stops."""
LONGEST_STOP_S: Final = 2 * _STOP_S
"""What `RelayPart.stop` takes at most, when the disk is not slow; the unit's TimeoutStopSec= is
longer."""


class RelayPart:
    """
    The relay of one process; made and used on the running event loop.

    Args:
        settings: What there is to serve.
        source: Where the credential comes from.
        log: Where events go.
        workers: What all processes share.
        number: Which of them this is; number 0 delivers the queue.

    Raises:
        SettingsError: The settings contradict themselves.
        SystemFault: The queue cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        source: CredentialSource,
        log: JsonLog,
        workers: "Workers",
        number: int,
    ) -> None:
        self._settings = settings
        self._log = log
        self._workers = workers
        self._number = number
        self._loop = asyncio.get_running_loop()
        before = workers.board.read(number)
        self._counters = Counters(msgspec.json.decode(before, type=Snapshot) if before else None)
        self._totals: Mapping[State, Total] = {}
        relay = settings.relay
        self._ledger = Ledger(relay.spool_directory, days=relay.ledger_days)
        self._events = RelayLog(
            log, self._counters, self._ledger, log_addresses=relay.log_addresses
        )
        self._upstream = _carrier(settings, source)
        self._spool = Spool(relay.spool_directory, max_bytes=relay.max_spool_bytes)
        self._registry = AppRegistry(settings.state_directory / REGISTRY_FILE, self._report)
        self._deliverer = self._make_deliverer() if number == 0 else None
        self._relay = self._make_relay()
        self._server = RelayServer(self._relay)
        self._publishing: asyncio.TimerHandle | None = None
        self._late: LateListeners | None = None

    async def start(
        self, listeners: Iterable[RelayListener], missing: Iterable[ListenerPlan] = ()
    ) -> None:
        """
        Serve, and deliver what is in the queue.

        Args:
            listeners: What is open.
            missing: What is to be opened as soon as that is possible.
        """
        for each in listeners:
            await self._serve(each)
        self._late = LateListeners(missing, self._serve, self._log)
        if self._deliverer is not None:
            self._deliverer.start(self._workers.bell)
        await self._count_queue()
        self._publish()

    def reload(self, settings: Settings) -> None:
        """
        Use other apps, credentials and limits from the next message on.

        Raises:
            SettingsError: They contradict themselves; nothing is changed.
        """
        rules = app_rules(settings)
        routes = _routes(settings)
        if isinstance(self._upstream, UpstreamPool):
            self._upstream.update(destinations(settings))
        self._relay.identities.update(rules)
        self._relay.routes = routes
        self._relay.limits = _limits(settings)
        self._events.log_addresses = settings.relay.log_addresses
        self._settings = settings

    async def _serve(self, listener: RelayListener) -> None:
        await self._server.serve(listener.socket, is_lmtp=listener.is_lmtp, tls=listener.tls)

    async def stop(self) -> None:
        """Accept nothing more, and finish what was begun."""
        if self._late is not None:
            self._late.stop()
        if self._publishing is not None:
            self._publishing.cancel()
        async with asyncio.TaskGroup() as together:
            together.create_task(self._server.stop(timeout_s=_STOP_S))
            if self._deliverer is not None:
                together.create_task(self._deliverer.stop(timeout_s=_STOP_S))
        # What is left waits for an answer of SES to a whole message.
        await self._upstream.close(timeout_s=_STOP_S)
        await self._spool.close()
        await self._ledger.close()

    def numbers(self) -> Snapshot:
        """What all processes counted."""
        self._write_board()
        texts = self._workers.board.read_all()
        return add_up(msgspec.json.decode(text, type=Snapshot) for text in texts)

    def missing(self) -> list[str]:
        """TCP addresses that cannot be opened at present."""
        return self._late.missing if self._late is not None else []

    # Putting it together.

    def _make_deliverer(self) -> Deliverer:
        notices = _Notices(socket.gethostname())
        limits = DeliveryLimits(
            bounce_after_s=self._settings.relay.bounce_after_hours * 3600,
            max_in_flight=self._settings.relay.max_upstream_connections,
        )
        return Deliverer(
            self._spool,
            self._upstream,
            ledger=self._ledger,
            bounce=notices.bounce,
            receipt=notices.receipt,
            sink=self._events.delivery,
            limits=limits,
            may_send=self._may_send,
        )

    def _make_relay(self) -> Relay:
        settings = self._settings
        host = socket.gethostname()
        wake = self._deliverer.wake if self._deliverer else partial(ring, self._workers.bell)
        return Relay(
            identities=Identities(app_rules(settings), self._registry),
            rates=RateTable(settings.relay.spool_directory / RATES_FILE),
            routes=_routes(settings),
            upstream=self._upstream,
            spool=SpoolCarrier(self._spool, wake),
            trace=Trace(host, self._number),
            sink=self._events.message,
            host_name=host,
            limits=_limits(settings),
            now=time.time,
        )

    def _may_send(self, app: str) -> bool:
        try:
            return not self._registry.suspended(app)
        except SystemFault:
            # Reported by the registry; mail waits until it can be told.
            return False

    def _report(self, problem: Error) -> None:
        self._log.write("relay.problem", detail=problem, hint=problem.hint)

    # Numbers.

    def _publish(self) -> None:
        self._publishing = self._loop.call_later(_PUBLISH_S, self._publish)
        self._write_board()
        if self._number == 0:
            self._counting = self._loop.create_task(self._count_queue())

    async def _count_queue(self) -> None:
        with contextlib.suppress(SystemFault):
            self._totals = await self._spool.totals()

    def _write_board(self) -> None:
        pool = self._upstream if isinstance(self._upstream, UpstreamPool) else None
        gauges = {
            "connections": len(self._relay.sessions),
            "upstream_connections": pool.open_connections if pool else 0,
            "upstream_waiting": pool.waiting if pool else 0,
        }
        if self._number == 0:
            held = self._totals.get(State.HELD, Total(0, 0))
            gauges |= {
                "queue_messages": sum(total.messages for total in self._totals.values()),
                "queue_held": held.messages,
                "queue_bytes": sum(total.bytes for total in self._totals.values()),
            }
        text = msgspec.json.encode(self._counters.snapshot(gauges))
        self._workers.board.write(self._number, text)


class Workers:
    """
    What the processes of one relay share; made before they are forked.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self.board = Board(count)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Rung by a process that queued mail, heard by the one that delivers."""


def prepare_spool(settings: Settings, user: User | None) -> None:
    """
    Make the directory of the queue, for `user` or ourselves.

    Raises:
        SystemFault: It cannot be made.
    """
    owner = user or current_user()
    ensure_directory(settings.relay.spool_directory, mode=0o700, uid=owner.uid, gid=owner.gid)


def _carrier(settings: Settings, source: CredentialSource) -> Carrier:
    if settings.relay.upstream == "api":
        regions = settings.relay.api.regions or (settings.aws.region,)
        if None in regions:
            raise SettingsError(
                'relay.upstream is "api", and no region is named',
                hint="set relay.api.regions or aws.region",
            )
        return ApiCarrier(RawMailSender(settings.aws.profile), [str(each) for each in regions])
    return UpstreamPool(
        source,
        destinations(settings),
        max_connections=settings.relay.max_upstream_connections,
    )


def _routes(settings: Settings) -> Routes:
    rules = routing_rules(settings) if settings.relay.upstream == "smtp" else ()
    sets = {name: each.configuration_set for name, each in settings.credentials.items()}
    return Routes(rules, sets)


def _limits(settings: Settings) -> SessionLimits:
    relay = settings.relay
    return SessionLimits(relay.max_connections, relay.command_timeout_s, relay.session_timeout_s)


class _Notices:
    """
    Writes bounces and receipts in the name of this host.

    Args:
        host: Name of this host.
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def bounce(
        self,
        envelope: Envelope,
        header: bytes,
        failures: Mapping[str, Reply],
        *,
        arrived_at: float,
        now: float,
        reason_expired: bool,
    ) -> bytes | None:
        """A `BounceMaker`."""
        return bounce(
            envelope,
            header,
            failures,
            reporting_host=self._host,
            arrived_at=arrived_at,
            now=now,
            reason_expired=reason_expired,
        )

    def receipt(
        self,
        envelope: Envelope,
        header: bytes,
        replies: Mapping[str, Reply],
        *,
        arrived_at: float,
        now: float,
    ) -> bytes | None:
        """A `ReceiptMaker`."""
        return relayed(
            envelope,
            header,
            replies,
            reporting_host=self._host,
            arrived_at=arrived_at,
            now=now,
        )

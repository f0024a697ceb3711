"""
sesguardd: the order in which things are done, and why.

1. Harden the process: from here on no core file and no debugger.
2. Open the vault and load its key, as root: the key file is readable for root alone.
3. Open the sockets, as root: the runtime directory is root's, so that nobody replaces a socket. A
   TCP address of the relay where somebody else listens is left for later.
4. Become ``daemon.user`` for good, and harden again, since the kernel resets it. Started by another
   user than root, the daemon stays that user. When what is left for later is a port below 1024,
   the right to bind to such ports is kept, and no other.
5. With several processes for the relay: fork them (`sesguard.daemon.workers`). Number 0 does
   everything, the others serve the relay only.
6. Tell the service manager READY, serve.

Signals: SIGTERM and SIGINT end it: no new connections, requests in progress get their time-out to
end, sockets are removed where the user may, exit 0. SIGHUP reads the settings again: rules, users
and limits change at once and no connection is dropped; a file with a mistake changes nothing and is
logged. What was opened before (vault, sockets, user) needs a restart, and the log says so.

Failing: wrong settings, no key, no vault or one of which nothing opens end the start before a
socket exists, so the service manager shows a failed unit with the reason, and tries again. A vault
that is damaged later on, or damaged with an intact last generation, is served from the last good
state and reported; mail goes on.

Raises `SettingsError`, `VaultError` and `SystemFault` at the start, nothing afterwards.
"""

import asyncio
import codecs
import contextlib
import os
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import uvloop

from sesguard.config.load import load_settings
from sesguard.config.schema import RelaySettings, Settings
from sesguard.daemon.build import (
    allowed_users,
    limits_of,
    lookup_settings,
    make_desk,
    make_dialogue,
    open_source,
    routing_rules,
)
from sesguard.daemon.control import ControlDialogue, StatusReport
from sesguard.daemon.listeners import Listeners, open_listeners
from sesguard.daemon.log import JsonLog, LookupLog, reserve_standard_descriptors
from sesguard.daemon.relay import RelayPart, Workers, prepare_spool
from sesguard.daemon.relay_sockets import (
    LMTP,
    SOCKET_NAMES,
    RelayListener,
    RelayListeners,
    open_tcp_listeners,
)
from sesguard.daemon.sockets import CONTROL
from sesguard.daemon.workers import supervise
from sesguard.errors import Error, SettingsError
from sesguard.lookup.desk import LookupDesk
from sesguard.lookup.server import Limits, LookupServer
from sesguard.relay.metrics import Snapshot
from sesguard.system.privileges import (
    User,
    current_user,
    drop_rights,
    harden_process,
    is_root,
    require_user,
)
from sesguard.system.systemd import notify
from sesguard.vault.source import VaultCredentialSource

_CONTROL_CONNECTIONS: Final = 16
_ENCODINGS: Final = ("idna", "utf-16-le", "utf-16-be", "latin-1", "cp1252")
"""Loaded while we may still read Python's own files."""


def serve(settings: Settings) -> None:
    """
    Run sesguardd in the foreground until it is told to stop.

    Args:
        settings: As read; SIGHUP reads them again from `settings.path`.

    Raises:
        Error: It cannot start; no socket is left open.
    """
    reserve_standard_descriptors()
    harden_process()
    log = JsonLog()
    user = require_user(settings.daemon.user) if is_root() else None
    source = open_source(settings, log)
    with contextlib.ExitStack() as stack:
        listeners = open_listeners(settings, log, stack)
        relay = _open_relay(settings, user, listeners, stack)
        for encoding in _ENCODINGS:
            codecs.lookup(encoding)
        if user is not None:
            low_ports = any(plan.address.needs_right for plan in relay.missing)
            drop_rights(user, keep_low_ports=low_ports)
            harden_process()
        workers = Workers(len(relay.of_process))

        def work(number: int, is_replaced: bool) -> None:
            service = _Service(settings, source, log, workers, number)
            if is_replaced:
                # SIGHUP may have come since the first start.
                service.reload()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(service.run(listeners.named, relay))

        if len(relay.of_process) == 1:
            work(0, is_replaced=False)
        else:
            supervise(len(relay.of_process), work, log)


def _open_relay(
    settings: Settings,
    user: User | None,
    listeners: Listeners,
    stack: contextlib.ExitStack,
) -> RelayListeners:
    """The relay's listeners of each process; its Unix sockets are taken out of `listeners`."""
    unix = [
        RelayListener(listeners.named.pop(name), is_lmtp=name == LMTP)
        for name in SOCKET_NAMES
        if name in listeners.named
    ]
    if not settings.apps:
        return RelayListeners((unix,))
    prepare_spool(settings, user)
    tcp = open_tcp_listeners(settings.relay, listeners.passed_tcp, stack)
    return RelayListeners(tuple([*unix, *each] for each in tcp.of_process), tcp.missing)


class _Service:
    """One process of the running daemon."""

    def __init__(
        self,
        settings: Settings,
        source: VaultCredentialSource,
        log: JsonLog,
        workers: Workers,
        number: int,
    ) -> None:
        self._settings = settings
        self._source = source
        self._log = log
        self._workers = workers
        self._number = number
        self._relay: RelayPart | None = None
        self._lookups = LookupLog(log)
        rules = routing_rules(settings)
        self._desks: dict[str, LookupDesk] = {
            name: make_desk(name, source, rules, lookup, self._lookups)
            for name, lookup in lookup_settings(settings).items()
        }
        self._report = StatusReport(source, self._lookups, log, self._numbers, self._missing)
        self._servers: dict[str, LookupServer] = {}
        self._stop = asyncio.Event()

    async def run(self, listeners: Mapping[str, socket.socket], relay: RelayListeners) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report_bug)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        if self._settings.apps:
            self._relay = RelayPart(
                self._settings, self._source, self._log, self._workers, self._number
            )
            await self._relay.start(relay.of_process[self._number], relay.missing)
        if self._number == 0:
            self._start(listeners)
            self._announce(loop, [*listeners, *(str(each) for each in relay.of_process[0])])
        await self._stop.wait()
        if self._number == 0:
            notify("STOPPING=1")
        await self._finish()
        self._log.write("daemon.stopped", worker=self._number or None)

    def _announce(self, loop: asyncio.AbstractEventLoop, sockets: Sequence[str]) -> None:
        self._log.write(
            "daemon.ready", pid=os.getpid(), user=current_user().name, sockets=", ".join(sockets)
        )
        notify("READY=1")
        interval_s = watchdog_interval_s(os.environ)
        if interval_s is not None:
            self._feed_watchdog(loop, interval_s)

    def _start(self, listeners: Mapping[str, socket.socket]) -> None:
        lookups = lookup_settings(self._settings)
        for name, listener in listeners.items():
            if name == CONTROL:
                limits = Limits(frozenset({0, os.geteuid()}), _CONTROL_CONNECTIONS)
                dialogue = ControlDialogue(self._report.describe, self._report.expose)
                self._servers[name] = LookupServer(listener, dialogue, limits, self._lookups)
            else:
                self._servers[name] = LookupServer(
                    listener,
                    make_dialogue(self._desks[name]),
                    limits_of(lookups[name]),
                    self._lookups,
                )

    def _numbers(self) -> Snapshot | None:
        return self._relay.numbers() if self._relay is not None else None

    def _missing(self) -> list[str]:
        return self._relay.missing() if self._relay is not None else []

    async def _finish(self) -> None:
        lookups = lookup_settings(self._settings)
        longest = max(lookup.timeout_s for lookup in lookups.values())
        # Together, so that the longest counts and not the sum (TimeoutStopSec= of the unit).
        async with asyncio.TaskGroup() as together:
            for server in self._servers.values():
                together.create_task(server.stop(timeout_s=longest))
            if self._relay is not None:
                together.create_task(self._relay.stop())

    def reload(self) -> None:
        """Use the settings as they are in their file now."""
        try:
            if self._settings.path is None:
                raise SettingsError("the settings were not read from a file")
            settings = load_settings(self._settings.path)
            if self._relay is not None:
                self._relay.reload(settings)
        except Error as error:
            self._log.write("settings.rejected", detail=error, hint=error.hint)
            return
        rules = routing_rules(settings)
        for name, lookup in lookup_settings(settings).items():
            self._desks[name].update(rules, require_tls=lookup.require_tls)
            if name in self._servers:
                self._servers[name].limits = limits_of(lookup)
        if self._number == 0:
            restart = _needs_restart(self._settings, settings)
            self._log.write("settings.reloaded", needs_restart=restart)
        self._settings = settings

    def _feed_watchdog(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        loop.call_later(interval_s, self._feed_watchdog, loop, interval_s)
        with contextlib.suppress(OSError):
            notify("WATCHDOG=1")

    def _report_bug(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The text of an exception that is not ours may hold anything; its place in the code not.
        bug = context.get("exception")
        place = traceback.extract_tb(bug.__traceback__)[-1] if bug is not None else None
        self._log.write(
            "daemon.bug",
            type=type(bug).__name__,
            place=place and f"{place.filename}:{place.lineno}",
        )


def _needs_restart(old: Settings, new: Settings) -> str | None:
    """Names of the settings that changed but were used up at the start, or None."""
    before, after = lookup_settings(old), lookup_settings(new)
    changed = [name for name in ("daemon", "vault") if getattr(old, name) != getattr(new, name)]
    for name in before:
        gids = [[user.gid for user in allowed_users(each[name])][:1] for each in (before, after)]
        if gids[0] != gids[1]:
            changed.append(f"lookup.{name}")
    fixed = [(bool(each.apps), _of_start(each.relay)) for each in (old, new)]
    if fixed[0] != fixed[1]:
        changed.append("relay")
    return ", ".join(changed) or None


def _of_start(relay: RelaySettings) -> RelaySettings:
    """The settings without those that are used anew with each message."""
    return msgspec.structs.replace(
        relay, max_connections=1, command_timeout_s=1, session_timeout_s=1, log_addresses=False
    )


def watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """Half of the time that sd_watchdog_enabled(3) gives us, or None where there is no watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None

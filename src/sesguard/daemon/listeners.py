"""
Which sockets the daemon listens on.

``control`` always; ``relay`` and ``lmtp`` where there is an app; ``exim`` and ``postfix`` where
they are enabled and one of their users exists, so that one settings file serves both. A
socket that the service manager passed is served in any case, because nobody else would answer on
it; without users it refuses everybody. TCP sockets are handed on to the relay; without apps there
is none, and they are left alone.
"""

import contextlib
import socket
from dataclasses import dataclass

from sesguard.config.schema import Settings
from sesguard.daemon.build import allowed_users, lookup_settings
from sesguard.daemon.log import JsonLog
from sesguard.daemon.relay_sockets import SOCKET_NAMES
from sesguard.daemon.sockets import (
    CONTROL,
    SocketPlan,
    is_tcp_listener,
    open_socket,
    plan_lookup_socket,
    prepare_directory,
    remove_socket,
    require_listening,
    runtime_lock,
    users_kept_out,
)
from sesguard.errors import SystemFault
from sesguard.system.privileges import current_user, group_name
from sesguard.system.systemd import inherited_sockets


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening sockets."""

    named: dict[str, socket.socket]
    """Unix sockets; the control socket is the last one, so whoever can reach it knows that the
    others are open."""
    passed_tcp: tuple[socket.socket, ...]
    """TCP sockets of the service manager, for the relay."""


def open_listeners(settings: Settings, log: JsonLog, stack: contextlib.ExitStack) -> Listeners:
    """
    Open, or take over, every Unix socket, and take over those for TCP.

    Args:
        settings: Who may ask, and where the sockets are.
        log: Told what is left out.
        stack: Closes the sockets, removes those that we made, and gives up the directory.

    Raises:
        SystemFault: See `sesguard.daemon.sockets`; what was opened before is closed again.
    """
    directory = settings.daemon.runtime_directory
    prepare_directory(directory)
    listeners = _take_over(settings, log, stack)
    named = listeners.named
    plans = [plan for plan in _plans(settings, log) if plan.name not in named]
    if plans:
        stack.enter_context(runtime_lock(directory))
    for plan in plans:
        named[plan.name] = stack.enter_context(open_socket(directory, plan))
        stack.callback(remove_socket, directory, plan.name)
    return listeners


def _take_over(settings: Settings, log: JsonLog, stack: contextlib.ExitStack) -> Listeners:
    known = {*lookup_settings(settings), CONTROL, *relay_names(settings)}
    named = {}
    tcp = []
    try:
        passed = inherited_sockets()
    except (OSError, ValueError) as error:
        raise SystemFault(
            "LISTEN_FDS does not tell which sockets were passed: {reason}", reason=error
        ) from error
    for name, inherited in passed:
        stack.enter_context(inherited)
        if name in known:
            named[name] = require_listening(inherited, name)
        elif is_tcp_listener(inherited):
            tcp.append(inherited)
        else:
            log.write("socket.unknown", name=name, hint="set FileDescriptorName= in its unit")
    if tcp and not settings.apps:
        log.write("socket.unused", hint="add a table [apps.NAME], or disable their unit")
    return Listeners(named, tuple(tcp))


def _plans(settings: Settings, log: JsonLog) -> list[SocketPlan]:
    plans = []
    for name, lookup in lookup_settings(settings).items():
        users = allowed_users(lookup)
        if not users:
            detail = "not enabled" if not lookup.enabled else "none of its users exists"
            log.write("socket.skipped", name=name, detail=detail)
            continue
        plan = plan_lookup_socket(name, users)
        kept_out = users_kept_out(plan, users)
        if kept_out:
            log.write(
                "socket.unreachable",
                name=name,
                users=", ".join(kept_out),
                hint=f"add them to group {group_name(plan.gid)}",
            )
        plans.append(plan)
    plans += [SocketPlan(name, 0o666, current_user().gid) for name in relay_names(settings)]
    plans.append(SocketPlan(CONTROL, 0o600, current_user().gid))
    return plans


def relay_names(settings: Settings) -> tuple[str, ...]:
    """The Unix sockets of the relay that are to be opened."""
    return SOCKET_NAMES if settings.apps and settings.relay.unix_sockets else ()

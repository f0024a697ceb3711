"""
The sockets of the relay: ``relay.sock`` and ``lmtp.sock``, and TCP addresses.

Anybody may connect to the Unix sockets (0666) and to the loopback: who it is, is asked of the
kernel, and who is no app is refused. An address that is not loopback is opened only with a
certificate and a key; its clients are known by tokens alone.

A TCP socket that the service manager passed is used for its address, by all processes together.
Any other address is opened before rights are dropped; of several processes each has a socket of its
own (SO_REUSEPORT). An address that cannot be opened, because somebody else listens there, is left
to `sesguard.daemon.late_listeners`: the rest is served meanwhile.

Raises `SettingsError` for an address that cannot be understood or needs a certificate, and
`SystemFault` for a socket or a certificate that does not fit.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sesguard.config.listen import ListenAddress, listen_addresses
from sesguard.config.schema import RelaySettings
from sesguard.errors import SystemFault
from sesguard.relay.server import BACKLOG, server_context

RELAY: Final = "relay"
LMTP: Final = "lmtp"
SOCKET_NAMES: Final = (RELAY, LMTP)

_KIND: Final = socket.SOCK_STREAM | socket.SOCK_CLOEXEC


@dataclass(frozen=True, slots=True)
class RelayListener:
    """A listening socket and how it is served."""

    socket: socket.socket
    is_lmtp: bool = False
    tls: ssl.SSLContext | None = None
    """For clients from elsewhere."""

    def __str__(self) -> str:
        name = self.socket.getsockname()
        return str(name) if isinstance(name, str) else f"{name[0]}:{name[1]}"


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """A TCP address that is to be served."""

    address: ListenAddress
    tls: ssl.SSLContext | None
    is_shared: bool
    """Other processes of the relay have sockets for it, too."""

    def open(self) -> socket.socket:
        """
        Bind and listen.

        Raises:
            SystemFault: The kernel refuses; mostly, because somebody else listens there.
        """
        family = socket.AF_INET6 if self.address.is_v6 else socket.AF_INET
        with contextlib.ExitStack() as attempt:
            try:
                listener = attempt.enter_context(socket.socket(family, _KIND))
                self._bind(listener)
            except OSError as error:
                raise SystemFault(
                    "cannot listen on {address}: {reason}",
                    hint="stop what listens there, or change relay.listen",
                    address=self.address,
                    reason=error.strerror,
                ) from error
            attempt.pop_all()
        return listener

    def _bind(self, listener: socket.socket) -> None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.address.is_v6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _answer_at_once(listener)
        listener.bind((self.address.address, self.address.port))
        listener.listen(BACKLOG)


@dataclass(frozen=True, slots=True)
class RelayListeners:
    """What the relay listens on."""

    of_process: tuple[list[RelayListener], ...]
    """One list for each process."""
    missing: tuple[ListenerPlan, ...] = ()
    """TCP addresses that could not be opened, for any process."""


def open_tcp_listeners(
    relay: RelaySettings, passed: Iterable[socket.socket], stack: contextlib.ExitStack
) -> RelayListeners:
    """
    Open, or take over, every address of the settings for each process of the relay.

    Where the kernel has no IPv6, its addresses are left out.

    Args:
        relay: What to open.
        passed: TCP sockets of the service manager.
        stack: Closes what is opened.

    Raises:
        SettingsError: See `listen_addresses`.
        SystemFault: A socket was passed that the settings do not name, or the certificate cannot be
            read.
    """
    plans = _plans(relay)
    taken = _take_over(passed, plans)
    of_process: tuple[list[RelayListener], ...] = tuple([] for _ in range(relay.processes))
    missing = []
    has_v6 = _has_v6()
    for plan in plans:
        if plan.address.is_v6 and not has_v6 and plan.address not in taken:
            continue
        try:
            opened = _open_for_all(plan, relay.processes, taken, stack)
        except SystemFault:
            missing.append(plan)
            continue
        for listeners, each in zip(of_process, opened, strict=True):
            listeners.append(RelayListener(each, tls=plan.tls))
    return RelayListeners(of_process, tuple(missing))


def _plans(relay: RelaySettings) -> list[ListenerPlan]:
    addresses = listen_addresses(relay)
    tls = None
    if not all(each.is_loopback for each in addresses):
        assert relay.certificate is not None
        assert relay.certificate_key is not None
        tls = server_context(relay.certificate, relay.certificate_key)
    return [
        ListenerPlan(each, None if each.is_loopback else tls, is_shared=relay.processes > 1)
        for each in addresses
    ]


def _has_v6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _take_over(
    passed: Iterable[socket.socket], plans: Iterable[ListenerPlan]
) -> dict[ListenAddress, socket.socket]:
    wanted = {plan.address for plan in plans}
    taken = {}
    for each in passed:
        address = ListenAddress(*each.getsockname()[:2])
        if address not in wanted:
            raise SystemFault(
                "a socket was passed to us for {address}, which relay.listen does not name",
                hint="change ListenStream= in its unit, or relay.listen",
                address=address,
            )
        _answer_at_once(each)
        taken[address] = each
    return taken


def _open_for_all(
    plan: ListenerPlan,
    processes: int,
    taken: Mapping[ListenAddress, socket.socket],
    stack: contextlib.ExitStack,
) -> list[socket.socket]:
    """
    A socket for each process: all or none.

    One that were opened later, with fewer rights, could not join those of now: the kernel lets a
    port be shared by sockets of one user only.
    """
    if plan.address in taken:
        return [taken[plan.address]] * processes
    with contextlib.ExitStack() as attempt:
        opened = [attempt.enter_context(plan.open()) for _ in range(processes)]
        stack.enter_context(attempt.pop_all())
    return opened


def _answer_at_once(listener: socket.socket) -> None:
    """Accepted sockets inherit it, so that no reply waits for an acknowledgement."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

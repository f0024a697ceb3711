"""
TCP addresses of the relay that could not be opened at the start.

Each process tries again by itself, at once and then after 1, 2, 4 ... 30 s, until the address is
free; nobody has to restart anything. It does so with the rights that are left: for a port below
1024 the daemon keeps the one right that this needs (`sesguard.daemon.service`).

Raises nothing: the reason is logged when it changes.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from sesguard.daemon.log import JsonLog
from sesguard.daemon.relay_sockets import ListenerPlan, RelayListener
from sesguard.errors import SystemFault

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


class LateListeners:
    """
    Opens what is missing; made and used on the running event loop.

    Args:
        plans: What is missing.
        serve: Takes over a listener.
        log: Told why an address is still missing, and when it is no more.
    """

    def __init__(
        self,
        plans: Iterable[ListenerPlan],
        serve: Callable[[RelayListener], Awaitable[None]],
        log: JsonLog,
    ) -> None:
        self._serve = serve
        self._log = log
        loop = asyncio.get_running_loop()
        self._tasks = {plan: loop.create_task(self._open(plan)) for plan in plans}

    @property
    def missing(self) -> list[str]:
        """The addresses that are not served yet."""
        return [str(plan.address) for plan, task in self._tasks.items() if not task.done()]

    def stop(self) -> None:
        """Try no more."""
        for task in self._tasks.values():
            task.cancel()

    async def _open(self, plan: ListenerPlan) -> None:
        pause_s = _FIRST_PAUSE_S
        told = ""
        while isinstance(listener := _opened(plan), SystemFault):
            if str(listener) != told:
                told = str(listener)
                self._log.write("socket.busy", name=plan.address, detail=told, hint=listener.hint)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        await self._serve(RelayListener(listener, tls=plan.tls))
        self._log.write("socket.opened", name=plan.address)


def _opened(plan: ListenerPlan) -> socket.socket | SystemFault:
    try:
        return plan.open()
    except SystemFault as fault:
        return fault

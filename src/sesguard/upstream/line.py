"""
Those who wait for a session: each app in its turn, the messages of one app in their order.

A message that is not complete holds a session for as long as its client likes, so an app has room
for so many of them only; who has no room is passed over, and loses neither place nor turn.
"""

from collections import deque
from collections.abc import Callable, Iterator

from sesguard.upstream.transfer import PoolTransfer

Room = Callable[[str], int]
"""How many more messages that are not complete an app may have on sessions now."""


class Line:
    """The messages without a session."""

    def __init__(self) -> None:
        self._of: dict[str, deque[PoolTransfer]] = {}
        """By app; the one whose turn is next comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[PoolTransfer]:
        return (each for queue in self._of.values() for each in queue)

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, transfer: PoolTransfer) -> None:
        """Wait at the end."""
        self._of.setdefault(transfer.app, deque()).append(transfer)

    def add_first(self, transfer: PoolTransfer) -> None:
        """Be the next."""
        queue = self._of.pop(transfer.app, deque())
        queue.appendleft(transfer)
        self._of = {transfer.app: queue, **self._of}

    def take(self, room: Room) -> PoolTransfer | None:
        """The next that may have a session; the turn passes on from its app."""
        for app, queue in self._of.items():
            transfer = _first(queue, app, room)
            if transfer is not None:
                queue.remove(transfer)
                del self._of[app]
                if queue:
                    self._of[app] = queue
                return transfer
        return None

    def remove(self, transfer: PoolTransfer) -> None:
        """Wait no more."""
        queue = self._of[transfer.app]
        queue.remove(transfer)
        if not queue:
            del self._of[transfer.app]

    def remove_late(self, now: float) -> list[PoolTransfer]:
        """Those whose time is over; they wait no more."""
        late = [each for each in self if each.deadline < now]
        for transfer in late:
            self.remove(transfer)
        return late

    def clear(self) -> list[PoolTransfer]:
        """All of them; nobody waits any more."""
        everyone = [*self]
        self._of.clear()
        return everyone

    def count(self, room: Room) -> int:
        """How many could have a session now."""
        total = 0
        for app, queue in self._of.items():
            complete = sum(each.finished for each in queue)
            total += complete + min(len(queue) - complete, max(room(app), 0))
        return total


def _first(queue: deque[PoolTransfer], app: str, room: Room) -> PoolTransfer | None:
    if queue[0].finished or room(app) > 0:
        return queue[0]
    return next((each for each in queue if each.finished), None)

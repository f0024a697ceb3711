"""Those who wait for a session, against a model that is slow and plain."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from rigs.async_peer import Listener
from rigs.pool import envelope
from sesguard.upstream.line import Line
from sesguard.upstream.transfer import PoolTransfer

APPS = "abc"


class Nobody:
    """A `Waiter` that does nothing."""

    def ready(self, transfer: PoolTransfer) -> None:
        """See `Waiter`."""

    def give_up(self, transfer: PoolTransfer) -> None:
        """See `Waiter`."""


def waiting(app: str, *, complete: bool) -> PoolTransfer:
    """A message that has no session."""
    transfer = PoolTransfer(
        envelope(), Listener(), Nobody(), credential_id=None, partial=False, app=app
    )
    if complete:
        transfer.finish()
    return transfer


def test_an_app_over_its_share_takes_no_session_from_others() -> None:
    """When the limit falls an app may hold more than it has room for; others count as before."""
    line = Line()
    line.add(waiting("slow", complete=False))
    line.add(waiting("shop", complete=True))
    assert 1 == line.count(lambda app: -2 if app == "slow" else 1)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "add_first", "take", "remove", "finish"]),
            st.sampled_from(APPS),
            st.booleans(),
            st.integers(0, 20),
        ),
        max_size=40,
    ),
    rooms=st.fixed_dictionaries({app: st.integers(-2, 2) for app in APPS}),
)
def test_the_line_against_a_model(
    steps: list[tuple[str, str, bool, int]], rooms: dict[str, int]
) -> None:
    """Nobody is lost or served twice, an app's order holds, and each app has its turn."""
    line, model = Line(), _Model()
    for what, app, complete, place in steps:
        everyone = [*line]
        match what:
            case "add" | "add_first":
                transfer = waiting(app, complete=complete)
                (line.add if what == "add" else line.add_first)(transfer)
                model.add(transfer, first=what == "add_first")
            case "take":
                assert model.take(rooms) is line.take(rooms.__getitem__)
            case "remove" if everyone:
                transfer = everyone[place % len(everyone)]
                line.remove(transfer)
                model.remove(transfer)
            case "finish" if everyone:
                everyone[place % len(everyone)].finish()
        assert [*model] == [*line]
        assert len(line) == len([*model])
        assert bool(line) == bool([*model])
    could_go = line.count(rooms.__getitem__)
    taken = 0
    while (transfer_or_none := line.take(rooms.__getitem__)) is not None:
        rooms[transfer_or_none.app] -= not transfer_or_none.finished
        taken += 1
    assert could_go == taken


class _Model:
    """Apps in the order of their turns, each with its messages."""

    def __init__(self) -> None:
        self._turns: list[tuple[str, list[PoolTransfer]]] = []

    def __iter__(self) -> Iterator[PoolTransfer]:
        return (each for _, queue in self._turns for each in queue)

    def add(self, transfer: PoolTransfer, *, first: bool) -> None:
        """Wait at the end, or be the next."""
        queue = next((queue for app, queue in self._turns if app == transfer.app), [])
        self._turns = [turn for turn in self._turns if turn[1] is not queue or not first]
        if first:
            self._turns.insert(0, (transfer.app, [transfer, *queue]))
        elif queue:
            queue.append(transfer)
        else:
            self._turns.append((transfer.app, [transfer]))

    def take(self, rooms: dict[str, int]) -> PoolTransfer | None:
        """The first that may go; its app goes to the end."""
        for place, (app, queue) in enumerate(self._turns):
            for transfer in queue:
                if transfer.finished or (transfer is queue[0] and rooms[app] > 0):
                    del self._turns[place]
                    queue.remove(transfer)
                    if queue:
                        self._turns.append((app, queue))
                    return transfer
        return None

    def remove(self, transfer: PoolTransfer) -> None:
        """Wait no more."""
        for _, queue in self._turns:
            if transfer in queue:
                queue.remove(transfer)
        self._turns = [turn for turn in self._turns if turn[1]]

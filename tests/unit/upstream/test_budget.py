"""The memory that large messages share: whatever they do, somebody can always go on."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sesguard.upstream.budget import SMALL_BYTES, Budget

LIMIT = 4 * SMALL_BYTES
PIECE = SMALL_BYTES // 2 + 1


class Message:
    """A `Holder` whose client sends when it may."""

    def __init__(self) -> None:
        self.size = 0
        self.is_paused = False
        self.is_complete = False

    def pause(self) -> None:
        """See `Holder`."""
        assert not self.is_paused
        self.is_paused = True

    def resume(self) -> None:
        """See `Holder`."""
        assert self.is_paused
        self.is_paused = False

    def cut(self) -> None:
        """See `Holder`; nothing is slow here."""
        raise AssertionError


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "write", "complete", "release"]), st.integers(0, 9)),
        max_size=80,
    )
)
def test_somebody_can_always_go_on(steps: list[tuple[str, int]]) -> None:
    """What is counted is what is there, few are over the limit, and at the end nothing is left."""

    async def main() -> None:
        budget = Budget(LIMIT, 3600.0)
        there: list[Message] = []
        for what, place in steps:
            if what == "begin":
                there.append(Message())
            elif there:
                act(budget, there, there[place % len(there)], what)
            check(budget, there)
        while there:
            # Clients go on as they may, and SES answers what is complete.
            holder = next(each for each in there if each.is_complete or not each.is_paused)
            act(budget, there, holder, "release" if holder.is_complete else "complete")
            check(budget, there)
        assert 0 == budget.used

    asyncio.run(main())


def act(budget: Budget, there: list[Message], holder: Message, what: str) -> None:
    """One step of one message, where its client may take it."""
    if what == "release":
        there.remove(holder)
        budget.release(holder)
    elif not (holder.is_complete or holder.is_paused):
        if what == "write":
            holder.size += PIECE
            budget.note(holder)
        else:
            holder.is_complete = True
            budget.complete(holder)


def check(budget: Budget, there: list[Message]) -> None:
    """What holds at any time."""
    large = [each for each in there if each.size > SMALL_BYTES]
    assert sum(each.size for each in large) == budget.used
    if large:
        assert any(each.is_complete or not each.is_paused for each in large)
    room = LIMIT + max((each.size for each in large), default=0) + len(large) * 2 * PIECE
    assert budget.used <= room

"""How long is waited between attempts, and when no further one is made."""

from sesguard.rotation.backoff import Backoff
from sesguard.rotation.context import Pace


def passing_time() -> tuple[Pace, list[float]]:
    """A clock that only sleeping moves, and what was slept."""
    slept: list[float] = []
    return Pace(monotonic=lambda: sum(slept), sleep=slept.append), slept


def test_pauses_double_up_to_the_longest() -> None:
    """Then they stay so."""
    pace, slept = passing_time()
    backoff = Backoff(pace, 1.0, longest_s=5.0)

    assert [True] * 5 == [backoff.wait() for _ in range(5)]
    assert [1.0, 2.0, 4.0, 5.0, 5.0] == slept


def test_there_are_so_many_attempts() -> None:
    """Three attempts have two pauses between them."""
    pace, slept = passing_time()
    backoff = Backoff(pace, 1.0, attempts=3)

    assert [True, True, False, False] == [backoff.wait() for _ in range(4)]
    assert [1.0, 2.0] == slept


def test_an_attempt_after_the_deadline_is_not_waited_for() -> None:
    """It is given up at once: the time until then is not slept away."""
    pace, slept = passing_time()
    backoff = Backoff(pace, 1.0, deadline=3.0)

    assert [True, True, False] == [backoff.wait() for _ in range(3)]
    assert [1.0, 2.0] == slept

"""How much an app may send in a minute, an hour and a day."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.errors import SystemFault
from sesguard.relay.model import App, Rates, Reason, Refusal
from sesguard.relay.rates import RateTable, Usage

NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def app(minute: int | None = None, hour: int | None = None, day: int | None = None) -> App:
    """An app with limits."""
    return App("shop", rates=Rates(minute, hour, day))


@pytest.fixture
def rates(tmp_path: Path) -> RateTable:
    """An empty table."""
    return RateTable(tmp_path / "rates")


def code_of(refusal: Refusal | None) -> int | None:
    """The SMTP code of a refusal by the rates."""
    assert refusal is None or refusal.reason is Reason.RATE
    return refusal.code if refusal else None


def test_no_limits(rates: RateTable, tmp_path: Path) -> None:
    """An app without limits is never refused and leaves no file."""
    assert {None} == {rates.take(app(), 50, NOW) for _ in range(100)}
    assert [] == list(tmp_path.iterdir())


def test_all_at_once_then_evenly(rates: RateTable) -> None:
    """A limit of 6 a minute admits 6 at once, and then one each ten seconds."""
    codes = [code_of(rates.take(app(6), 1, NOW)) for _ in range(8)]

    assert [None] * 6 + [450] * 2 == codes
    assert 450 == code_of(rates.take(app(6), 1, NOW + 9.9))
    assert code_of(rates.take(app(6), 1, NOW + 10.1)) is None
    assert 450 == code_of(rates.take(app(6), 1, NOW + 10.2))


def test_refusal_says_when_to_come_back(rates: RateTable) -> None:
    """The text has the seconds after which the message is admitted."""
    rates.take(app(6), 6, NOW)
    refusal = rates.take(app(6), 3, NOW)

    assert refusal is not None
    assert (
        b"450 4.7.1 app shop has sent what it may for now; try again in 31 s\r\n" == refusal.line()
    )
    assert rates.take(app(6), 3, NOW + 31) is None


def test_refusal_costs_nothing(rates: RateTable) -> None:
    """A message that one window refuses is not counted in the others."""
    limits = app(5, 100, 1000)
    rates.take(limits, 5, NOW)
    before = rates.usage(limits, NOW)
    for _ in range(10):
        assert 450 == code_of(rates.take(limits, 1, NOW))

    assert before == rates.usage(limits, NOW)
    assert (Usage("minute", 5, 5.0), Usage("hour", 100, 5.0), Usage("day", 1000, 5.0)) == before


def test_given_back(rates: RateTable) -> None:
    """A message that nobody took is out of the hour and the day; the minute counts attempts."""
    limits = app(5, 100, 1000)
    rates.take(limits, 3, NOW)
    rates.take(limits, 2, NOW)
    rates.give_back(limits, 2, NOW)

    assert [5.0, 3.0, 3.0] == [usage.used for usage in rates.usage(limits, NOW)]
    rates.give_back(limits, 50, NOW)
    assert [5.0, 0.0, 0.0] == [usage.used for usage in rates.usage(limits, NOW)]
    assert 450 == code_of(rates.take(limits, 1, NOW))


def test_given_back_after_a_while(rates: RateTable) -> None:
    """What has drained since is not given back once more."""
    limits = app(None, 60)
    rates.take(limits, 10, NOW)
    rates.take(limits, 30, NOW)
    rates.give_back(limits, 30, NOW + 300)

    assert [5.0] == [usage.used for usage in rates.usage(limits, NOW + 300)]


def test_nothing_to_give_back_to(rates: RateTable, tmp_path: Path) -> None:
    """Without a limit of an hour or a day there is no file, and a damaged one raises nothing."""
    rates.give_back(app(5), 1, NOW)
    assert [] == list(tmp_path.iterdir())
    RateTable(tmp_path).give_back(app(5, 5), 1, NOW)


@pytest.mark.parametrize(
    ("limits", "window"),
    [(app(10), "minute"), (app(100, 10), "hour"), (app(100, 100, 10), "day")],
)
def test_message_that_never_fits(rates: RateTable, limits: App, window: str) -> None:
    """A message of more recipients than a limit is refused for good, and says why."""
    refusal = rates.take(limits, 11, NOW)

    assert 550 == code_of(refusal)
    assert refusal is not None
    assert re.search(rf"11 recipients .* in a {window} \(10\)", refusal.text)


@pytest.mark.parametrize(
    ("limits", "seconds"), [(app(9), MINUTE), (app(None, 9), HOUR), (app(None, None, 9), DAY)]
)
def test_full_window_drains_in_one_window(rates: RateTable, limits: App, seconds: float) -> None:
    """What was used up is there again after just one window."""
    rates.take(limits, 9, NOW)

    assert 450 == code_of(rates.take(limits, 9, NOW + seconds * 0.99))
    assert rates.take(limits, 9, NOW + seconds) is None


def test_clock_that_goes_back(rates: RateTable) -> None:
    """A clock that is set back by a year keeps an app out for one window at most."""
    rates.take(app(6), 6, NOW)
    back = NOW - 365 * DAY

    assert 450 == code_of(rates.take(app(6), 6, back))
    rates.take(app(6), 1, back + 10.1)
    assert rates.take(app(6), 5, back + MINUTE + 10.1) is None


def test_clock_that_goes_forth_and_back(rates: RateTable) -> None:
    """A jump to the future and back keeps an app out for one window at most."""
    rates.take(app(6), 6, NOW + 365 * DAY)
    refused = rates.take(app(6), 6, NOW)

    assert 450 == code_of(refused)
    rates.take(app(6), 1, NOW + 1)
    assert rates.take(app(6), 6, NOW + 1 + MINUTE) is None


def test_lowered_limit(rates: RateTable) -> None:
    """After a limit was lowered the app waits for one window at most."""
    rates.take(app(1000), 1000, NOW)

    assert 450 == code_of(rates.take(app(6), 6, NOW))
    assert rates.take(app(6), 6, NOW + MINUTE) is None


def test_restart(rates: RateTable, tmp_path: Path) -> None:
    """A new process goes on where the old one was."""
    rates.take(app(6), 6, NOW)

    assert 450 == code_of(RateTable(tmp_path / "rates").take(app(6), 1, NOW))


def test_apps_do_not_share(rates: RateTable) -> None:
    """Each app has its own count."""
    rates.take(app(6), 6, NOW)

    assert rates.take(App("blog", rates=Rates(6)), 6, NOW) is None


def test_usage_makes_nothing(rates: RateTable, tmp_path: Path) -> None:
    """Looking at an app that has sent nothing gives zeros and makes no file."""
    assert (Usage("hour", 5, 0.0),) == rates.usage(app(None, 5), NOW)
    assert () == rates.usage(app(), NOW)
    assert [] == list(tmp_path.iterdir())


def test_table_that_cannot_be_used(tmp_path: Path) -> None:
    """Where nothing can be counted nothing is admitted; the mail stays with its sender."""
    broken = RateTable(tmp_path / "none" / "rates")
    refusal = broken.take(app(6), 1, NOW)

    assert refusal is not None
    assert (Reason.BUSY, 451) == (refusal.reason, refusal.code)
    assert broken.take(app(), 1, NOW) is None


def test_usage_of_what_cannot_be_read(tmp_path: Path) -> None:
    """The one that looks is told."""
    with pytest.raises(SystemFault):
        RateTable(tmp_path).usage(app(6), NOW)


def test_processes_together_admit_the_limit(tmp_path: Path) -> None:
    """Four processes that take as fast as they can admit together just the limit."""
    reading, writing = os.pipe()
    for _ in range(4):
        if os.fork() == 0:
            table = RateTable(tmp_path / "rates")
            taken = [table.take(app(None, None, 250), 1, NOW) for _ in range(200)]
            os.write(writing, bytes([taken.count(None)]))
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        admitted = list(stream.read())
    for _ in range(4):
        os.wait()

    assert (4, 250) == (len(admitted), sum(admitted))


STEPS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=40), st.integers(min_value=1, max_value=12)),
    min_size=1,
    max_size=80,
)


@given(steps=STEPS, limit=st.integers(min_value=1, max_value=20))
def test_no_window_admits_more_than_twice_the_limit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int]], limit: int
) -> None:
    """In any minute at most the limit and the burst, which is the limit again, are admitted."""
    rates = RateTable(tmp_path_factory.mktemp("rates") / "rates")
    now, admitted = NOW, []
    for pause, count in steps:
        now += pause
        if rates.take(app(limit), count, now) is None:
            admitted.append((now, count))

    for start, _ in admitted:
        assert 2 * limit >= sum(n for at, n in admitted if start <= at < start + MINUTE)
    elapsed = now - NOW
    assert limit + limit * elapsed / MINUTE + 1e-3 >= sum(n for _, n in admitted)


@given(steps=STEPS)
def test_windows_are_charged_all_or_none(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int]]
) -> None:
    """What the day has counted is what was admitted, however often the minute refused."""
    rates = RateTable(tmp_path_factory.mktemp("rates") / "rates")
    limits, now, total = app(15, None, 1_000_000), NOW, 0
    for pause, count in steps:
        now += pause
        if rates.take(limits, count, now) is None:
            total += count

    drained = (now - NOW) * 1_000_000 / DAY
    assert max(0.0, total - drained) - 1e-3 <= rates.usage(limits, now)[1].used <= total

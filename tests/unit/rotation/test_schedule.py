"""When a credential is due: age, jitter, exposure, and clocks that are wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.credential import CredentialVersion
from sesguard.rotation.schedule import Schedule, parse_time, schedule

MADE = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def version(*, number: int = 1, exposed: bool = False) -> CredentialVersion:
    """One that was made at `MADE`."""
    return CredentialVersion(number, "AKIAEXAMPLE", {}, MADE.isoformat(), "a test", exposed)


def of(*, number: int = 1, exposed: bool = False, jitter: int = 7, seed: str = "host") -> Schedule:
    """The schedule of a version that may become 90 days old."""
    return schedule(
        version(number=number, exposed=exposed), max_age_days=90, jitter_days=jitter, seed=seed
    )


def test_without_jitter_it_is_due_when_it_is_overdue() -> None:
    """Both at the same instant: the ninetieth day."""
    found = of(jitter=0)

    assert MADE + 90 * DAY == found.due_at == found.overdue_at
    assert not found.is_due(found.due_at - timedelta(seconds=1))
    assert found.is_due(found.due_at)
    assert found.is_overdue(found.due_at)


@given(st.text(), st.integers(1, 1000), st.integers(0, 365))
def test_jitter_only_makes_it_earlier(seed: str, number: int, jitter: int) -> None:
    """By at most as many days as the settings say, and never before it was made."""
    found = of(seed=seed, number=number, jitter=jitter)

    assert max(MADE, found.overdue_at - jitter * DAY) <= found.due_at <= found.overdue_at


def test_jitter_is_the_same_each_time_and_differs_from_host_to_host() -> None:
    """A fleet of a hundred hosts is spread over the week."""
    assert of(seed="host") == of(seed="host")
    days = {(MADE + 90 * DAY - of(seed=f"host-{n}").due_at).days for n in range(100)}
    assert set(range(7)) == days


def test_jitter_differs_from_version_to_version() -> None:
    """So no host is the first of its fleet for ever."""
    assert 10 == len({of(number=number).due_at for number in range(1, 11)})


def test_what_lay_in_plaintext_is_due_at_once() -> None:
    """But it is not overdue before its time."""
    found = of(exposed=True)

    assert found.is_due(MADE)
    assert not found.is_overdue(MADE)


def test_the_age_is_never_negative() -> None:
    """A clock that was set back does not make a credential younger than new."""
    assert timedelta() == of().age(MADE - 365 * DAY)
    assert 3 * DAY == of().age(MADE + 3 * DAY)


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00", "2026-01-01T03:00:00+03:00"]
)
def test_a_time_without_an_offset_is_utc(text: str) -> None:
    """And one with another offset is the same instant."""
    assert MADE == parse_time(text)

"""The pure parts of the benchmarks: what counts as lost, as growing, as better."""

from collections.abc import Iterator

import pytest

from rig.measure import Figures, median
from rig.native import Account, Load, account
from rig.report import table, verdicts
from rig.trend import TOLERANCES, Tolerance, sparkline, trend

MEMORY = TOLERANCES["memory_mb"]


def figures(accepted_per_s: float = 1000.0, lost: int = 0, cpu: float = 0.3) -> Figures:
    """Figures of which most do not matter."""
    return Figures(
        accepted_per_s=accepted_per_s,
        delivered_per_s=accepted_per_s / 2,
        cpu_s_per_1000=cpu,
        p50_ms=1.0,
        p99_ms=2.0,
        idle_mb=50.0,
        peak_mb=60.0,
        accepted=10,
        failed=0,
        lost=lost,
        duplicated=0,
        altered=0,
    )


def log(*lines: str) -> Iterator[str]:
    """Lines as the sink writes them."""
    return iter([f"{line}\n" for line in lines])


def test_every_message_once_is_delivered() -> None:
    """What was accepted and is in the log with the same body is delivered."""
    found = account(log("r-0", "r-1"), log("r-1 aa 5", "r-0 aa 5"), "r", "aa")

    assert Account(delivered=2) == found


def test_what_the_sink_does_not_have_is_lost() -> None:
    """An accepted message without a line is lost; one that was never accepted is no duplicate."""
    found = account(log("r-0", "r-1"), log("r-0 aa 5", "r-7 aa 5"), "r", "aa")

    assert Account(delivered=1, lost=1) == found


def test_copies_and_changed_bodies_are_counted() -> None:
    """Each copy beyond the first counts, and each body that is another one."""
    found = account(log("r-0"), log("r-0 aa 5", "r-0 bb 5", "r-0 aa 5"), "r", "aa")

    assert Account(delivered=1, duplicated=2, altered=1) == found


def test_a_refused_message_is_not_lost() -> None:
    """A message that the sink refused for good has reached its end."""
    assert Account() == account(log("r-0"), log("r-0 refused 0"), "r", "aa")


def test_other_runs_do_not_count() -> None:
    """Lines of another run are passed over, also where its name begins in the same way."""
    found = account(log("r-0"), log("r-0 aa 5", "r.1-0 aa 5", "- aa 5"), "r", "aa")

    assert Account(delivered=1) == found


def test_options_of_a_load() -> None:
    """A flag is given only where it is wanted."""
    assert "-R" not in Load().arguments()
    assert {"-R", "-T", "-A"} <= set(Load(reuse=True, starttls=True).arguments())


def test_median_of_rounds_and_sum_of_losses() -> None:
    """Speeds are medians, losses add up: one bad round is enough."""
    found = median([figures(100), figures(300, lost=1), figures(200)])

    assert 200.0 == found.accepted_per_s
    assert 1 == found.lost


def test_the_table_has_ratios_to_the_first() -> None:
    """A relay at a quarter of our rate has a ratio of four."""
    lines = list(table({"4 KB": {"ours": figures(1000), "peer": figures(250)}}, "ours"))

    assert "  4.00 " in lines[-1]


def test_a_table_without_ours_has_no_ratios() -> None:
    """Where ours was not measured, nothing is compared."""
    assert " - " in list(table({"4 KB": {"peer": figures()}}, "ours"))[-1]


def test_verdicts_of_what_was_measured_only() -> None:
    """A target is told only beside figures for both sides of it."""
    results = {"4 KB": {"sesguard pass": figures(4000), "postfix": figures(1000)}}

    lines = list(verdicts(results))

    assert "pass / Postfix delivered: 8.00 (target 4 or more)" in lines
    assert not [line for line in lines if line.startswith("spool")]


def test_level_samples_are_flat() -> None:
    """Noise around one level is no growth."""
    assert trend("memory_mb", [60.0, 61.0, 59.0, 60.5] * 20, MEMORY).is_flat


def test_steady_growth_is_not_flat() -> None:
    """A leak of a quarter over the run is found."""
    assert not trend("memory_mb", [60 + i / 5 for i in range(80)], MEMORY).is_flat


def test_the_beginning_does_not_count() -> None:
    """What fills once and then stays is no growth."""
    assert trend("memory_mb", [10.0] * 3 + [60.0] * 77, MEMORY).is_flat


def test_too_few_samples_are_an_error() -> None:
    """Eight samples are the least that quarters can be told of."""
    with pytest.raises(ValueError, match="too few"):
        trend("threads", [1.0] * 7, Tolerance(0, 0))


def test_sparkline_goes_from_nothing_to_the_most() -> None:
    """The picture has one bar for each group of samples, the greatest at full height."""
    assert "▁▅█" == sparkline([0, 5, 10])
    assert "" == sparkline([])
    assert 60 == len(sparkline([1.0] * 1000))

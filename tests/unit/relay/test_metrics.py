"""The relay's numbers: sums over processes, replaced processes, and very many apps."""

import msgspec

from sesguard.daemon.board import PLACE_BYTES, Board
from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.metrics import MOST_APPS, OTHERS, Counters, Snapshot, add_up
from sesguard.relay.model import Reason


def event(app: str, fate: Fate = Fate.SENT, reason: Reason | None = None) -> RelayEvent:
    """One message of an app."""
    return RelayEvent(fate, "smtp", app=app, reason=reason)


def test_sum_of_processes() -> None:
    """Counters and gauges of all processes are added up."""
    first, second = Counters(), Counters()
    first.count_message(event("shop"))
    second.count_message(event("shop"))
    second.count_message(event("blog"))
    whole = add_up([first.snapshot({"connections": 2}), second.snapshot({"connections": 3})])
    assert [("blog", "sent", 1), ("shop", "sent", 2)] == whole.counters["messages"]
    assert {"connections": 5} == whole.gauges


def test_process_goes_on_from_the_one_it_replaces() -> None:
    """What was counted before stays; what was measured does not."""
    before = Counters()
    before.count_message(event("shop", Fate.REFUSED, Reason.SENDER))
    after = Counters(before.snapshot({"connections": 9}))
    after.count_message(event("shop", Fate.REFUSED, Reason.SENDER))
    counted = after.snapshot({})
    assert [("shop", "refused", 2)] == counted.counters["messages"]
    assert [("shop", "sender", 2)] == counted.counters["refusals"]
    assert {} == counted.gauges


def test_very_many_apps_fit_on_the_board() -> None:
    """More apps than have numbers of their own are counted together, and the numbers still fit."""
    counters = Counters()
    names = [f"cpanel:{number:025d}" for number in range(MOST_APPS + 50)]
    for name in names:
        for fate in Fate:
            counters.count_message(event(name, fate, Reason.RATE))
    snapshot = counters.snapshot({})
    rows = {(app, fate): count for app, fate, count in snapshot.counters["messages"]}
    assert 1 == rows[names[0], "sent"]
    assert 50 == rows[OTHERS, "sent"]
    board = Board(1)
    board.write(0, msgspec.json.encode(snapshot))
    (text,) = board.read_all()
    assert len(text) < PLACE_BYTES
    read = add_up([msgspec.json.decode(text, type=Snapshot)])
    assert sorted(snapshot.counters["messages"]) == read.counters["messages"]

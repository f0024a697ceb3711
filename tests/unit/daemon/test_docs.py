"""The protocol pages name everything that the daemon says."""

import re
from pathlib import Path
from typing import Any

from sesguard.daemon.build import open_source
from sesguard.daemon.control import StatusReport
from sesguard.daemon.log import JsonLog, LookupLog
from sesguard.lookup.model import LookupEvent, Outcome, Reason
from sesguard.relay.events import Fate
from sesguard.relay.metrics import GAUGES, Counters
from sesguard.relay.settling import Ending

ROOT = Path(__file__).parents[3]
PAGES = {page.stem: page.read_text() for page in (ROOT / "docs" / "protocols").glob("*.md")}


def test_every_event_is_documented_and_none_that_is_not_written() -> None:
    """The table of docs/protocols/control.md."""
    source = "".join(
        path.read_text() for path in (ROOT / "src" / "sesguard" / "daemon").glob("*.py")
    )
    written = set(re.findall(r'\.write\(\s*"([a-z]+\.[a-z]+)"', source))
    written |= {f"lookup.{outcome}" for outcome in Outcome}
    written |= {f"relay.{fate}" for fate in Fate} | {f"queue.{ending}" for ending in Ending}

    table = PAGES["control"].partition("| event |")[2]

    assert written == set(re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", table, re.MULTILINE))


def test_every_reason_is_documented() -> None:
    """In the list of all reasons."""
    listed = PAGES["control"].partition("Reasons of `lookup.refused`:")[2].partition("\n\n")[0]

    assert {str(reason) for reason in Reason} == set(re.findall(r"`([a-z_]+)`", listed))


def test_every_member_of_the_status_is_documented(host: Any) -> None:
    """With dots for members of members."""
    log = JsonLog()
    lookups = LookupLog(log)
    lookups(LookupEvent(Outcome.GRANTED, "exim", credential_id="ses", version=1))
    numbers = Counters().snapshot(dict.fromkeys(GAUGES, 0))
    report = StatusReport(open_source(host.settings, log), lookups, log, lambda: numbers).describe()
    names = {"version"}
    for name, value in report.items():
        if isinstance(value, dict):
            names |= {f"{name}.{each}" for each in value}
        elif isinstance(value, list):
            names |= {f"{name}[].{each}" for each in value[0]}
        else:
            names.add(name)
    table = PAGES["control"].partition("| member |")[2].partition("\n\n")[0]

    assert names == set(re.findall(r"`([a-z_\[\]]+(?:\.[a-z_]+)?)`(?=[^|]*\| )", table))

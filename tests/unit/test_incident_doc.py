"""The format pages name every member of the incident record and every workflow of the journal."""

import re
from pathlib import Path

import msgspec

from sesguard.deploy import service as target
from sesguard.respond import evidence, incident, playbook
from sesguard.rotation import service as rotation

FORMATS = Path(__file__).parents[2] / "docs" / "formats"
PAGE = (FORMATS / "incident.md").read_text()


def _first_column(heading: str, page: str = PAGE) -> set[str]:
    """Names in the first column of the table that follows a text."""
    table = page.partition(heading)[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split(" | ")[0])}


def _members(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def test_every_member_of_the_record_is_documented() -> None:
    """And no other, in the record, its timeline and its evidence."""
    assert _members(incident.IncidentRecord) == _first_column("## `incident.json`")
    assert _members(incident.TimelineEntry) == _first_column("A member of `timeline`")
    assert _members(incident.EvidenceFile) == _first_column("A member of `evidence`")


def test_every_state_is_documented() -> None:
    """With its name as it is written."""
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `state` | `OPEN`"))

    assert set(incident.IncidentState) <= set(re.findall(r"`([A-Z]+)`", row))


def test_every_file_of_evidence_has_a_section() -> None:
    """In the order in which it is collected."""
    assert list(evidence.COLLECTORS) == re.findall(r"(?m)^### `(\S+)`$", PAGE)


def test_every_workflow_of_the_journal_is_documented() -> None:
    """Those of targets, of rotation and of the response."""
    written = {
        target.WORKFLOW,
        rotation.WORKFLOW,
        rotation.RETIREMENT,
        playbook.CONTAINMENT,
        playbook.RECOVERY,
        playbook.EVIDENCE,
    }

    assert written == _first_column("| `reason` |", (FORMATS / "journal.md").read_text())

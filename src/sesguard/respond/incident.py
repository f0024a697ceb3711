"""
The incident record: what is known of a leak and what was done, in one JSON file.

``STATE_DIRECTORY/incidents/ID/incident.json``, directory 0700, file 0600, replaced as a whole and
durably. It holds no secret. docs/formats/incident.md describes it.

The record is opened before anything else is done and every act is noted in it at once, so that a
person who takes over, and a run that is taken up again, find what the one before knew.
"""

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from sesguard.errors import SystemFault
from sesguard.system.files import ensure_directory, read_if_exists, write_atomic

FORMAT_VERSION: Final = 1
DIRECTORY: Final = "incidents"
FILE: Final = "incident.json"
MAX_TIMELINE: Final = 1000


class IncidentState(StrEnum):
    """How far the response has come."""

    OPEN = "OPEN"
    """The key may still work."""
    CONTAINED = "CONTAINED"
    """SES was seen to refuse the key."""
    RECOVERED = "RECOVERED"
    """Mail flows with a new key."""


class TimelineEntry(msgspec.Struct, frozen=True):
    """One thing that was done or seen."""

    at: str
    act: str
    detail: str = ""
    times: int = 1
    """How often in a row, the first time at `at`."""


class PausedSet(msgspec.Struct, frozen=True):
    """A configuration set."""

    region: str
    name: str


class EvidenceFile(msgspec.Struct, frozen=True):
    """One file of evidence, relative to the incident's directory."""

    name: str
    sha256: str
    bytes: int


class IncidentRecord(msgspec.Struct, kw_only=True):
    """The content of the file."""

    version: int = FORMAT_VERSION
    id: str
    credential: str
    access_key_id: str
    opened_at: str
    state: IncidentState = IncidentState.OPEN
    user_name: str | None = None
    """IAM user of the leaked key, once AWS told."""
    last_use: dict[str, str] | None = None
    """What IAM said of the key's last use before anything was changed."""
    paused_configuration_sets: list[PausedSet] = []
    """Those that this incident paused; what was paused before is not resumed."""
    paused_accounts: list[str] = []
    """Regions in which this incident paused the account."""
    new_users: dict[str, str] = {}
    """Credential to the IAM user that was made for it."""
    new_versions: dict[str, int] = {}
    """Credential to the version that its mail was released with."""
    proved_at: str | None = None
    timeline: list[TimelineEntry] = []
    evidence: list[EvidenceFile] = []
    next_steps: list[str] = []


@dataclass(slots=True)
class Incident:
    """A record and where it is kept; every change is written at once."""

    directory: Path | None
    """None: in memory only."""
    record: IncidentRecord

    @property
    def path(self) -> Path | None:
        """The file."""
        return self.directory and self.directory / FILE

    def save(self) -> None:
        """
        Write the record.

        Raises:
            SystemFault: It cannot be written.
        """
        if self.directory is None:
            return
        ensure_directory(self.directory.parent, mode=0o700)
        ensure_directory(self.directory, mode=0o700)
        content = msgspec.json.format(msgspec.json.encode(self.record), indent=2)
        write_atomic(self.directory / FILE, content + b"\n", mode=0o600)

    def note(self, at: str, act: str, detail: str = "", **changes: Any) -> None:
        """
        Add a line to the timeline, and change fields of the record.

        Raises:
            SystemFault: It cannot be written.
        """
        for name, value in changes.items():
            setattr(self.record, name, value)
        timeline = self.record.timeline
        last = timeline[-1] if timeline else None
        if last is not None and (last.act, last.detail) == (act, detail):
            timeline[-1] = msgspec.structs.replace(last, times=last.times + 1)
        else:
            timeline.append(TimelineEntry(at, act, detail))
        del timeline[:-MAX_TIMELINE]
        self.save()


def incidents_directory(state_directory: Path) -> Path:
    """Where all incidents are."""
    return state_directory / DIRECTORY


def open_incident(
    state_directory: Path, credential: str, access_key_id: str, opened_at: str
) -> Incident:
    """Make a new record; it is written with the first `note`."""
    stamp = "".join(character for character in opened_at[:19] if character.isalnum())
    identifier = f"{stamp}-{access_key_id[-6:].lower()}"
    record = IncidentRecord(
        id=identifier, credential=credential, access_key_id=access_key_id, opened_at=opened_at
    )
    return Incident(incidents_directory(state_directory) / identifier, record)


def list_incidents(state_directory: Path) -> list[Incident]:
    """
    All incidents whose record can be read, newest first.

    A damaged record must not hide the others; `read_incident` says what is wrong with it.
    """
    parent = incidents_directory(state_directory)
    if not parent.is_dir():
        return []
    found = []
    for path in parent.glob(f"*/{FILE}"):
        with contextlib.suppress(SystemFault):
            found.append(read_incident(path.parent))
    return sorted(found, key=lambda each: (each.record.opened_at, each.record.id), reverse=True)


def read_incident(directory: Path) -> Incident:
    """
    Read one record.

    Raises:
        SystemFault: It is not there, or not a record.
    """
    state = read_if_exists(directory / FILE)
    try:
        if state is not None:
            record = msgspec.json.decode(state.content, type=IncidentRecord)
            return Incident(directory, record)
    except msgspec.DecodeError as error:
        raise SystemFault(
            "{path} is not an incident record: {reason}",
            hint="move it away, or restore it from a backup",
            path=directory / FILE,
            reason=error,
        ) from error
    raise SystemFault("there is no incident in {path}", path=directory)

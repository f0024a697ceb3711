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
    paused_configuration_sets: list[str] = []
    """Those that this incident paused; what was paused before is not resumed."""
    paused_accounts: list[str] = []
    """Regions in which this incident paused the account."""
    held_version: int | None = None
    """The version that was CURRENT when the mail was held."""
    new_user_name: str | None = None
    new_version: int | None = None
    proved_at: str | None = None
    timeline: list[TimelineEntry] = []
    evidence: list[EvidenceFile] = []
    next_steps: list[str] = []


@dataclass(slots=True)
class Incident:
    """A record and where it is kept; every change is written at once."""

    directory: Path
    record: IncidentRecord

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / FILE

    def save(self) -> None:
        """
        Write the record.

        Raises:
            SystemFault: It cannot be written.
        """
        content = msgspec.json.format(msgspec.json.encode(self.record), indent=2)
        write_atomic(self.path, content + b"\n", mode=0o600)

    def note(self, at: str, act: str, detail: str = "", **changes: Any) -> None:
        """
        Add a line to the timeline, and change fields of the record.

        Raises:
            SystemFault: It cannot be written.
        """
        for name, value in changes.items():
            setattr(self.record, name, value)
        if len(self.record.timeline) < MAX_TIMELINE:
            self.record.timeline.append(TimelineEntry(at, act, detail))
        self.save()


def incidents_directory(state_directory: Path) -> Path:
    """Where all incidents are."""
    return state_directory / DIRECTORY


def open_incident(
    state_directory: Path, credential: str, access_key_id: str, opened_at: str
) -> Incident:
    """
    Make a new record.

    Raises:
        SystemFault: It cannot be written.
    """
    parent = incidents_directory(state_directory)
    stamp = "".join(character for character in opened_at[:19] if character.isalnum())
    identifier = f"{stamp}-{access_key_id[-6:].lower()}"
    record = IncidentRecord(
        id=identifier, credential=credential, access_key_id=access_key_id, opened_at=opened_at
    )
    ensure_directory(parent, mode=0o700)
    ensure_directory(parent / identifier, mode=0o700)
    incident = Incident(parent / identifier, record)
    incident.save()
    return incident


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

"""
Evidence of an incident: what AWS and this host know, as JSON files with their hashes.

    keys.json        the access keys of the leaked key's user: status, age, last use
    user.json        its policies, groups, tags
    trail.json       CloudTrail's events of the key and of the user, up to 90 days back
    holders.json     who on this host can have the credential, and where it was found in plaintext
    journal.json     what sesguard did to the credential

Each file is 0600, its SHA-256 noted in the incident record; a panic that is repeated collects all
anew. What cannot be had is noted with the reason, and the rest is collected all the same. No file
holds a secret.

Known fault: mail that was sent by SMTP is in no CloudTrail event; SES events have it.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from sesguard.core.message import Message, message
from sesguard.errors import Error
from sesguard.respond.context import ResponseContext, use_json
from sesguard.respond.incident import EvidenceFile, IncidentState
from sesguard.rotation.keys import find_facts
from sesguard.system.files import ensure_directory, write_atomic
from sesguard.workflow.step import Step

DIRECTORY: Final = "evidence"
MAX_EVENTS: Final = 1000
_LOOK_BACK: Final = timedelta(days=90)

Collector = Callable[[ResponseContext], object]


def collect_keys(context: ResponseContext) -> object:
    """The access keys of the user."""
    found = []
    for key in context.keys.list_access_keys(context.leaked_user()):
        facts = find_facts(context.keys, key.access_key_id)
        found.append(
            {
                "access_key_id": key.access_key_id,
                "status": key.status.value,
                "created_at": key.created_at.isoformat(timespec="seconds"),
                "last_use": use_json(facts.last_use) if facts and facts.last_use else None,
            }
        )
    return {
        "user": context.leaked_user(),
        "keys": found,
        "last_use_before_containment": context.incident.record.last_use,
    }


def collect_user(context: ResponseContext) -> object:
    """The user's rights."""
    user = context.users.describe(context.leaked_user())
    return {
        "user": context.leaked_user(),
        "path": user.path,
        "created_at": user.created_at.isoformat(timespec="seconds"),
        "inline_policies": dict(user.inline_policies),
        "attached_policies": list(user.attached_policies),
        "groups": list(user.groups),
        "tags": dict(user.tags),
        "permissions_boundary": user.boundary,
    }


def collect_trail(context: ResponseContext) -> object:
    """The events of the key, then those of the user; each event once."""
    since = context.pace.now() - _LOOK_BACK
    events: dict[str, Any] = {}
    for trail in context.trails:
        for attribute, value in (
            ("AccessKeyId", context.access_key_id),
            ("Username", context.leaked_user()),
        ):
            for event in trail.lookup(attribute, value, since=since, limit=MAX_EVENTS):  # type: ignore[arg-type]
                events[event.event_id] = json.loads(event.document)
    return {"since": since.isoformat(timespec="seconds"), "events": list(events.values())}


def collect_holders(context: ResponseContext) -> object:
    """Who can have had the credential."""
    version = context.leaked_version()
    return {
        **context.holders,
        "version": None
        if version is None
        else {
            "number": version.number,
            "created_at": version.created_at,
            "origin": version.origin,
            "lay_in_plaintext": version.exposed,
            "regions": list(version.passwords),
        },
        "targets": [
            {"name": each.name, "state": each.state.value, "config": each.config}
            for each in context.targets.targets()
        ],
    }


def collect_journal(context: ResponseContext) -> object:
    """Every run that changed the credential or a target."""
    assert context.journal is not None
    runs = [
        *context.journal.runs("rotation", context.credential_id),
        *context.journal.runs("retirement", context.credential_id),
        *context.journal.runs("target"),
    ]
    return [
        {
            "workflow": run.workflow,
            "subject": run.subject,
            "state": run.state.value,
            "started_at": run.started_at,
            "reason": run.reason,
        }
        for run in runs
    ]


COLLECTORS: Final[dict[str, Collector]] = {
    "keys.json": collect_keys,
    "user.json": collect_user,
    "trail.json": collect_trail,
    "holders.json": collect_holders,
    "journal.json": collect_journal,
}
"""File name to what fills it."""


class CollectEvidence(Step[ResponseContext], frozen=True, kw_only=True, tag="collect-evidence"):
    """Write the files."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("keep the evidence, with hashes")

    def act(self, context: ResponseContext) -> None:
        """What cannot be had is noted; only a disk that cannot be written is a failure."""
        if context.incident.directory is None:
            return
        directory = context.incident.directory / DIRECTORY
        ensure_directory(directory, mode=0o700)
        files = []
        for name, collect in COLLECTORS.items():
            try:
                found = collect(context)
            except Error as error:
                context.note("evidence that could not be had", f"{name}: {error}")
                continue
            content = json.dumps(found, indent=2, default=str).encode() + b"\n"
            write_atomic(directory / name, content, mode=0o600)
            digest = hashlib.sha256(content).hexdigest()
            files.append(EvidenceFile(f"{DIRECTORY}/{name}", digest, len(content)))
        context.note("kept the evidence", f"{len(files)} files", evidence=files)


class CloseIncident(Step[ResponseContext], frozen=True, kw_only=True, tag="close-incident"):
    """Say in the record what a person has to do next."""

    state: IncidentState

    def title(self) -> Message:
        """See `Step.title`."""
        return message("write down what is to be done next")

    def act(self, context: ResponseContext) -> None:
        """The record stays: closing the case is for a person."""
        context.note(
            "sesguard has done its part", state=self.state, next_steps=list(map(str, NEXT_STEPS))
        )


NEXT_STEPS: Final = (
    message("Find out how it leaked: holders.json says where the credential lay in plaintext."),
    message(
        "Look for other copies of it: backups, repositories, tickets, the web server's directories."
    ),
    message(
        "Look at trail.json for calls that are not yours: new users, keys, identities or quotas."
    ),
    message(
        "Look at the bounces and complaints in SES: CloudTrail has no mail that was sent by SMTP."
    ),
    message("Answer the AWS Support case, if there is one, with the timeline of this record."),
    message("Delete the old IAM user once nobody needs it for the investigation."),
)

STEP_TYPES: Final[tuple[type[Step[ResponseContext]], ...]] = (CollectEvidence, CloseIncident)
"""Every kind of step that a journal of evidence may hold."""

"""How the rotation of a credential is shown: JSON, a row of a table, metrics."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sesguard.cli.i18n import _
from sesguard.core.credential import CredentialVersion
from sesguard.rotation.status import RotationStatus
from sesguard.workflow.journal import Run

_METRICS = (
    ("age_seconds", "Age of the CURRENT version."),
    ("rotation_due_timestamp_seconds", "When rotate --if-due will replace it."),
    ("rotation_overdue", "1 when it is older than max_age_days."),
    ("rotation_interrupted", "1 when a rotation was cut short."),
)


def status_json(status: RotationStatus) -> dict[str, object]:
    """One member of ``credentials`` in ``rotate status --json``."""
    schedule = status.schedule
    return {
        "id": status.credential_id,
        "current": None if status.current is None else _version_json(status.current),
        "age_days": None if status.age is None else status.age.days,
        "due_at": schedule and _time(schedule.due_at),
        "overdue_at": schedule and _time(schedule.overdue_at),
        "due": status.due,
        "overdue": status.overdue,
        "replaced": [_version_json(version) for version in status.replaced],
        "interrupted": status.interrupted is not None,
        "held": status.held,
        "last_run": None if status.last is None else _run_json(status.last),
    }


def status_row(status: RotationStatus) -> Sequence[str]:
    """One row of the table."""
    old = [
        _("{key} (deactivated)").format(key=version.username)
        if version.deactivated_at
        else _("{key} (still active)").format(key=version.username)
        for version in status.replaced
    ]
    return (
        status.credential_id,
        status.current.username if status.current else "-",
        "-" if status.age is None else _("{days} d").format(days=status.age.days),
        _due(status),
        ", ".join(old) or "-",
        f"{status.last.started_at} {status.last.state}" if status.last else "-",
    )


def metrics(found: Iterable[RotationStatus]) -> str:
    """The text format of Prometheus, version 0.0.4."""
    found = list(found)
    known = [status for status in found if status.schedule is not None]
    lines = [
        "# HELP sesguard_credential_held 1 while its mail is held because the key leaked.",
        "# TYPE sesguard_credential_held gauge",
    ]
    for status in found:
        label = f'{{credential="{status.credential_id}"}}'
        lines.append(f"sesguard_credential_held{label} {status.held:d}")
    for index, (name, text) in enumerate(_METRICS):
        lines += [f"# HELP sesguard_credential_{name} {text}"]
        lines += [f"# TYPE sesguard_credential_{name} gauge"]
        for status in known:
            label = f'{{credential="{status.credential_id}"}}'
            lines.append(f"sesguard_credential_{name}{label} {_values(status)[index]:.0f}")
    return "\n".join(lines) + "\n"


def _values(status: RotationStatus) -> tuple[float, float, float, float]:
    assert status.age is not None
    assert status.schedule is not None
    return (
        status.age.total_seconds(),
        status.schedule.due_at.timestamp(),
        float(status.overdue),
        float(status.interrupted is not None),
    )


def _due(status: RotationStatus) -> str:
    if status.schedule is None:
        return "-"
    if status.overdue:
        return _("overdue since {date}").format(date=status.schedule.overdue_at.date().isoformat())
    if status.due:
        return _("now")
    return status.schedule.due_at.date().isoformat()


def _version_json(version: CredentialVersion) -> dict[str, object]:
    return {
        "number": version.number,
        "username": version.username,
        "created_at": version.created_at,
        "exposed": version.exposed,
        "deactivated_at": version.deactivated_at,
    }


def _run_json(run: Run) -> dict[str, object]:
    return {
        "workflow": run.workflow,
        "state": run.state.value,
        "started_at": run.started_at,
        "reason": run.reason or None,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")

"""How credentials and key providers are shown, as JSON and as text. Never a secret."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypedDict

from sesguard.cli.i18n import _
from sesguard.config.schema import Settings
from sesguard.core.credential import Credential, StagingLabel
from sesguard.vault.providers.interface import KeyProvider

COLUMNS: Final = (
    _("NAME"),
    _("VERSION"),
    _("KEY ID"),
    _("AGE"),
    _("EXPOSED"),
    _("REGIONS"),
)


class CredentialSummary(TypedDict):
    """One credential in JSON."""

    id: str
    current_version: int | None
    """None: nothing was imported or issued yet."""
    username: str | None
    created_at: str | None
    age_days: int | None
    exposed: bool | None
    regions: list[str]
    origin: str | None
    labels: Mapping[str, int]
    """Staging label to version number."""


_ABSENT: Final[CredentialSummary] = {
    "id": "",
    "current_version": None,
    "username": None,
    "created_at": None,
    "age_days": None,
    "exposed": None,
    "regions": [],
    "origin": None,
    "labels": {},
}


def known_credentials(settings: Settings, in_vault: Mapping[str, Credential]) -> list[Credential]:
    """Every credential of the settings, and then what else the vault holds."""
    names = dict.fromkeys([*settings.credentials, *in_vault])
    return [in_vault.get(name, Credential(name)) for name in names]


def describe(credential: Credential, now: datetime | None = None) -> CredentialSummary:
    """Describe a credential without a secret."""
    version = credential.labelled(StagingLabel.CURRENT)
    labels = {label.value: number for label, number in credential.labels.items()}
    if version is None:
        return {**_ABSENT, "id": credential.credential_id, "labels": labels}
    return {
        "id": credential.credential_id,
        "current_version": version.number,
        "username": version.username,
        "created_at": version.created_at,
        "age_days": _age_days(version.created_at, now or datetime.now(UTC)),
        "exposed": version.exposed,
        "regions": list(version.passwords),
        "origin": version.origin,
        "labels": labels,
    }


def table_row(summary: CredentialSummary) -> Sequence[str]:
    """One row under `COLUMNS`."""
    if summary["current_version"] is None:
        return (summary["id"], "-", _("not imported yet"), "-", "-", "-")
    return (
        summary["id"],
        str(summary["current_version"]),
        summary["username"] or "-",
        _("{days} d").format(days=summary["age_days"]),
        _("yes: rotate it") if summary["exposed"] else _("no"),
        " ".join(summary["regions"]),
    )


def provider_json(provider: KeyProvider) -> dict[str, object]:
    """A key provider: its name, where its key lies, and what that is worth."""
    worth = provider.describe()
    return {
        "name": provider.name,
        "place": provider.place,
        "protects": list(worth.protects),
        "does_not_protect": list(worth.does_not_protect),
    }


def provider_lines(provider: KeyProvider) -> list[str]:
    """The same for people, one line each."""
    worth = provider.describe()
    head = _("key provider {name}, key in {place}")
    return [
        head.format(name=provider.name, place=provider.place),
        *(f"+ {_(sentence)}" for sentence in worth.protects),
        *(f"- {_(sentence)}" for sentence in worth.does_not_protect),
    ]


def _age_days(created_at: str, now: datetime) -> int | None:
    try:
        return (now - datetime.fromisoformat(created_at)).days
    except (ValueError, TypeError):
        return None

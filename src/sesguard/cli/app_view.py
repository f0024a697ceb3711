"""How an app is shown: one JSON object, or one row of a table. Never a token."""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from sesguard.cli.i18n import _
from sesguard.config.schema import AppSettings
from sesguard.relay.apps import AppRule, app_named
from sesguard.relay.rates import RateTable, Usage
from sesguard.relay.registry import Entry

COLUMNS: Final = (
    _("NAME"),
    _("CALLERS"),
    _("DELIVERY"),
    _("POLICY"),
    _("TOKENS"),
    _("RATES"),
    _("SUSPENDED"),
)


class TokenSummary(TypedDict):
    """One token in JSON."""

    id: str
    label: str
    created: str


class SuspensionSummary(TypedDict):
    """Why and since when an app is suspended."""

    reason: str
    since: str


class UsageSummary(TypedDict):
    """How much of one limit is used."""

    window: str
    limit: int
    used: int


class AppSummary(TypedDict):
    """One app in JSON."""

    name: str
    in_settings: bool
    users: list[str]
    groups: list[str]
    require_token: bool
    senders: list[str]
    policy: str | None
    delivery: str | None
    tokens: list[TokenSummary]
    suspended: SuspensionSummary | None
    usage: list[UsageSummary]


def describe_all(
    rules: tuple[AppRule, ...],
    tables: Mapping[str, AppSettings],
    entries: Mapping[str, Entry],
    rates: RateTable,
    now: float,
) -> list[AppSummary]:
    """
    Describe every app of the settings, and then what else the registry knows.

    Raises:
        SystemFault: The rates cannot be read.
    """
    summaries = []
    for name in dict.fromkeys([*tables, *sorted(entries)]):
        found = app_named(rules, name)
        table = tables.get(name if found is None else found[0].name)
        usage = () if found is None else rates.usage(found[1], now)
        senders = () if table is None else table.senders if found is None else found[1].senders
        summary = _describe(name, table, entries.get(name, Entry()), usage)
        summaries.append(AppSummary({**summary, "senders": list(senders)}))
    return summaries


def table_row(app: AppSummary) -> Sequence[str]:
    """One row under `COLUMNS`."""
    return (
        app["name"],
        _callers(app),
        app["delivery"] or "-",
        app["policy"] or "-",
        " ".join(_token(token) for token in app["tokens"]) or "-",
        " ".join(f"{use['used']}/{use['limit']} {use['window']}" for use in app["usage"]) or "-",
        _suspension(app["suspended"]),
    )


def _describe(
    name: str, table: AppSettings | None, entry: Entry, usage: tuple[Usage, ...]
) -> AppSummary:
    suspended = entry.suspended
    return {
        "name": name,
        "in_settings": table is not None,
        "users": [] if table is None else list(table.users),
        "groups": [] if table is None else list(table.groups),
        "require_token": table is None or table.require_token or not (table.users or table.groups),
        "senders": [],
        "policy": None if table is None else table.policy,
        "delivery": None if table is None else table.delivery,
        "tokens": [
            {"id": token.id, "label": token.label, "created": token.created}
            for token in entry.tokens
        ],
        "suspended": None
        if suspended is None
        else {"reason": suspended.reason, "since": suspended.since},
        "usage": [
            {"window": each.window, "limit": each.limit, "used": round(each.used)} for each in usage
        ],
    }


def _callers(app: AppSummary) -> str:
    if not app["in_settings"]:
        return _("not in the settings")
    named = [*app["users"], *(f"@{group}" for group in app["groups"])]
    return " ".join([*named, _("token")] if app["require_token"] else named)


def _token(token: TokenSummary) -> str:
    return f"{token['id']} ({token['label']})" if token["label"] else token["id"]


def _suspension(suspended: SuspensionSummary | None) -> str:
    if suspended is None:
        return _("no")
    return suspended["reason"] or _("yes")

"""``sesguard app``: tokens of apps, and which of them may not send for now."""

import time
from typing import Final

import click

from sesguard.cli import audit
from sesguard.cli.app_view import COLUMNS, describe_all, table_row
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _
from sesguard.config.schema import Settings
from sesguard.errors import UsageError
from sesguard.relay.apps import app_named, app_rules
from sesguard.relay.rates import RATES_FILE, RateTable
from sesguard.relay.registry import REGISTRY_FILE, AppRegistry
from sesguard.system.privileges import find_user, is_root

JSON_VERSION: Final = 1

_NAME: Final = click.argument("name", metavar=_("NAME"))


@click.group(name="app", help=_("Apps that send through the relay: tokens, suspending, resuming."))
def command() -> None:
    """Group of the commands below."""


@command.command(help=_("Make a token for an app and show it, this once, on standard output."))
@_NAME
@click.option("--label", default="", metavar=_("TEXT"), help=_("What it is for."))
@pass_app
def add(app: App, name: str, label: str) -> None:
    """Print the token and nothing else; it is kept as a hash only."""
    _require_app(app, name)
    audit.record(app.settings.state_directory, "app-add-token", app=name, label=label)
    token = _registry(app.settings).add_token(name, label)
    app.output.ok(_("{name} logs in with its name and this token").format(name=name))
    app.output.data(token.reveal())


@command.command(
    name="list", help=_("Show every app: callers, delivery, tokens, rates. No secret.")
)
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def list_apps(app: App, as_json: bool) -> None:
    """Print what the settings and the registry say about each app."""
    settings = app.settings
    entries = _registry(settings).entries()
    rates = RateTable(settings.relay.spool_directory / RATES_FILE)
    apps = describe_all(app_rules(settings), settings.apps, entries, rates, time.time())
    if as_json:
        app.output.print_json({"version": JSON_VERSION, "apps": apps})
        return
    app.output.table(COLUMNS, [table_row(each) for each in apps])


@command.command(help=_("Make a token of an app invalid."))
@_NAME
@click.argument("token_id", metavar=_("TOKEN_ID"), required=False)
@click.option("--all", "every", is_flag=True, help=_("All of its tokens."))
@pass_app
def revoke(app: App, name: str, token_id: str | None, every: bool) -> None:
    """Revoke one token by its id, or all; the app need not be in the settings any more."""
    if every == (token_id is not None):
        raise UsageError("name one token, or --all", hint="run: sesguard app list")
    _require_known(app, name)
    audit.record(app.settings.state_directory, "app-revoke-token", app=name, token=token_id)
    gone = _registry(app.settings).revoke(name, token_id)
    ids = ", ".join(gone) or "-"
    app.output.ok(_("revoked tokens of {name}: {ids}").format(name=name, ids=ids))


@command.command(help=_("Let an app send nothing from now on; its mail is deferred, not refused."))
@_NAME
@click.option("--reason", default="", metavar=_("TEXT"), help=_("Why; for app list."))
@pass_app
def suspend(app: App, name: str, reason: str) -> None:
    """Suspend an app, one app of a table NAME:*, or all of them by that very name."""
    _require_known(app, name)
    audit.record(app.settings.state_directory, "app-suspend", app=name, reason=reason)
    _registry(app.settings).suspend(name, reason)
    text = _("{name} is suspended; to let it send again, run: sesguard app resume {name}")
    app.output.ok(text.format(name=name))


@command.command(help=_("Let a suspended app send again."))
@_NAME
@pass_app
def resume(app: App, name: str) -> None:
    """Resume what was suspended by just that name."""
    _require_known(app, name)
    audit.record(app.settings.state_directory, "app-resume", app=name)
    if _registry(app.settings).resume(name):
        app.output.ok(_("{name} may send again").format(name=name))
    else:
        app.output.note(_("{name} was not suspended").format(name=name))


def _registry(settings: Settings) -> AppRegistry:
    """The registry, readable by the daemon's group where root writes it."""
    user = find_user(settings.daemon.user) if is_root() else None
    path = settings.state_directory / REGISTRY_FILE
    return AppRegistry(path, group=None if user is None else user.gid)


def _require_app(app: App, name: str) -> None:
    """
    See that a caller can be the app called `name`.

    Raises:
        UsageError: The settings have none, or `name` is a whole table.
    """
    if app_named(app_rules(app.settings), name) is not None:
        return
    if name in app.settings.apps:
        raise UsageError(
            "{name} is one app for each user, and a token is for one of them",
            hint="name a user in place of the *",
            name=name,
        )
    raise UsageError(
        "there is no app {name} in {path}",
        hint='add these lines to that file: [apps.{table}] and senders = ["*@example.com"]',
        name=name,
        path=app.config,
        table=f'"{name.partition(":")[0]}:*"' if ":" in name else name,
    )


def _require_known(app: App, name: str) -> None:
    """
    See that `name` is an app or a table of the settings, or is in the registry.

    Raises:
        UsageError: It is nowhere.
    """
    if name not in app.settings.apps and name not in _registry(app.settings).entries():
        _require_app(app, name)

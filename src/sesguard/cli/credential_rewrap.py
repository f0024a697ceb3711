"""``sesguard credential rewrap``: a new vault key, of the same key provider or of another one."""

from typing import Final, get_args, get_type_hints

import click

from sesguard.cli import audit
from sesguard.cli.context import App, pass_app
from sesguard.cli.credential_rewrap_change import Changed, KeyChange
from sesguard.cli.credential_view import provider_lines
from sesguard.cli.i18n import _, ngettext
from sesguard.config.schema import VaultSettings

_PROVIDERS: Final = get_args(get_type_hints(VaultSettings)["key_provider"])


@click.command(
    name="rewrap",
    help=_(
        "Give the vault a new key, of this or another key provider, and seal everything anew"
        " under it. Run it again when it was interrupted: it goes on."
    ),
)
@click.option(
    "--to",
    "provider",
    type=click.Choice(_PROVIDERS),
    required=True,
    help=_("Key provider of the new key. Its own table of the settings says where it lies."),
)
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@pass_app
def command(app: App, provider: str, yes: bool) -> None:
    """Say what will be done, ask, do it, and say what is left to do."""
    change = KeyChange(app.settings, app.config, app.vault(), app.key_provider(provider))
    change.require_possible()
    _announce(app, change)
    question = _("Move the vault to a new key of {provider}?").format(provider=provider)
    app.output.confirm(question, assume_yes=yes)
    audit.record(
        app.settings.state_directory,
        "rewrap",
        key_provider_before=app.settings.vault.key_provider,
        key_provider=provider,
    )
    app.output.step(_("sealing everything anew"))
    try:
        changed = change.make()
    except KeyboardInterrupt:
        text = _("to finish it if it was begun, run: sesguard credential rewrap --to {provider}")
        app.output.warn(text.format(provider=provider))
        raise
    _report(app, change, changed)


def _announce(app: App, change: KeyChange) -> None:
    source, target, say = change.vault.provider, change.target, app.output.note
    if change.is_begun():
        text = _("the vault is moved to {provider} already; what is left of that change is made")
        say(text.format(provider=target.name))
    say(_("key of the vault now: {name}, {place}").format(name=source.name, place=source.place))
    for line in provider_lines(target):
        say(line)
    if change.is_elsewhere:
        say(_("A new key is made there."))
    else:
        say(_("A new key is made there; one that is there already is replaced."))
    say(_("Every record of the vault and the journal is sealed anew under it."))
    if change.is_elsewhere:
        text = _('In {path} it then says: key_provider = "{provider}"')
        say(text.format(path=change.config, provider=target.name))


def _report(app: App, change: KeyChange, changed: Changed) -> None:
    source, target = change.vault.provider, change.target
    text = _("the vault has a new key, of {provider}, as generation {number}")
    app.output.ok(text.format(provider=target.name, number=changed.generation))
    if changed.unreadable:
        app.output.warn(
            ngettext(
                "{count} entry of the journal opens with no key: it cannot be undone",
                "{count} entries of the journal open with no key: they cannot be undone",
                changed.unreadable,
            ).format(count=changed.unreadable)
        )
    app.output.warn(
        _("without the key in {place} the vault does not open: keep a copy of it elsewhere").format(
            place=target.place
        )
    )
    if change.is_elsewhere:
        text = _(
            "the key in {place} is not needed any more: destroy it and its backups;"
            " backups of the vault from before still open with it"
        )
    else:
        text = _(
            "the key that was in {place} before is gone: destroy its backups;"
            " backups of the vault from before still open with them"
        )
    app.output.note(text.format(place=source.place))
    app.output.note(
        _("Now restart sesguardd: it serves from memory until then, without later changes.")
    )

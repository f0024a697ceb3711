"""
``sesguard init``: the settings file, the vault key and the vault.

Promises: nothing that is there is overwritten, so it may be run again at any time and finishes what
an interrupted run began; nothing is asked where a region is given or there is no terminal. The
settings file is world-readable (0644): it holds no secret.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from sesguard.cli import params
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _
from sesguard.cli.init_settings import Answers, settings_text
from sesguard.cli.output import Output, is_interactive
from sesguard.config.load import parse_settings
from sesguard.core.endpoints import region_note, require_region
from sesguard.errors import UsageError
from sesguard.system.files import ensure_directory, read_if_exists, write_atomic
from sesguard.vault.opening import init_vault

_SETTINGS_MODE: Final = 0o644


@click.command(
    help=_("Write the settings file and make the vault. Nothing that is there is overwritten.")
)
@click.option(
    "--region",
    "regions",
    type=params.region,
    multiple=True,
    metavar=_("REGION"),
    help=_("AWS region that mail goes out through; the first is the default. May be repeated."),
)
@click.option(
    "--credential",
    type=params.credential_name,
    default="ses",
    show_default=True,
    metavar=_("NAME"),
    help=_("Name of the credential."),
)
@click.option(
    "--sender-domain",
    "sender_domains",
    multiple=True,
    metavar=_("DOMAIN"),
    help=_("Domain of the senders that use it; without any: every sender. May be repeated."),
)
@click.option(
    "--canary-sender",
    metavar=_("ADDRESS"),
    help=_("Verified address that test messages come from."),
)
@click.option(
    "--base-directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar=_("DIRECTORY"),
    help=_("Keep vault, key, state and sockets below this directory, to try things out."),
)
@pass_app
def command(
    app: App,
    regions: Sequence[str],
    credential: str,
    sender_domains: Sequence[str],
    canary_sender: str | None,
    base_directory: Path | None,
) -> None:
    """Make what is missing."""
    if read_if_exists(app.config) is not None:
        app.output.note(_("{path} is there already; it is left as it is").format(path=app.config))
    else:
        base = base_directory.absolute() if base_directory else None
        answers = Answers(credential, regions, sender_domains, canary_sender, base)
        _write_settings(app, answers if regions else _ask(app.output, answers))
    _warn_of_regions(app)
    _ensure_vault(app)


def _ask(output: Output, given: Answers) -> Answers:
    if not is_interactive():
        raise UsageError("no AWS region was given", hint="add --region, such as --region us-east-1")
    region = require_region(output.ask(_("AWS region that mail goes out through")))
    domain = output.ask(_("Domain of the senders (empty: every sender)"), default="")
    sender = output.ask(_("Verified address for test messages (empty: none)"), default="")
    return Answers(
        given.credential,
        [region],
        given.sender_domains or ([domain] if domain else []),
        given.canary_sender or sender or None,
        given.base_directory,
    )


def _write_settings(app: App, answers: Answers) -> None:
    content = settings_text(answers).encode()
    parse_settings(content, app.config)
    if not app.config.parent.is_dir():
        ensure_directory(app.config.parent, mode=0o755)
    write_atomic(app.config, content, mode=_SETTINGS_MODE)
    app.output.ok(_("wrote {path}").format(path=app.config))


def _warn_of_regions(app: App) -> None:
    for credential in app.settings.credentials.values():
        for region in credential.regions:
            note = region_note(region)
            if note is not None:
                app.output.warn(f"{region}: {_(note)}")


def _ensure_vault(app: App) -> None:
    vault = app.vault()
    if vault.exists():
        contents = vault.read()
        text = _("the vault in {directory} is there already, generation {generation}, in order")
        app.output.note(text.format(directory=vault.directory, generation=contents.generation))
    else:
        vault = init_vault(app.settings, app.ask)
        app.output.ok(_("made the vault in {directory}").format(directory=vault.directory))
    app.output.note(_("Next: sesguard credential import --from FILE"))

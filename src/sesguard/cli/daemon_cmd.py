"""``sesguard daemon``: run sesguardd in the foreground."""

import click

from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _
from sesguard.daemon.service import serve


@click.command(
    name="daemon",
    help=_(
        "Run sesguardd in the foreground: it answers Exim and Postfix when they ask for the "
        "credential. SIGHUP reads the settings again, SIGTERM ends it. The log goes to standard "
        "error, one JSON object a line."
    ),
)
@pass_app
def command(app: App) -> None:
    """Serve until a signal ends it."""
    serve(app.settings)

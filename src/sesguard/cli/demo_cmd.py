"""``sesguard demo``: the whole story on the embedded SES, without an AWS account."""

import click

from sesguard.cli.context import App, pass_app
from sesguard.cli.demo_key import KEY_PROVIDERS
from sesguard.cli.demo_story import Story
from sesguard.cli.i18n import _
from sesguard.errors import CheckFailed
from sesguard.system.files import temporary_directory


@click.command(
    name="demo",
    help=_(
        "Show the whole story with a real Exim and an embedded SES: a plaintext credential goes "
        "into the vault, mail keeps flowing, no copy is left, and undo puts everything back. Then "
        "its key is rotated under load, a thief sends with it, and panic cuts the thief off. "
        "Needs no AWS account and touches nothing of this host."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=_("Write one JSON object and no story."))
@click.option(
    "--mails", default=50, show_default=True, type=click.IntRange(1, 1000),
    help=_("How many mails the PHP application sends."),
)  # fmt: skip
@click.option(
    "--key-provider", default="keyfile", type=click.Choice(KEY_PROVIDERS),
    help=_("Where the vault key lies."),
)  # fmt: skip
@pass_app
def command(app: App, as_json: bool, mails: int, key_provider: str) -> None:
    """Tell the story; exit 1 when a step of it went wrong."""
    with temporary_directory("sesguard-demo-") as directory:
        # Exim's user and the daemon's user pass through it; what is private inside says so itself.
        directory.chmod(0o711)
        story = Story(directory, app.output, quiet=as_json, mails=mails, key_provider=key_provider)
        report = story.tell()
    if as_json:
        app.output.print_json(report.as_json())
    if not report.ok:
        raise CheckFailed(
            "the demo went wrong at: {step}",
            hint="run it again with --debug and report what it shows",
            step=next((step.name for step in report.steps if not step.ok), "messages"),
        )

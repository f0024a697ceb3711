"""``sesguard panic``: cut a leak first, then recover from it."""

from typing import Final

import click

from sesguard.cli import audit
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _, translate, translate_message
from sesguard.cli.progress import StepPrinter
from sesguard.core.shapes import is_access_key_id
from sesguard.errors import Error, SystemFault, UsageError
from sesguard.respond.playbook import PanicOptions, Response

JSON_VERSION: Final = 1


@click.command(
    name="panic",
    help=_(
        "Cut a leaked credential off at once, prove that it is dead, and give this host a new one. "
        "Mail is held meanwhile, not bounced. Run it again when it was interrupted: it goes on."
    ),
)
@click.option("--credential", "name", metavar=_("NAME"), help=_("Which credential."))
@click.option(
    "--key", "access_key_id", metavar="AKIA...", help=_("The leaked key. Default: the one in use.")
)
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@click.option("--contain-only", is_flag=True, help=_("Stop once the key is proved dead."))
@click.option(
    "--pause-account",
    is_flag=True,
    help=_(
        "Also pause all sending of the AWS account in the region until the new key works. SES then "
        "answers 554 to everybody: mail of other hosts and programs of this account BOUNCES."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def command(
    app: App, name: str | None, access_key_id: str | None, yes: bool, contain_only: bool,
    pause_account: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask once, then do everything without asking again."""
    if access_key_id is not None and not is_access_key_id(access_key_id):
        raise UsageError("{key!r} is not the id of an access key", key=access_key_id)
    name, _settings = app.credential_settings(name)
    service = app.panic()
    key = service.leaked_key(name, access_key_id)
    question = _("Deactivate {key}, deny its IAM user everything, and hold this host's mail?")
    if pause_account:
        question = _(
            "Deactivate {key}, deny its IAM user everything, hold this host's mail, and pause the "
            "whole AWS account (mail of others bounces)?"
        )
    if not yes and service.calls_with(name, key):
        app.output.warn(
            _(
                "this command calls AWS with {key} itself: it can cut the leak, but not recover "
                "from it; better run it as another identity (AWS_PROFILE)"
            ).format(key=key)
        )
    app.output.confirm(question.format(key=key), assume_yes=yes)
    _record(app, name, key)
    options = PanicOptions(contain_only=contain_only, pause_account=pause_account)
    try:
        response = service.respond(name, key, StepPrinter(app), options)
    except KeyboardInterrupt:
        app.output.warn(_("mail may be held now; to go on, run: sesguard panic"))
        raise
    if as_json:
        app.output.print_json(_json(response))
    else:
        _show(app, response)
    if response.problems:
        raise _unfinished(response.problems[0])


def _record(app: App, name: str, key: str) -> None:
    """Write down who did it; a full disk must not hold it up."""
    try:
        audit.record(app.settings.state_directory, "panic", credential=name, username=key)
    except SystemFault as error:
        app.output.warn(translate(error).text)


def _show(app: App, response: Response) -> None:
    record = response.incident.record
    app.output.ok(_("{key} is dead: SES refuses it").format(key=record.access_key_id))
    for warning in response.warnings:
        app.output.warn(translate_message(warning))
    for name, number in record.new_versions.items() if response.recovered else ():
        text = _("the mail of {name} flows again, with version {number} of IAM user {user}")
        app.output.ok(text.format(name=name, number=number, user=record.new_users.get(name)))
    if response.held:
        app.output.warn(_("the mail of this host is held; to go on, run: sesguard panic"))
    app.output.note(_("What is known and what to do next:"))
    app.output.data(str(response.incident.path))
    for step in record.next_steps:
        app.output.note(f"- {_(step)}")


def _json(response: Response) -> dict[str, object]:
    record = response.incident.record
    return {
        "version": JSON_VERSION,
        "incident": record.id,
        "state": record.state.value,
        "access_key_id": record.access_key_id,
        "proved_at": record.proved_at,
        "recovered": response.recovered,
        "held": response.held,
        "new_versions": record.new_versions,
        "new_users": record.new_users,
        "warnings": [str(warning) for warning in response.warnings],
        "record": str(response.incident.path),
        "problems": [str(problem) for problem in response.problems],
    }


def _unfinished(problem: Error) -> Error:
    return Error(
        "the leak is cut, but a step failed: {problem}",
        hint="do that by hand, or mend the cause and run sesguard panic again",
        problem=problem,
    )

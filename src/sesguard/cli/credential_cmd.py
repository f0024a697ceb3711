"""``sesguard credential``: what the vault holds, whether it is in order, and putting things in."""

from collections.abc import Sequence
from typing import Final

import click

from sesguard.cli import audit
from sesguard.cli.context import App, pass_app
from sesguard.cli.credential_import import command as import_command
from sesguard.cli.credential_rewrap import command as rewrap_command
from sesguard.cli.credential_view import (
    COLUMNS,
    describe,
    known_credentials,
    provider_json,
    provider_lines,
    table_row,
)
from sesguard.cli.i18n import _, translate
from sesguard.cli.progress import StepPrinter
from sesguard.errors import CheckFailed, KeyProviderError
from sesguard.vault.checking import RecordCheck

JSON_VERSION: Final = 1


@click.group(name="credential", help=_("Put credentials into the vault, and look at them."))
def command() -> None:
    """Group of the commands below."""


command.add_command(import_command)
command.add_command(rewrap_command)


@command.command(help=_("Make the first access key of a credential at AWS, test it, and seal it."))
@click.argument("name", metavar=_("NAME"), required=False)
@click.option("--send-test", is_flag=True, help=_("Also send a mail to the SES mailbox simulator."))
@pass_app
def issue(app: App, name: str | None, send_test: bool) -> None:
    """Issue version 1; a credential that has one is rotated instead."""
    name, _settings = app.credential_settings(name)
    issued = app.rotation().issue(name, StepPrinter(app), send_mail=send_test)
    text = _("{name} has its first key: version {number}, {key}")
    app.output.ok(text.format(name=name, number=issued.number, key=issued.username))


@command.command(name="list", help=_("Show every credential: key id, age, regions. No secret."))
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def list_credentials(app: App, as_json: bool) -> None:
    """Print what the settings name and the vault holds."""
    in_vault = app.vault().read().credentials
    summaries = [describe(each) for each in known_credentials(app.settings, in_vault)]
    if as_json:
        app.output.print_json({"version": JSON_VERSION, "credentials": summaries})
        return
    app.output.table(COLUMNS, [table_row(summary) for summary in summaries])


@command.command(help=_("Open every record of the vault without showing one."))
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@click.option(
    "--restore-previous",
    is_flag=True,
    help=_("First put the last good generation back in place of a damaged vault."),
)
@pass_app
def check(app: App, as_json: bool, restore_previous: bool) -> None:
    """Print every check; a failed one is exit 1."""
    vault = app.vault()
    if restore_previous:
        contents = vault.restore_previous()
        app.output.ok(_("restored as generation {number}").format(number=contents.generation))
    checks = vault.verify()
    failed = [each for each in checks if not each.ok]
    if as_json:
        app.output.print_json(
            {
                "version": JSON_VERSION,
                "ok": not failed,
                "key_provider": provider_json(vault.provider),
                "checks": [_check_json(each) for each in checks],
            }
        )
    else:
        for each in checks:
            app.output.data(_check_line(each))
        for line in provider_lines(vault.provider):
            app.output.note(line)
    if failed:
        raise _failure(failed, len(checks))


@command.command(
    help=_(
        "Show a credential in the clear, one line a region: REGION USER PASSWORD."
        " Asks first, and is written to the audit log."
    )
)
@click.argument("name", metavar=_("NAME"))
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@pass_app
def reveal(app: App, name: str, yes: bool) -> None:
    """Print the CURRENT version's passwords; the one command that shows a secret."""
    version = app.vault().read().credential(name).current()
    question = _("Show the password of {name} on this terminal?").format(name=name)
    app.output.confirm(question, assume_yes=yes)
    audit.record(
        app.settings.state_directory,
        "reveal",
        credential=name,
        credential_version=version.number,
        username=version.username,
    )
    for region, password in version.passwords.items():
        app.output.data(f"{region} {version.username} {password.reveal()}")


def _failure(failed: Sequence[RecordCheck], total: int) -> CheckFailed:
    whole = failed[-1].error
    if len(failed) == total and isinstance(whole, KeyProviderError):
        # Nothing opens for want of the key, so no other generation helps.
        return CheckFailed(
            "{count} of {total} checks of the vault failed",
            hint=whole.hint_template,
            **{**whole.parameters, "count": len(failed), "total": total},
        )
    return CheckFailed(
        "{count} of {total} checks of the vault failed",
        hint="run: sesguard credential check --restore-previous",
        count=len(failed),
        total=total,
    )


def _check_line(check: RecordCheck) -> str:
    what = str(check.path)
    if check.generation is not None:
        what += " " + _("generation {number}").format(number=check.generation)
    if check.credential_id is not None:
        version = _("{name} version {number}")
        what += " " + version.format(name=check.credential_id, number=check.version)
    if check.error is None:
        return f"{_('ok')}: {what}"
    return f"{_('FAILED')}: {what}: {translate(check.error).text}"


def _check_json(check: RecordCheck) -> dict[str, object]:
    return {
        "path": str(check.path),
        "generation": check.generation,
        "credential": check.credential_id,
        "credential_version": check.version,
        "ok": check.ok,
        "problem": None if check.error is None else str(check.error),
    }

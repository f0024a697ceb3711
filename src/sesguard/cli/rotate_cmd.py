"""
``sesguard rotate``: a new key for a credential, and when the next one is due.

The systemd timer runs ``sesguard rotate --if-due`` every day: it finishes what was interrupted,
retires replaced keys whose time has come, and rotates what is due.
"""

from typing import Final

import click

from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _, translate, translate_message
from sesguard.cli.progress import StepPrinter
from sesguard.cli.rotation_view import metrics, status_json, status_row
from sesguard.errors import CheckFailed, Error, UsageError
from sesguard.rotation.service import Rotated, RotationService
from sesguard.rotation.status import RotationStatus

JSON_VERSION: Final = 1


@click.group(
    name="rotate",
    invoke_without_command=True,
    help=_("Give a credential a new key without losing a mail. Asks AWS; see --dry-run."),
)
@click.option("--credential", "name", metavar=_("NAME"), help=_("Which credential."))
@click.option("--dry-run", is_flag=True, help=_("Show every step, AWS call and file change."))
@click.option("--resume", is_flag=True, help=_("Finish a rotation that was interrupted."))
@click.option("--if-due", is_flag=True, help=_("Only what is due; for the timer."))
@click.option("--send-test", is_flag=True, help=_("Also send a mail to the SES mailbox simulator."))
@click.pass_context
def command(
    context: click.Context, name: str | None, dry_run: bool, resume: bool, if_due: bool,
    send_test: bool,
) -> None:  # fmt: skip
    """Do one of the four; without a subcommand it rotates now."""
    if context.invoked_subcommand is not None:
        return
    app = context.find_object(App)
    assert app is not None
    if sum((dry_run, resume, if_due)) > 1:
        raise UsageError("--dry-run, --resume and --if-due exclude each other")
    if if_due:
        _rotate_due(app, name, send_test)
        return
    name, _settings = app.credential_settings(name)
    if dry_run:
        _show_plan(app, name, send_test)
    elif resume:
        _resume(app, name)
    else:
        _say_rotated(app, name, app.rotation().rotate(name, StepPrinter(app), send_mail=send_test))


@command.command(help=_("Show the age of each credential, and when it is due."))
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@click.option("--prometheus", is_flag=True, help=_("Write metrics for the textfile collector."))
@pass_app
def status(app: App, as_json: bool, prometheus: bool) -> None:
    """Print every credential; one that is overdue, or a rotation cut short, is exit 1."""
    service = app.rotation()
    found = [service.status(name) for name in app.settings.credentials]
    if as_json:
        app.output.print_json(
            {"version": JSON_VERSION, "credentials": [status_json(each) for each in found]}
        )
    elif prometheus:
        app.output.data(metrics(found).rstrip("\n"))
    else:
        columns = [_("NAME"), _("KEY ID"), _("AGE"), _("DUE"), _("OLD KEYS"), _("LAST ROTATION")]
        app.output.table(columns, [status_row(each) for each in found])
    for each in found:
        require_on_time(each)


def require_on_time(each: RotationStatus) -> None:
    """
    Check that a credential is not overdue or held, and that no rotation of it was cut short.

    Raises:
        CheckFailed: It is, or one was.
    """
    if each.interrupted is not None:
        raise CheckFailed(
            "a rotation of {name} was interrupted",
            hint="run: sesguard rotate --resume --credential {name}",
            name=each.credential_id,
        )
    if each.held:
        raise CheckFailed(
            "the mail of credential {name} is held, because its key leaked",
            hint="run: sesguard panic --credential {name}",
            name=each.credential_id,
        )
    if each.overdue:
        assert each.age is not None
        raise CheckFailed(
            "credential {name} is {days} days old: it is overdue",
            hint="run: sesguard rotate --credential {name}",
            name=each.credential_id,
            days=each.age.days,
        )


def _show_plan(app: App, name: str, send_test: bool) -> None:
    service = app.rotation()
    plan = service.plan(name, send_mail=send_test)
    for number, (step, effects) in enumerate(service.effects(name, plan), 1):
        app.output.data(f"{number:2}. {step.part_of:7} {translate_message(step.title())}")
        for effect in effects:
            app.output.data(f"            {effect}")


def _resume(app: App, name: str) -> None:
    if app.rotation().resume(name, StepPrinter(app)):
        app.output.ok(_("the interrupted rotation of {name} is finished").format(name=name))
    else:
        app.output.ok(_("nothing to resume for {name}").format(name=name))


def _rotate_due(app: App, name: str | None, send_test: bool) -> None:
    """Each credential in turn; what goes wrong with one does not hold up the others."""
    names = list(app.settings.credentials) if name is None else [app.credential_settings(name)[0]]
    service = app.rotation()
    problems: list[Error] = []
    for each in names:
        try:
            _pass(app, service, each, send_test)
        except Error as error:
            problems.append(error)
    for problem in problems[:-1]:
        shown = translate(problem)
        app.output.error(shown.text, shown.hint)
    if problems:
        raise problems[-1]


def _pass(app: App, service: RotationService, name: str, send_test: bool) -> None:
    found = service.status(name)
    if found.current is None and not found.held:
        app.output.note(_("{name} has no CURRENT version").format(name=name))
        return
    service.retire(name, StepPrinter(app))
    found = service.status(name)
    if found.due:
        _say_rotated(app, name, service.rotate(name, StepPrinter(app), send_mail=send_test))
    elif found.schedule is not None:
        due = found.schedule.due_at.date().isoformat()
        app.output.ok(_("{name} is not due before {date}").format(name=name, date=due))


def _say_rotated(app: App, name: str, rotated: Rotated) -> None:
    text = _("{name} has a new key: version {number}, {key}")
    app.output.ok(text.format(name=name, number=rotated.number, key=rotated.username))
    note = _("The old key is deactivated. It is deleted after {hours} h, or by the next rotation.")
    app.output.note(note.format(hours=app.settings.rotation.grace_hours))

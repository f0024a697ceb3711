"""``sesguard target``: finds and rewires the mail programs of this host."""

from collections.abc import Sequence

import click

from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _, translate_message
from sesguard.cli.progress import StepPrinter
from sesguard.deploy.interface import Check, Target, TargetState
from sesguard.deploy.service import DEPLOYERS
from sesguard.errors import CheckFailed, UsageError

_NAME = click.argument("name", type=click.Choice(list(DEPLOYERS)), default="exim")


@click.group(
    name="target", help=_("Rewire the mail programs of this host to ask for the credential.")
)
def command() -> None:
    """Group of the commands below."""


@command.command(name="list", help=_("Show the mail programs and what state they are in."))
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def list_targets(app: App, as_json: bool) -> None:
    """Print every target."""
    service = app.targets()
    targets = service.targets()
    if as_json:
        app.output.print_json({"version": 1, "targets": [_target_json(t) for t in targets]})
        return
    app.output.table(
        [_("TARGET"), _("STATE"), _("LAYOUT"), _("CONFIGURATION")],
        [[t.name, state_words(t.state), t.layout, t.config] for t in targets],
    )
    for target in targets:
        if service.interrupted(target.name):
            app.output.warn(
                _("a change of {name} was interrupted; run: sesguard target apply {name}").format(
                    name=target.name
                )
            )


@command.command(help=_("Show what apply would do, with every secret masked. Changes nothing."))
@_NAME
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def plan(app: App, name: str, as_json: bool) -> None:
    """Print steps and diff."""
    found = app.targets().plan(name)
    titles = [translate_message(step.title()) for step in found.steps]
    if as_json:
        app.output.print_json(
            {"version": 1, "target": name, "steps": titles, "diff": _printable(found.diff)}
        )
        return
    if not titles:
        app.output.ok(_("nothing to do: {name} asks sesguard already").format(name=name))
        return
    for number, title in enumerate(titles, 1):
        app.output.data(f"{number:2}. {title}")
    app.output.data("")
    app.output.data(_printable(found.diff).rstrip("\n"))


@command.command(help=_("Take the credential out of a mail program's files, with undo."))
@_NAME
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@pass_app
def apply(app: App, name: str, yes: bool) -> None:
    """Carry the plan out."""
    service = app.targets()
    if not service.interrupted(name):
        found = service.plan(name)
        if found.steps:
            question = _("Carry out {count} steps (see: sesguard target plan {name})?")
            app.output.confirm(question.format(count=len(found.steps), name=name), assume_yes=yes)
    if service.apply(name, StepPrinter(app)):
        app.output.ok(_("{name} now asks sesguard for its credential").format(name=name))
        app.output.note(_("To put everything back: sesguard target undo {name}").format(name=name))
    else:
        app.output.ok(_("nothing to do: {name} asks sesguard already").format(name=name))


@command.command(help=_("Look whether an applied target works and no plaintext is left."))
@_NAME
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@pass_app
def verify(app: App, name: str, as_json: bool) -> None:
    """Print every check; a failed one is exit 1."""
    checks = app.targets().verify(name)
    failed = [check for check in checks if not check.ok]
    if as_json:
        app.output.print_json(
            {"version": 1, "target": name, "ok": not failed, "checks": _checks_json(checks)}
        )
    else:
        for check in checks:
            text = translate_message(check.message)
            app.output.data(f"{_('ok') if check.ok else _('FAILED')}: {text}")
    if failed:
        raise CheckFailed(
            "{count} of {total} checks of {target} failed",
            hint="run: sesguard target apply {target}",
            count=len(failed),
            total=len(checks),
            target=name,
        )


@command.command(help=_("Put back every byte that apply changed."))
@_NAME
@click.option("--force", is_flag=True, help=_("Also where a later change would be lost."))
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@pass_app
def undo(app: App, name: str, force: bool, yes: bool) -> None:
    """Undo all that is in effect."""
    question = _("Put the plaintext credential back into the files of {name}?")
    app.output.confirm(question.format(name=name), assume_yes=yes)
    if app.targets().undo(name, StepPrinter(app), force=force):
        app.output.ok(_("{name} is as it was before").format(name=name))
    else:
        raise UsageError("there is nothing to undo for {target}", target=name)


def state_words(state: TargetState) -> str:
    """A target's state, for people."""
    match state:
        case TargetState.ABSENT:
            return _("not installed")
        case TargetState.PLAINTEXT:
            return _("holds the credential in plaintext")
        case TargetState.APPLIED:
            return _("asks sesguard")
        case TargetState.UNRELATED:
            return _("does not send through SES")


def _target_json(target: Target) -> dict[str, str]:
    return {
        "name": target.name,
        "state": target.state.value,
        "layout": target.layout,
        "config": target.config,
    }


def _checks_json(checks: Sequence[Check]) -> list[dict[str, object]]:
    return [{"ok": check.ok, "text": str(check.message)} for check in checks]


def _printable(text: str) -> str:
    """Bytes of the file that are no UTF-8, shown escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

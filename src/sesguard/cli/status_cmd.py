"""
``sesguard status``: the state at a glance.

The screen is a list of sections, each made by one function of `SECTIONS`; another part of sesguard
joins by adding its own. A section never raises: what is wrong is its `problem`, and one problem
anywhere makes the exit code 1. docs/reference/commands.md describes the JSON.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from sesguard.cli.context import App, pass_app
from sesguard.cli.credential_view import COLUMNS, describe, known_credentials, table_row
from sesguard.cli.i18n import _, translate
from sesguard.cli.rotate_cmd import require_on_time
from sesguard.cli.rotation_view import status_json
from sesguard.cli.target_cmd import state_words
from sesguard.core.credential import Credential
from sesguard.daemon.sockets import CONTROL, socket_path
from sesguard.deploy.interface import Target, TargetState
from sesguard.deploy.service import TargetService
from sesguard.errors import CheckFailed, Error, SystemFault
from sesguard.system.sockets import ask, ask_json

JSON_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the screen and of the JSON object."""

    key: str
    """Member of the JSON object."""
    data: object
    """Its value, without a secret."""
    summary: str = ""
    """What the screen says in one line."""
    columns: Sequence[str] = ()
    """Head of the table under the line, if there is one."""
    rows: Sequence[Sequence[str]] = ()
    problem: Error | None = None
    """What is wrong, if anything."""


SectionMaker = Callable[[App], Section]


def vault_section(app: App) -> Section:
    """Whether the vault opens, and which generation it is of."""
    directory = app.settings.vault.directory
    data: dict[str, object] = {"directory": str(directory), "generation": None, "problem": None}
    try:
        generation = app.vault().read().generation
    except Error as error:
        return Section("vault", {**data, "problem": str(error)}, problem=error)
    summary = _("vault: in order, generation {generation}, in {directory}")
    return Section(
        "vault",
        {**data, "generation": generation},
        summary.format(generation=generation, directory=directory),
    )


def credentials_section(app: App) -> Section:
    """Every credential; of a vault that does not open, the vault's section says why."""
    in_vault: Mapping[str, Credential] = {}
    with contextlib.suppress(Error):
        in_vault = app.vault().read_last_good().credentials
    data = [describe(each) for each in known_credentials(app.settings, in_vault)]
    return Section(
        "credentials",
        data,
        _("credentials: {count}").format(count=len(data)),
        COLUMNS,
        [table_row(each) for each in data],
    )


def rotation_section(app: App) -> Section:
    """When each credential is due, and whether a rotation was cut short."""
    data: list[dict[str, object]] = []
    try:
        service = app.rotation()
        found = [service.status(name) for name in app.settings.credentials]
        data = [status_json(each) for each in found]
        for each in found:
            require_on_time(each)
    except Error as error:
        return Section("rotation", data, problem=error)
    dates = [
        f"{each.credential_id} {each.schedule.due_at.date().isoformat()}"
        for each in found
        if each.schedule is not None
    ]
    text = _("rotation: next due {dates}")
    return Section("rotation", data, text.format(dates=", ".join(dates) or "-"))


def daemon_section(app: App) -> Section:
    """What the daemon says of itself."""
    path = socket_path(app.settings.daemon.runtime_directory, CONTROL)
    try:
        answer = ask_json(path, b"status\n")
    except SystemFault as error:
        return Section("daemon", {"running": False, "problem": str(error)}, problem=error)
    vault = answer.get("vault") or {}
    summary = _("daemon: running, pid {pid}, vault generation {generation}, {count} look-ups")
    return Section(
        "daemon",
        {"running": True, **answer},
        summary.format(
            pid=answer.get("pid"),
            generation=vault.get("generation"),
            count=sum((answer.get("lookups") or {}).values()),
        ),
        problem=_daemon_problem(vault.get("problem"), answer.get("relay") or {}),
    )


def _daemon_problem(vault: str | None, relay: Mapping[str, Any]) -> Error | None:
    if vault is not None:
        return SystemFault(
            "the daemon works with an older vault: {reason}",
            hint="run: sesguard credential check",
            reason=vault,
        )
    missing = relay.get("not_listening")
    if missing:
        return SystemFault(
            "the relay cannot listen on {addresses}",
            hint="stop what listens there (ss -ltnp shows it); the daemon tries again by itself",
            addresses=", ".join(missing),
        )
    return None


def targets_section(app: App) -> Section:
    """What the mail programs of this host do about the credential."""
    data: list[dict[str, object]] = []
    try:
        service = app.targets()
        targets = [each for each in service.targets() if each.state is not TargetState.ABSENT]
        data = [{"name": each.name, "state": each.state.value} for each in targets]
        problem = next((bad for each in targets if (bad := _target_problem(service, each))), None)
    except Error as error:
        return Section("targets", data, problem=error)
    states = ", ".join(f"{each.name} {state_words(each.state)}" for each in targets)
    return Section(
        "targets", data, _("targets: {states}").format(states=states or "-"), (), (), problem
    )


def _target_problem(service: TargetService, target: Target) -> Error | None:
    if service.interrupted(target.name):
        return CheckFailed(
            "a change of {target} was interrupted",
            hint="run: sesguard target apply {target}",
            target=target.name,
        )
    if target.state is TargetState.PLAINTEXT:
        return CheckFailed(
            "{target} holds the credential in plaintext",
            hint="run: sesguard target apply {target}",
            target=target.name,
        )
    return None


SECTIONS: Final[list[SectionMaker]] = [
    vault_section,
    credentials_section,
    rotation_section,
    targets_section,
    daemon_section,
]
"""The screen, from top to bottom."""


@click.command(help=_("Show the state of vault, credentials, mail programs and daemon."))
@click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
@click.option(
    "--prometheus", is_flag=True, help=_("Write the relay's metrics for Prometheus, nothing else.")
)
@pass_app
def command(app: App, as_json: bool, prometheus: bool) -> None:
    """Print every section; a problem in any is exit 1."""
    if prometheus:
        path = socket_path(app.settings.daemon.runtime_directory, CONTROL)
        app.output.data(ask(path, b"metrics\n").decode().rstrip("\n"))
        return
    sections = [make(app) for make in SECTIONS]
    problems = [section.problem for section in sections if section.problem is not None]
    if as_json:
        parts = {section.key: section.data for section in sections}
        app.output.print_json({"version": JSON_VERSION, "ok": not problems, **parts})
    else:
        for section in sections:
            _show(app, section)
    if problems:
        first = next((each for each in problems if each.hint_template), problems[0])
        raise CheckFailed(
            "{problem_count} of {part_count} parts report a problem",
            hint=first.hint_template,
            **first.parameters,
            problem_count=len(problems),
            part_count=len(sections),
        )


def _show(app: App, section: Section) -> None:
    if section.problem is not None:
        text = translate(section.problem).text
        app.output.data(f"{section.key}: {_('problem:')} {text}")
    else:
        app.output.data(section.summary)
    if section.rows:
        app.output.table(section.columns, section.rows)

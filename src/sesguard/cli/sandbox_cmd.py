"""
``sesguard sandbox``: an AWS and SES of one's own, to try things out.

``up`` starts it in the background and prints the environment that leads AWS clients and sesguard to
it, for ``eval "$(sesguard sandbox up)"``; run again, it prints the same for the sandbox that runs.
``status``, ``inbox`` and ``down`` find it by the state file in its directory.

Exit codes: 0; 1 from ``status`` when no sandbox runs; 4 when it cannot be started or reached.
"""

import logging
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from sesguard.cli import params
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _
from sesguard.errors import SandboxError
from sesguard.sandbox.model import DEFAULT_REGION, ReceivedMessage, SandboxInfo, to_builtins
from sesguard.sandbox.process import (
    Sandbox,
    default_directory,
    ensure_sandbox,
    find_sandbox,
    prepare_directory,
    require_libraries,
    stop_sandbox,
)

JSON_VERSION = 1

_directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar=_("DIRECTORY"),
    help=_("Directory of its state. Default: one of your own under the runtime directory."),
)
_json_option = click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))


@click.group(
    name="sandbox", help=_("Run an AWS and SES of your own, without an account or network.")
)
def command() -> None:
    """Group of the sandbox commands."""


@command.command(help=_("Start it, and print the environment to export."))
@click.option("--foreground", is_flag=True, help=_("Stay in the foreground until Ctrl-C."))
@click.option(
    "--region",
    type=params.region,
    default=DEFAULT_REGION,
    show_default=True,
    metavar=_("REGION"),
    help=_("AWS region of its SMTP endpoint."),
)
@_json_option
@_directory_option
@pass_app
def up(app: App, foreground: bool, region: str, as_json: bool, directory: Path | None) -> None:
    """Start the sandbox, or show the one that runs."""
    where = directory or default_directory()
    if foreground:
        _serve(app, where, region, as_json)
    else:
        _show_environment(app, ensure_sandbox(where, region=region), as_json)


@command.command(help=_("Say whether it runs, where, and with which settings."))
@_json_option
@_directory_option
@pass_app
def status(app: App, as_json: bool, directory: Path | None) -> int:
    """Show the state; exit code 1 when no sandbox runs."""
    sandbox = find_sandbox(directory or default_directory())
    if as_json:
        app.output.print_json(_status_document(sandbox))
    elif sandbox is None:
        app.output.note(_("no sandbox is running"))
    else:
        app.output.table((_("NAME"), _("VALUE")), _status_rows(sandbox))
    return 0 if sandbox is not None else 1


@command.command(help=_("Show the messages that arrived."))
@_json_option
@click.option("--raw", "message_id", metavar="ID", help=_("Write one message, as it is."))
@_directory_option
@pass_app
def inbox(app: App, as_json: bool, message_id: str | None, directory: Path | None) -> None:
    """List the inbox, or write one message to standard output."""
    client = _require_sandbox(directory).client
    if message_id is not None:
        click.echo(client.raw_message(message_id), nl=False)
        return
    messages = client.inbox()
    if as_json:
        app.output.print_json({"version": JSON_VERSION, "messages": to_builtins(messages)})
        return
    columns = (_("RECEIVED"), _("ID"), _("SOURCE"), _("USER"), _("FROM"), _("TO"), _("SUBJECT"))
    app.output.table(columns, map(_message_row, messages))


@command.command(help=_("Stop it. Its mail and its AWS account are gone with it."))
@_directory_option
@pass_app
def down(app: App, directory: Path | None) -> None:
    """Stop the sandbox; none running is fine."""
    sandbox = find_sandbox(directory or default_directory())
    if sandbox is None:
        app.output.note(_("no sandbox is running"))
        return
    stop_sandbox(sandbox)
    app.output.ok(_("the sandbox has stopped"))


def _require_sandbox(directory: Path | None) -> Sandbox:
    sandbox = find_sandbox(directory or default_directory())
    if sandbox is None:
        raise SandboxError("no sandbox is running", hint="run: sesguard sandbox up")
    return sandbox


def _serve(app: App, directory: Path, region: str, as_json: bool) -> None:
    require_libraries()
    prepare_directory(directory)
    if find_sandbox(directory) is not None:
        raise SandboxError("a sandbox is running already", hint="run: sesguard sandbox down")
    # This import brings moto in, which takes half a second.
    from sesguard.sandbox.service import (  # noqa: PLC0415
        Options,
        serve,
        set_up_logging,
    )

    def ready(info: SandboxInfo) -> None:
        _show_environment(app, Sandbox(info), as_json)
        app.output.note(_("the sandbox runs until Ctrl-C"))

    set_up_logging(logging.StreamHandler())
    serve(Options(directory, region), ready=ready)


def _show_environment(app: App, sandbox: Sandbox, as_json: bool) -> None:
    environment = sandbox.environment()
    if as_json:
        document: dict[str, Any] = {"version": JSON_VERSION, "environment": environment}
        app.output.print_json(document | {"sandbox": to_builtins(sandbox.info)})
        return
    for name, value in environment.items():
        app.output.data(f"export {name}={shlex.quote(value)}")


def _status_document(sandbox: Sandbox | None) -> dict[str, Any]:
    document: dict[str, Any] = {"version": JSON_VERSION, "running": sandbox is not None}
    if sandbox is not None:
        document["sandbox"] = to_builtins(sandbox.info)
        document["status"] = to_builtins(sandbox.client.status())
    return document


def _status_rows(sandbox: Sandbox) -> list[tuple[str, str]]:
    info, state = sandbox.info, sandbox.client.status()
    return [
        (_("AWS endpoint"), info.endpoint_url),
        (_("SMTP with STARTTLS"), f"{info.smtp_host}:{info.starttls_port}"),
        (_("SMTP with TLS"), f"{info.smtp_host}:{info.tls_port}"),
        (_("CA certificate"), str(info.ca_file)),
        (_("process"), str(info.pid)),
        (_("region"), state.settings.region),
        (_("sending"), _("enabled") if state.sending_enabled else _("paused")),
        (_("TLS mode"), state.tls_mode.value),
        (_("faults"), str(len(state.faults) + len(state.api_faults))),
        (_("messages"), str(state.messages)),
    ]


def _message_row(message: ReceivedMessage) -> tuple[str, ...]:
    return (
        _local_time(message.received_at),
        message.id,
        message.source_address,
        message.user_name,
        message.header("From") or "",
        ", ".join(message.recipients),
        message.header("Subject") or "",
    )


def _local_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""
The entry point: global options, the table of commands, and the one exception handler.

Errors read ``sesguard: what failed`` and then at most one ``hint:`` line, on standard error. Exit
codes are those of `sesguard.errors`; 130 after Ctrl-C. An exception that is not ours is a bug: only
its type is shown, because its text may hold what must not be shown; ``--debug`` shows all of it.

A command's module is imported when the command is used or listed, so that a plain ``sesguard send``
does not pay for the libraries of ``sesguard sandbox``.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import click

from sesguard import __version__
from sesguard.cli.context import App
from sesguard.cli.i18n import _, translate
from sesguard.errors import Error, UsageError
from sesguard.system.privileges import forbid_core_dumps

COMMANDS: Final = {
    "demo": "sesguard.cli.demo_cmd",
    "sandbox": "sesguard.cli.sandbox_cmd",
    "init": "sesguard.cli.init_cmd",
    "credential": "sesguard.cli.credential_cmd",
    "target": "sesguard.cli.target_cmd",
    "app": "sesguard.cli.app_cmd",
    "queue": "sesguard.cli.queue_cmd",
    "daemon": "sesguard.cli.daemon_cmd",
    "send": "sesguard.cli.send_cmd",
    "rotate": "sesguard.cli.rotate_cmd",
    "panic": "sesguard.cli.panic_cmd",
    "status": "sesguard.cli.status_cmd",
}
"""Command to the module that exports it as ``command``."""

EXIT_UNEXPECTED: Final = 4
EXIT_INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group whose commands are imported on first use, listed in the order of `COMMANDS`."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every command's name, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name, or give None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        _translate_placeholders(command)
        return command


def _translate_placeholders(command: click.Command) -> None:
    """Put the words of click that it does not translate itself into the user's language."""
    command.options_metavar = _("[OPTIONS]")
    for parameter in command.params:
        if isinstance(parameter.type, click.IntRange) and parameter.metavar is None:
            parameter.metavar = _("NUMBER")
    if isinstance(command, click.Group):
        command.subcommand_metavar = _("COMMAND [ARGS]...")
        for each in command.commands.values():
            _translate_placeholders(each)


@click.group(
    cls=LazyGroup,
    name="sesguard",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    options_metavar=_("[OPTIONS]"),
    subcommand_metavar=_("COMMAND [ARGS]..."),
    help=_("Keeps the Amazon SES SMTP credential of a mail host out of every file."),
    epilog=_(
        "Exit codes: 0 done; 1 negative result; 2 usage or settings; 3 rolled back; "
        "4 a person must act; 75 try again later."
    ),
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar=_("FILE"),
    help=_("Settings file (or SESGUARD_CONFIG). Default: /etc/sesguard/sesguard.toml"),
)
@click.option("--no-color", is_flag=True, help=_("No colours (or set NO_COLOR)."))
@click.option("--debug", is_flag=True, help=_("Show the traceback of an error."))
@click.version_option(__version__, prog_name="sesguard", help=_("Show the version and exit."))
@click.pass_obj
def sesguard(app: App, config: Path | None, no_color: bool, debug: bool) -> None:
    """Take the global options over; click then calls the command."""
    app.configure(config=config, debug=debug, color=not no_color)


def run() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a letter shows it escaped instead of failing.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    forbid_core_dumps()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code; every exception ends here."""
    app = App()
    try:
        code = sesguard.main(
            args=list(arguments), prog_name="sesguard", standalone_mode=False, obj=app
        )
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output went away. Python flushes once more at exit: let that succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (click.Abort, KeyboardInterrupt):
        app.output.error(_("interrupted"))
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _report(app, _as_ours(error))
    except Error as error:
        return _report(app, error)
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        return _report_unexpected(app, error)
    return code if isinstance(code, int) else 0


def _report(app: App, error: Error) -> int:
    _show_traceback(app, error)
    message = translate(error)
    app.output.error(message.text, message.hint)
    return error.exit_code


def _report_unexpected(app: App, error: Exception) -> int:
    _show_traceback(app, error)
    app.output.error(
        _("unexpected error: {type}").format(type=type(error).__name__),
        None if app.debug else _("run it again with --debug and report what it shows"),
    )
    return EXIT_UNEXPECTED


def _show_traceback(app: App, error: Exception) -> None:
    if app.debug:
        app.output.note("".join(traceback.format_exception(error)).rstrip())


def _as_ours(error: click.ClickException) -> UsageError:
    """Give click's own complaint the form of ours; click has translated it already."""
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sesguard"
    return UsageError(
        "{text}",
        hint="run: {command} --help",
        text=text[:1].lower() + text[1:],
        command=path,
    )

"""
The one place that writes to the terminal.

Promises: data goes to standard output and everything else to standard error; nothing depends on
colour (NO_COLOR and ``--no-color`` turn it off, and so does a pipe); text from outside is never
read as Rich markup, and control characters in it are shown escaped, so that a reply of a server or
the name of a file cannot drive the terminal; a question is asked on a terminal only.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sesguard.cli.i18n import _
from sesguard.core.secret import Secret
from sesguard.errors import UsageError

_PIPE_WIDTH: Final = 10_000
"""Columns of a table that nobody looks at: a cell is never cut or wrapped in a pipe."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Output:
    """Writes messages, tables and JSON; asks questions."""

    def __init__(self, *, color: bool = True) -> None:
        self.stdout: Final = _console(stderr=False, color=color)
        """For data."""
        self.stderr: Final = _console(stderr=True, color=color)
        """For messages."""

    def step(self, text: str) -> None:
        """Say what is being done."""
        self._message("→ ", "-> ", "bold", text)

    def ok(self, text: str) -> None:
        """Say what was done."""
        self._message("✓ ", "ok: ", "green", text)

    def note(self, text: str) -> None:
        """Say something beside the point, without a mark."""
        self._message("", "", "", text)

    def warn(self, text: str) -> None:
        """Say what the user should look at, and what to do about it."""
        self._message("", "", "yellow", f"sesguard: {_('warning:')} {text}")

    def error(self, text: str, hint: str | None = None) -> None:
        """Say what failed, and in a second line what to do."""
        self._message("", "", "red", f"sesguard: {text}")
        if hint is not None:
            self._message("", "", "", f"{_('hint:')} {hint}")

    def heading(self, text: str) -> None:
        """Write the heading of a part of a story to standard output."""
        self.stdout.print()
        self.stdout.print(Text(visible(text), style="bold cyan"), soft_wrap=True)

    def story(self, text: str) -> None:
        """Write one line of a story to standard output; a command line stands out."""
        mark = text.lstrip()[:2]
        style = {"$ ": "bold", "+ ": "green", "- ": "red", "✓ ": "green"}.get(mark, "")
        self.stdout.print(Text("   " + visible(text), style=style), soft_wrap=True)

    def data(self, text: str) -> None:
        """Write one line of data to standard output, as it is."""
        self.stdout.out(text, highlight=False)

    def print_json(self, value: object) -> None:
        """Write one JSON document to standard output, in ASCII where it is not UTF."""
        ascii_only = not self.stdout.encoding.startswith("utf")
        self.data(json.dumps(value, indent=2, ensure_ascii=ascii_only))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table without lines to standard output."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        self.stdout.print(table)

    def confirm(self, question: str, *, assume_yes: bool) -> None:
        """
        Go on only after a yes.

        Args:
            question: Ends in a question mark.
            assume_yes: The ``--yes`` option.

        Raises:
            UsageError: There is no terminal to ask on.
            click.Abort: The answer was no.
        """
        if assume_yes:
            return
        if not is_interactive():
            raise UsageError(
                "this asks for a confirmation, and standard input is not a terminal",
                hint="add --yes if that is what you want",
            )
        prompt = f"{visible(question)} {_('[y/N]')}"
        answer = click.prompt(prompt, default="", show_default=False, err=True)
        if answer.strip().lower() not in ("y", "yes", _("y"), _("yes")):
            raise click.Abort

    def ask(self, question: str, *, default: str | None = None) -> str:
        """Ask for a text on the terminal."""
        return str(click.prompt(visible(question), default=default, err=True))

    def ask_secret(self, question: str) -> Secret:
        """Read a secret: without echo on a terminal, else one line of standard input."""
        if is_interactive():
            return Secret(click.prompt(visible(question), hide_input=True, err=True))
        return Secret(sys.stdin.readline().rstrip("\r\n"))

    def _message(self, mark: str, plain_mark: str, style: str, text: str) -> None:
        mark = mark if self.stderr.encoding.startswith("utf") else plain_mark
        self.stderr.print(Text(mark + visible(text), style=style), soft_wrap=True)


def is_interactive() -> bool:
    """Whether there is a person at standard input."""
    return sys.stdin.isatty()


def visible(text: str) -> str:
    r"""Show control characters other than tab and newline as ``\x1b``."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _console(*, stderr: bool, color: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        no_color=None if color else True,
        highlight=False,
        emoji=False,
        markup=False,
        width=None if stream.isatty() else _PIPE_WIDTH,
    )

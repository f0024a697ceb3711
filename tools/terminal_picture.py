"""
Draw what a command prints in a terminal as an SVG picture.

    python tools/terminal_picture.py PICTURE --title TITLE -- COMMAND [ARGUMENT...]

The command runs in a pseudo-terminal of 100 columns, so that it prints as it does for a person,
colours and all. The picture stands alone: it names no font file and no host. Nothing is written
when the command fails; its output is shown and its exit code passed on.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS: Final = 100
ROWS: Final = 60

NOT_A_STYLE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
"""Control sequences other than those for colour and weight."""

THEME: Final = TerminalTheme(
    (24, 26, 31),
    (214, 217, 224),
    [
        (64, 68, 77),
        (240, 113, 120),
        (125, 200, 120),
        (229, 192, 106),
        (97, 175, 239),
        (198, 146, 233),
        (86, 199, 209),
        (214, 217, 224),
    ],
)

SVG: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and write the picture; the exit code is the command's."""
    parser = argparse.ArgumentParser(description="Draw what a command prints as an SVG picture.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--title", required=True, help="shown in the window's title bar")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(arguments)

    code, printed = run_in_terminal(options.command)
    if code != 0:
        sys.stderr.write(printed)
        return code
    prompt = " ".join([Path(options.command[0]).name, *options.command[1:]])
    picture = draw(f"\x1b[1m$ {prompt}\x1b[0m\n\n{printed.strip()}", options.title)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(picture, encoding="utf-8")
    return 0


def run_in_terminal(command: Sequence[str]) -> tuple[int, str]:
    """Run a command in a pseudo-terminal; give its exit code and all that it printed."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    hidden = {"COLUMNS", "LINES", "NO_COLOR"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
    )
    os.close(there)
    printed = read_to_end(here)
    return process.wait(), printed.decode(errors="replace").replace("\r\n", "\n")


def read_to_end(terminal: int) -> bytes:
    """Read a pseudo-terminal until the last process that writes to it is gone."""
    chunks = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError:
        # How Linux reports the end of a pseudo-terminal.
        pass
    finally:
        os.close(terminal)
    return b"".join(chunks)


def draw(printed: str, title: str) -> str:
    """Give the picture of a terminal's text as SVG."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(NOT_A_STYLE.sub("", printed)))
        return console.export_svg(title=title, theme=THEME, code_format=SVG, unique_id="terminal")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

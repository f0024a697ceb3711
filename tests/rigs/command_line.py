"""The outcome of a command line, what runs one, and a terminal to run one on."""

import contextlib
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Result:
    """What a run of the command line did."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    """Runs one command line."""

    def __call__(
        self,
        *arguments: str | Path,
        stdin: str = "",
        environment: dict[str, str] | None = None,
    ) -> Result:
        """
        Run it.

        Args:
            arguments: After the program's name.
            stdin: What it reads; no terminal.
            environment: Added to ours.
        """
        ...


def run_on_a_terminal(
    *arguments: str, answers: str = "", environment: dict[str, str] | None = None
) -> str:
    """
    Run the program with a terminal for its three streams.

    Args:
        arguments: After the program's name.
        answers: What a person types.
        environment: Added to ours.

    Returns:
        What the terminal shows.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sesguard", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(environment or {})},
        start_new_session=True,
    )
    os.close(slave)
    os.write(master, answers.encode())
    shown = b""
    # Reading ends with EIO when the last process has closed the terminal.
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    process.wait(60)
    return shown.decode()

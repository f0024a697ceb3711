"""The outcome of a command line, what runs one, and a terminal to run one on."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
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
    *arguments: str,
    dialogue: Sequence[tuple[str, str]] = (),
    environment: dict[str, str] | None = None,
    timeout_s: float = 60.0,
) -> str:
    """
    Run the program with a terminal for its three streams.

    Args:
        arguments: After the program's name.
        dialogue: What the terminal must show, and what a person types then.
        environment: Added to ours.
        timeout_s: The program is killed after this time.

    Returns:
        What the terminal showed.
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
    try:
        return _talk(master, list(dialogue), time.monotonic() + timeout_s)
    finally:
        os.close(master)
        process.kill()
        process.wait()


def _talk(terminal: int, dialogue: list[tuple[str, str]], deadline: float) -> str:
    shown = ""
    seen = 0
    while select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
        # Reading ends with EIO when the last process has closed the terminal.
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        shown += data.decode()
        if dialogue and dialogue[0][0] in shown[seen:]:
            seen = len(shown)
            os.write(terminal, dialogue.pop(0)[1].encode())
    assert not dialogue, f"the terminal never showed {dialogue[0][0]!r} after {shown!r}"
    return shown

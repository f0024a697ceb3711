"""The outcome of a command line, and what runs one."""

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

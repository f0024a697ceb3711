"""
The secret tripwire: searches everything a run wrote, logged, exported or put on a command line.

    with Tripwire([directory], secrets) as tripwire:
        ...
    assert tripwire.hits() == []

While the block runs, the environment and command line of every process are sampled all the time;
afterwards all files below the places are searched. Every form of `sesguard.core.encodings` counts.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret
from sesguard.system.search import Match, search_files, search_processes


class Tripwire:
    """
    Watches for some secrets.

    Args:
        places: Files and directories that the run writes to.
        secrets: The values, each with the user that goes with it.
    """

    def __init__(self, places: Sequence[Path], secrets: Iterable[tuple[Secret, str]]) -> None:
        self._places = places
        self._needles = {
            f"{username} {form}": value
            for secret, username in secrets
            for form, value in encoded_forms(secret, username).items()
        }
        self._seen: set[Match] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def hits(self) -> list[str]:
        """Where a secret was seen, with its form; an empty list is what one wants."""
        matches = {*self._seen, *search_files(self._places, self._needles)}
        return sorted(f"{match.place} ({match.form})" for match in matches)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._seen.update(search_processes(self._needles))
            self._stop.wait(0.01)

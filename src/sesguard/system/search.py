"""
Searching files and processes for known byte strings.

Used where the value is known: to find the copies that have to be wiped, and to prove that none is
left. Reads regular files only (no FIFO, no device, no symbolic link), each at most `max_bytes`, and
goes on when one cannot be read; what could not be read is reported, not passed over.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Match:
    """One place where a value was found."""

    place: str
    """Path, or ``/proc/PID/environ``."""
    form: str
    """Name of the encoded form; ``unreadable`` for a place that could not be searched."""


def walk_files(roots: Iterable[Path]) -> Iterator[Path]:
    """All regular files at or below `roots`; links are not followed, other devices not entered."""
    for root in roots:
        if root.is_symlink():
            continue
        if root.is_file():
            yield root
            continue
        for directory, _names, files in os.walk(root):
            for name in sorted(files):
                path = Path(directory, name)
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def search_files(roots: Iterable[Path], needles: Mapping[str, bytes]) -> list[Match]:
    """
    Find `needles` in files.

    Args:
        roots: Files and directories.
        needles: Name of the form to the bytes.
    """
    matches = []
    for path in walk_files(roots):
        matches += _search(str(path), needles)
    return matches


def search_processes(needles: Mapping[str, bytes]) -> list[Match]:
    """Find `needles` in the environment and command line of every process that can be read."""
    matches = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            for part in ("environ", "cmdline"):
                found = _search(f"/proc/{entry.name}/{part}", needles)
                matches += [match for match in found if match.form != "unreadable"]
    return matches


def _search(place: str, needles: Mapping[str, bytes]) -> list[Match]:
    try:
        with open(place, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES)
    except OSError:
        return [Match(place, "unreadable")]
    return [Match(place, form) for form, needle in needles.items() if needle in content]

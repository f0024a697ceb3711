"""
Searching files and processes for known byte strings.

Used where the value is known: to find the copies that have to be wiped, and to prove that none is
left. Reads regular files only (no FIFO, no device, no symbolic link) and goes on when one cannot be
read; what could not be read, or lies beyond the first `MAX_FILE_BYTES` of a file, is reported, not
passed over.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
_UNREADABLE: Final = "unreadable"


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
        yield from _walk(root, lambda _error: None)


def search_files(roots: Iterable[Path], needles: Mapping[str, bytes]) -> list[Match]:
    """
    Find `needles` in files.

    Args:
        roots: Files and directories.
        needles: Name of the form to the bytes.
    """
    matches: list[Match] = []

    def unreadable(error: OSError) -> None:
        matches.append(Match(str(error.filename), _UNREADABLE))

    for root in roots:
        for path in _walk(root, unreadable):
            matches += _search(str(path), needles)
    return matches


def search_processes(needles: Mapping[str, bytes]) -> list[Match]:
    """Find `needles` in the environment and command line of every process that can be read."""
    matches = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            for part in ("environ", "cmdline"):
                found = _search(f"/proc/{entry.name}/{part}", needles)
                matches += [match for match in found if match.form != _UNREADABLE]
    return matches


def _walk(root: Path, report: Callable[[OSError], object]) -> Iterator[Path]:
    """The regular files at or below `root`; `report` hears of what cannot be looked at."""
    status = _status(root, report)
    if status is None:
        return
    if stat.S_ISREG(status.st_mode):
        yield root
    if not stat.S_ISDIR(status.st_mode):
        return
    for directory, names, files in os.walk(root, onerror=report):
        names[:] = [name for name in sorted(names) if _on_device(status, directory, name, report)]
        for name in sorted(files):
            path = Path(directory, name)
            found = _status(path, report)
            if found is not None and stat.S_ISREG(found.st_mode):
                yield path


def _on_device(
    root: os.stat_result, directory: str, name: str, report: Callable[[OSError], object]
) -> bool:
    found = _status(Path(directory, name), report)
    return found is not None and found.st_dev == root.st_dev


def _status(path: Path, report: Callable[[OSError], object]) -> os.stat_result | None:
    """What is at `path`, or None; a place that is gone by now is not reported."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        report(error)
        return None


def _search(place: str, needles: Mapping[str, bytes]) -> list[Match]:
    try:
        # Not blocking: the file may have been replaced by a FIFO since it was looked at.
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError:
        return [Match(place, _UNREADABLE)]
    found = [Match(place, form) for form, needle in needles.items() if needle in content]
    return [*found, Match(place, _UNREADABLE)] if len(content) > MAX_FILE_BYTES else found

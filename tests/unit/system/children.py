"""
Runs a piece of a test in a forked child, for what cannot be taken back in the test's own process.

The child's coverage is saved where it may write it.
"""

import os
from collections.abc import Callable
from contextlib import suppress

NOBODY = 65534


def in_child(act: Callable[[], object]) -> str:
    """Run `act` in a child and give what it returned, as text; of an exception its name."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(act())
        except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        _save_coverage()
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(pid, 0)
    return text


def _save_coverage() -> None:
    with suppress(ImportError, OSError):
        from coverage import Coverage  # noqa: PLC0415 - only where coverage is measured

        measuring = Coverage.current()
        if measuring is not None:
            with suppress(Exception):
                measuring.save()

"""
Faults on demand: which fault strikes next at a stage of the SMTP dialogue.

The first fault of the list whose stage it is and whose count is not used up strikes. What it does
to the connection is the business of `sesguard.sandbox.dialogue`.
"""

import threading
from collections.abc import Iterable
from dataclasses import replace

from sesguard.sandbox.model import Fault, Stage


class Faults:
    """The faults that are set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: tuple[Fault, ...] = ()

    def set(self, faults: Iterable[Fault]) -> None:
        """Replace all faults."""
        with self._lock:
            self._faults = tuple(fault for fault in faults if fault.count != 0)

    def take(self, stage: Stage) -> Fault | None:
        """The fault that strikes now, or None; its count goes down."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.stage is stage:
                    self._faults = (
                        *self._faults[:index],
                        *_worn(fault),
                        *self._faults[index + 1 :],
                    )
                    return fault
        return None

    def list_faults(self) -> tuple[Fault, ...]:
        """The faults that are left, with the counts that are left."""
        with self._lock:
            return self._faults


def _worn(fault: Fault) -> tuple[Fault, ...]:
    if fault.count is None:
        return (fault,)
    return (replace(fault, count=fault.count - 1),) if fault.count > 1 else ()

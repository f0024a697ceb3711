"""
Faults on demand: which fault strikes next at a stage of the SMTP dialogue, or on a call of the API.

The first fault of the list that matches and whose count is not used up strikes. What it does is the
business of `sesguard.sandbox.dialogue` and `sesguard.sandbox.overlay`.
"""

import threading
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

from sesguard.sandbox.model import ApiFault, Fault, Stage

F = TypeVar("F", Fault, ApiFault)


class Faults:
    """The faults of the SMTP endpoint that are set."""

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


class ApiFaults:
    """The faults of the AWS API that are set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: tuple[ApiFault, ...] = ()

    def set(self, faults: Iterable[ApiFault]) -> None:
        """Replace all faults."""
        with self._lock:
            self._faults = tuple(fault for fault in faults if fault.count != 0)

    def take(self, action: str) -> ApiFault | None:
        """
        The fault that strikes a call of `action` now, or None; its count goes down.

        A fault that lets the call pass counts that too; one behind the fault that strikes does not.
        """
        struck: ApiFault | None = None
        left: list[ApiFault] = []
        with self._lock:
            for fault in self._faults:
                if struck is not None or not fnmatchcase(action, fault.operation):
                    left.append(fault)
                elif fault.after:
                    left.append(replace(fault, after=fault.after - 1))
                else:
                    struck = fault
                    left += _worn(fault)
            self._faults = tuple(left)
        return struck

    def list_faults(self) -> tuple[ApiFault, ...]:
        """The faults that are left, with the counts that are left."""
        with self._lock:
            return self._faults


def _worn(fault: F) -> tuple[F, ...]:
    if fault.count is None:
        return (fault,)
    return (replace(fault, count=fault.count - 1),) if fault.count > 1 else ()

"""
Everything the sandbox remembers beside moto, in one place that is handed to all its parts.

The SMTP endpoint (asyncio thread) and the HTTP side (a thread per request) share it: each part has
its own lock, and the settings are one frozen object that is replaced as a whole.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec

from sesguard.core.endpoints import require_region
from sesguard.sandbox import backends
from sesguard.sandbox.accounts import Accounts
from sesguard.sandbox.connections import ConnectionLog
from sesguard.sandbox.faults import ApiFaults, Faults
from sesguard.sandbox.inbox import Inbox
from sesguard.sandbox.model import SandboxSettings, SandboxStatus, TlsMode
from sesguard.sandbox.quota import Quota
from sesguard.sandbox.trail import Trail


class SandboxState:
    """The parts, and the switches that have no part of their own."""

    def __init__(
        self, settings: SandboxSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._initial = settings
        self._lock = threading.Lock()
        self._paused_regions: set[str] = set()
        self.settings = settings
        self.tls_mode = TlsMode.NORMAL
        self.accounts = Accounts(lambda: self.settings, clock)
        self.quota = Quota(lambda: self.settings, clock)
        self.faults = Faults()
        self.api_faults = ApiFaults()
        self.inbox = Inbox()
        self.connections = ConnectionLog()
        self.trail = Trail(clock)

    def change_settings(self, changes: dict[str, Any]) -> SandboxSettings:
        """
        Change some settings.

        Raises:
            msgspec.ValidationError: No such setting, or a value of the wrong type.
            CredentialError: The region has not the form of one.
        """
        with self._lock:
            merged = asdict(self.settings) | changes
            unknown = changes.keys() - SandboxSettings.__dataclass_fields__.keys()
            if unknown:
                raise msgspec.ValidationError(f"there is no setting {min(unknown)}")
            settings = msgspec.convert(merged, SandboxSettings)
            require_region(settings.region)
            self.settings = settings
        return settings

    def sending_enabled(self, region: str) -> bool:
        """Whether the account may send in `region`."""
        return region not in self._paused_regions

    def set_sending_enabled(self, region: str, enabled: bool) -> None:
        """Pause or resume the account in `region`."""
        with self._lock:
            if enabled:
                self._paused_regions.discard(region)
            else:
                self._paused_regions.add(region)

    def status(self) -> SandboxStatus:
        """The state at a glance."""
        return SandboxStatus(
            pid=os.getpid(),
            settings=self.settings,
            tls_mode=self.tls_mode,
            faults=self.faults.list_faults(),
            api_faults=self.api_faults.list_faults(),
            sending_enabled=self.sending_enabled(self.settings.region),
            messages=self.inbox.count(),
            messages_dropped=self.inbox.count_dropped(),
            connections=self.connections.count(),
        )

    def reset(self) -> None:
        """Be as at the start: no AWS resource, no message, no fault, the first settings."""
        backends.reset()
        with self._lock:
            self.settings = self._initial
            self.tls_mode = TlsMode.NORMAL
            self._paused_regions.clear()
        self.faults.set(())
        self.api_faults.set(())
        for part in (self.accounts, self.quota, self.inbox, self.connections, self.trail):
            part.clear()

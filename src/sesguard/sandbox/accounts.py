"""
Who an SMTP user is: the access keys of moto, with the delays of IAM.

IAM is eventually consistent. `Accounts` writes down when each key was made, deactivated, activated
and deleted, and lets a change take effect only after the delay that the settings give it; a deleted
key is remembered with its secret, because moto forgets it at once. `observe` brings the record up
to date: the overlay calls it after every IAM request, so the times are exact.

Only AUTH asks whether a key works: what SES does with a session that is already open when its key
is deactivated is not known, and the sandbox lets it go on, which is the worse case for us.

Known fault: changes of policies take effect at once.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import CredentialError
from sesguard.sandbox.backends import MotoKey, list_access_keys
from sesguard.sandbox.model import SandboxSettings


class KeyState(StrEnum):
    """What IAM says about a key."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"
    DELETED = "Deleted"


@dataclass(frozen=True, slots=True)
class Principal:
    """An IAM user, known by one of its keys."""

    user_name: str
    arn: str
    access_key_id: str


@dataclass(slots=True)
class _KeyRecord:
    principal: Principal
    secret_key: Secret
    history: list[tuple[float, KeyState]] = field(default_factory=list)

    def enter(self, state: KeyState, now: float) -> None:
        if not self.history or self.history[-1][1] is not state:
            self.history.append((now, state))


class Accounts:
    """The record of every access key that ever was."""

    def __init__(
        self,
        settings: Callable[[], SandboxSettings],
        clock: Callable[[], float],
        list_keys: Callable[[], Sequence[MotoKey]] = list_access_keys,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._list_keys = list_keys
        self._lock = threading.Lock()
        self._records: dict[str, _KeyRecord] = {}

    def observe(self) -> None:
        """Compare with moto and write down what changed, as having happened now."""
        now = self._clock()
        with self._lock:
            present = {key.access_key_id: key for key in self._list_keys()}
            for key in present.values():
                record = self._records.setdefault(key.access_key_id, _new_record(key))
                record.enter(KeyState.ACTIVE if key.active else KeyState.INACTIVE, now)
            for access_key_id in self._records.keys() - present.keys():
                self._records[access_key_id].enter(KeyState.DELETED, now)

    def authenticate(self, access_key_id: str, password: Secret) -> Principal | None:
        """The user whose working key gives `password` in the endpoint's region, or None."""
        self.observe()
        if not self.key_works(access_key_id):
            return None
        record = self._records[access_key_id]
        try:
            expected = derive_smtp_password(record.secret_key, self._settings().region)
        except CredentialError:
            return None
        return record.principal if expected == password else None

    def key_works(self, access_key_id: str) -> bool | None:
        """Whether AWS accepts that key at this moment; None when it never was a key of ours."""
        with self._lock:
            record = self._records.get(access_key_id)
            return None if record is None else self._effective(record) is KeyState.ACTIVE

    def find_principal(self, access_key_id: str) -> Principal | None:
        """The user that a key belongs or belonged to."""
        with self._lock:
            record = self._records.get(access_key_id)
            return None if record is None else record.principal

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._records.clear()

    def _effective(self, record: _KeyRecord) -> KeyState:
        """The last state whose delay is over; before the first of them the key does not exist."""
        settings, now = self._settings(), self._clock()
        effective = KeyState.DELETED
        for since, state in record.history:
            active = state is KeyState.ACTIVE
            delay = settings.new_key_delay_s if active else settings.retired_key_delay_s
            if since + delay <= now:
                effective = state
        return effective


def _new_record(key: MotoKey) -> _KeyRecord:
    return _KeyRecord(Principal(key.user_name, key.user_arn, key.access_key_id), key.secret_key)

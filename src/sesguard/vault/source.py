"""
Where the daemon gets credentials from: the vault, kept in memory.

Each call looks at the vault file with one stat(2) and reads it again when it was changed, so a new
version is served at once and without a restart.

Promises
    A vault that cannot be read does not stop the mail: what was read last is served on, and the
    problem is reported through `on_problem`, once for each state of the file. Reading is tried
    again when the file changes and every `RETRY_S` seconds.
    At a cold start a damaged current generation is reported, and the last good one is served.
    Within the life of the process the generation never goes back, and the vault is not exchanged
    for another one: a copy of the whole directory that was put back is noticed here.

Thread-safe. Raises the error of `Vault.read` where nothing was ever read.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sesguard.core.credential import Credential, CredentialVersion
from sesguard.errors import Error, SystemFault, VaultError, VaultRolledBack, VaultTampered
from sesguard.vault.generation import VaultContents
from sesguard.vault.reading import DAMAGE
from sesguard.vault.store import Stamp
from sesguard.vault.vault import Vault

RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _State:
    """What is known about the vault; replaced as a whole, so that it needs no lock to be read."""

    stamp: Stamp | None
    contents: VaultContents | None
    problem: Error | None
    retry_at: float
    """Time from which a problem is looked at again; without a problem, never."""


def ignore(_problem: Error) -> None:
    """Report a problem to nobody."""


class VaultCredentialSource:
    """
    The `sesguard.core.interfaces.CredentialSource` over a vault; see the module docstring.

    Args:
        vault: Where the credentials are.
        on_problem: Told of each problem once. It must not raise.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        vault: Vault,
        on_problem: Callable[[Error], None] = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault = vault
        self._on_problem = on_problem
        self._clock = clock
        self._reading = threading.Lock()
        self._state: _State | None = None

    @property
    def problem(self) -> Error | None:
        """Why the vault could not be read the last time, or None when it could."""
        return self._state.problem if self._state else None

    def current(self, credential_id: str) -> CredentialVersion:
        """
        The CURRENT version; see `CredentialSource.current`.

        Raises:
            CredentialError: There is no such credential, or it has no CURRENT version.
            VaultError: The vault cannot be read and never could.
            SystemFault: Likewise.
        """
        credential = self.contents().credentials.get(credential_id)
        return (credential or Credential(credential_id)).current()

    def contents(self) -> VaultContents:
        """
        The newest good contents.

        Raises:
            VaultError: The vault cannot be read and never could.
            SystemFault: Likewise.
        """
        state = self._state
        if state is None or self._is_stale(state):
            with self._reading:
                state = self._state
                if state is None or self._is_stale(state):
                    state = self._state = self._read(state)
        if state.contents is not None:
            return state.contents
        assert state.problem is not None
        # The same exception is raised many times; without this its traceback would grow each time.
        raise state.problem.with_traceback(None)

    def _is_stale(self, state: _State) -> bool:
        if state.stamp != self._vault.stamp:
            return True
        return state.problem is not None and self._clock() >= state.retry_at

    def _read(self, old: _State | None) -> _State:
        # The stamp is taken first: a file that is replaced meanwhile is read once more next time.
        stamp = self._vault.stamp
        known = old.contents if old else None
        try:
            found = self._vault.read()
            _require_successor(known, found)
        except (VaultError, SystemFault) as problem:
            if old is None or old.problem is None or old.stamp != stamp:
                self._on_problem(problem)
            contents = known or self._last_good(problem)
            return _State(stamp, contents, problem, self._clock() + RETRY_S)
        return _State(stamp, found, None, 0.0)

    def _last_good(self, problem: Error) -> VaultContents | None:
        if not isinstance(problem, DAMAGE):
            return None
        try:
            return self._vault.read_last_good()
        except (VaultError, SystemFault):
            return None


def _require_successor(known: VaultContents | None, found: VaultContents) -> None:
    if known is None:
        return
    if found.vault_id != known.vault_id:
        raise VaultTampered(
            "the vault was exchanged for another one",
            hint="restart sesguardd if that was intended",
        )
    if found.generation < known.generation:
        raise VaultRolledBack(
            "the vault is generation {generation}, older than the {lowest} that was in use already",
            hint="restart sesguardd if an older vault was put back on purpose",
            generation=found.generation,
            lowest=known.generation,
        )

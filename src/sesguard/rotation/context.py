"""What the steps of a rotation work on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sesguard.aws.iam import IamKeys
from sesguard.config.schema import CredentialSettings, RotationSettings
from sesguard.core.credential import Credential
from sesguard.core.message import Message
from sesguard.deploy.service import TargetService
from sesguard.system.connections import Connection
from sesguard.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock, and waiting."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """For what is written down. It may jump."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds, for everything that is measured. It does not jump."""
    sleep: Callable[[float], None] = time.sleep

    def timestamp(self) -> str:
        """The time now, RFC 3339."""
        return self.now().isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class RotationContext:
    """One credential, and everything that is asked or changed for it."""

    credential_id: str
    credential: CredentialSettings
    rotation: RotationSettings
    vault: Vault
    keys: IamKeys
    targets: TargetService
    control_socket: Path
    """Where sesguardd answers."""
    pace: Pace = field(default_factory=Pace)
    sightings: list[Message] = field(default_factory=list)
    """Where the old key was seen in use; filled by FINISH, told to the user at the end."""
    begun_before: list[frozenset[Connection]] = field(default_factory=list)
    """The SMTP sessions that were open when CURRENT changed; filled by DEPLOY."""

    def stored(self) -> Credential:
        """
        The credential as it is in the vault, without versions if it is not there.

        Raises:
            VaultError: The vault does not open.
        """
        return self.vault.read().credential(self.credential_id)

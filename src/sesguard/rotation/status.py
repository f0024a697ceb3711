"""How old the credentials are, when they are due, and what the last rotation came to."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sesguard.config.schema import RotationSettings
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.rotation.schedule import Schedule, schedule
from sesguard.workflow.journal import Run


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """One credential."""

    credential_id: str
    current: CredentialVersion | None
    schedule: Schedule | None
    """None while nothing is CURRENT."""
    replaced: tuple[CredentialVersion, ...]
    """Versions that were CURRENT before and whose keys are not deleted yet."""
    interrupted: Run | None
    """A run that a crash cut short."""
    last: Run | None
    held: bool
    """Whether mail waits, because the key leaked."""
    now: datetime

    @property
    def due(self) -> bool:
        """Whether ``rotate --if-due`` would rotate it."""
        return self.schedule is not None and self.schedule.is_due(self.now)

    @property
    def overdue(self) -> bool:
        """Whether it is older than the settings allow."""
        return self.schedule is not None and self.schedule.is_overdue(self.now)

    @property
    def age(self) -> timedelta | None:
        """How old the CURRENT version is."""
        return None if self.schedule is None else self.schedule.age(self.now)


def describe_rotation(
    credential: Credential,
    settings: RotationSettings,
    history: list[Run],
    *,
    seed: str,
    now: datetime,
) -> RotationStatus:
    """
    Put the state of one credential together.

    Args:
        credential: From the vault.
        settings: ``[rotation]``.
        history: Its runs, newest first.
        seed: See `sesguard.rotation.schedule.schedule`.
        now: UTC.
    """
    current = credential.labelled(StagingLabel.CURRENT)
    return RotationStatus(
        credential.credential_id,
        current,
        None
        if current is None
        else schedule(
            current,
            max_age_days=settings.max_age_days,
            jitter_days=settings.jitter_days,
            seed=f"{seed}/{credential.credential_id}",
        ),
        tuple(v for v in credential.versions if current and v.number < current.number),
        next((run for run in history if not run.state.finished), None),
        history[0] if history else None,
        credential.labelled(StagingLabel.HELD) is not None,
        now,
    )

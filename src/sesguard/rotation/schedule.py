"""
When a credential is to be rotated.

A credential is due some days before it is overdue. How many differs from host to host (jitter), so
that a fleet does not ask IAM for a hundred keys in one minute; it is the same each time it is
asked for. A credential that lay in plaintext somewhere is due at once.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sesguard.core.credential import CredentialVersion


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the CURRENT version of a credential is to be replaced."""

    created_at: datetime
    due_at: datetime
    """From then on ``rotate --if-due`` replaces it."""
    overdue_at: datetime

    def age(self, now: datetime) -> timedelta:
        """How old it is; never negative, whatever the clock says."""
        return max(now - self.created_at, timedelta())

    def is_due(self, now: datetime) -> bool:
        """Whether it should be replaced now."""
        return now >= self.due_at

    def is_overdue(self, now: datetime) -> bool:
        """Whether it should have been replaced already."""
        return now >= self.overdue_at


def schedule(
    version: CredentialVersion, *, max_age_days: int, jitter_days: int, seed: str
) -> Schedule:
    """
    Work the dates out.

    Args:
        version: The CURRENT one.
        max_age_days: Older is overdue.
        jitter_days: It is due at most so much earlier.
        seed: What makes this host different from others, such as the id of its vault.
    """
    created_at = parse_time(version.created_at)
    overdue_at = created_at + timedelta(days=max_age_days)
    digest = hashlib.sha256(f"{seed}/{version.number}".encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    early = timedelta(days=min(jitter_days, max_age_days) * fraction)
    return Schedule(created_at, created_at if version.exposed else overdue_at - early, overdue_at)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time, in UTC; without an offset it is taken to be UTC."""
    parsed = datetime.fromisoformat(text)
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)

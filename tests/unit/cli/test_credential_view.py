"""How a credential is described."""

from datetime import UTC, datetime

import pytest

from sesguard.cli.credential_view import describe
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.secret import Secret

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def _created(at: str) -> Credential:
    version = CredentialVersion(1, "AKIAIOSFODNN7EXAMPLE", {"us-east-1": Secret("x")}, at, "issued")
    return Credential("ses", next_number=1).add_pending(version).promote()


@pytest.mark.parametrize(
    ("created_at", "days"),
    [
        ("2026-11-24T11:59:59Z", 0),
        ("2026-11-23T12:00:00Z", 1),
        ("2026-08-26T12:00:00+00:00", 90),
        ("2026-11-24", None),
        ("yesterday", None),
    ],
)
def test_age_in_days(created_at: str, days: int | None) -> None:
    """The age is in whole days; a time that cannot be read has none."""
    assert days == describe(_created(created_at), NOW)["age_days"]

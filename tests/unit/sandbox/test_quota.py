"""The sending quotas, over a clock of the test's own."""

from sesguard.sandbox.model import SandboxSettings
from sesguard.sandbox.quota import DAILY_EXCEEDED, RATE_EXCEEDED, Quota


class Account:
    """A quota whose time the test changes."""

    def __init__(self, *, rate: float = -1, daily: float = -1) -> None:
        self.now = 1000.0
        settings = SandboxSettings(max_send_rate=rate, max_24_hour_send=daily)
        self.quota = Quota(lambda: settings, lambda: self.now)


def test_the_rate_holds_for_a_second() -> None:
    """Beyond the rate there is a throttling failure, until a second has passed."""
    account = Account(rate=2)

    replies = [account.quota.take(1) for _ in range(3)]
    account.now += 1.0

    assert [None, None, RATE_EXCEEDED] == replies
    assert account.quota.take(1) is None


def test_recipients_are_counted() -> None:
    """A message to many uses the rate up, but is itself let through."""
    account = Account(rate=14)

    assert account.quota.take(50) is None
    assert RATE_EXCEEDED == account.quota.take(1)


def test_the_daily_quota_holds_for_24_hours() -> None:
    """The daily quota is never exceeded, not even by one message to many."""
    account = Account(daily=10)

    replies = [account.quota.take(8), account.quota.take(3), account.quota.take(2)]
    account.now += 24 * 3600

    assert [None, DAILY_EXCEEDED, None] == replies
    assert account.quota.sent_last_24_hours() == 0
    assert account.quota.take(3) is None


def test_what_is_refused_does_not_count() -> None:
    """A refused message leaves both counts as they were."""
    account = Account(rate=1)
    account.quota.take(1)
    account.quota.take(1)

    assert account.quota.sent_last_24_hours() == 1


def test_a_negative_quota_is_no_limit() -> None:
    """-1 means no limit, as in the API."""
    account = Account()

    assert [None] * 1000 == [account.quota.take(50) for _ in range(1000)]


def test_clearing_forgets_what_was_sent() -> None:
    """After a reset the quota is whole."""
    account = Account(daily=1)
    account.quota.take(1)
    account.quota.clear()

    assert account.quota.take(1) is None

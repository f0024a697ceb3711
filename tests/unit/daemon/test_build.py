"""Tests of `sesguard.daemon.build` and of the daemon's watchdog arithmetic."""

import os
from pathlib import Path

import pytest

from sesguard.config.load import parse_settings
from sesguard.config.schema import LookupSettings
from sesguard.core.routing import RoutingRule
from sesguard.daemon.build import allowed_users, limits_of, routing_rules
from sesguard.daemon.service import watchdog_interval_s
from sesguard.lookup.server import Limits

SETTINGS = b"""
[credentials.main]
regions = ["us-east-1", "eu-west-1"]
[credentials.shop]
regions = ["eu-west-1"]
host = "ses.internal"
port = 2465
sender_domains = ["shop.example"]
"""


def test_each_credential_of_the_settings_is_a_rule() -> None:
    """With the region's public host where none is set."""
    assert (
        RoutingRule(
            "main", "email-smtp.us-east-1.amazonaws.com", 587, ("us-east-1", "eu-west-1"), ()
        ),
        RoutingRule("shop", "ses.internal", 2465, ("eu-west-1",), ("shop.example",)),
    ) == routing_rules(parse_settings(SETTINGS, Path("/x")))


def test_users_that_do_not_exist_are_left_out() -> None:
    """The default names every distribution's Exim user."""
    users = allowed_users(LookupSettings(users=("no-such-user", "root", "0", "4294967294999")))

    assert ["root", "root"] == [user.name for user in users]


def test_limits_come_from_the_settings() -> None:
    """A protocol that is not enabled allows nobody."""
    lookup = LookupSettings(users=("root",), max_connections=7, timeout_s=1.5)

    assert Limits(frozenset({0}), 7, 1.5) == limits_of(lookup)
    assert frozenset() == limits_of(LookupSettings(users=("root",), enabled=False)).allowed_uids


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    environment: dict[str, str], expected: float | None
) -> None:
    """sd_watchdog_enabled(3)."""
    assert expected == watchdog_interval_s(environment)

"""Settings for all tests."""

import os

import pytest
from hypothesis import settings

# A busy machine must not fail a test, and a failing example must come again.
settings.register_profile("sesguard", deadline=None, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("sesguard"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "sesguard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take long, so that processes that share them end together."""
    items.sort(key=_allowed_s, reverse=True)


def _allowed_s(item: pytest.Item) -> float:
    limit = item.get_closest_marker("timeout")
    return 0.0 if limit is None else float(limit.args[0])

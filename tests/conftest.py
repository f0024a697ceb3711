"""Settings for all tests."""

import os

from hypothesis import settings

# A busy machine must not fail a test, and a failing example must come again.
settings.register_profile("sesguard", deadline=None, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("sesguard"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "sesguard")

"""The place that the steps of `rigs.workflow` work on."""

from pathlib import Path

import pytest

from rigs.workflow import NAMES, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three files with old values."""
    for name in NAMES:
        (tmp_path / name).write_text(f"old {name}")
    return Place(tmp_path)

"""docs/reference/sandbox.md is complete."""

from dataclasses import fields
from pathlib import Path

import pytest

from sesguard.sandbox.answers import _HANDLERS
from sesguard.sandbox.conditions import _COMPARISONS
from sesguard.sandbox.model import (
    ApiFault,
    ApiFaultKind,
    FaultKind,
    SandboxInfo,
    SandboxSettings,
    Stage,
    TlsMode,
)
from sesguard.sandbox.process import Sandbox

PAGE = (Path(__file__).parents[3] / "docs/reference/sandbox.md").read_text(encoding="utf-8")
ENVIRONMENT = Sandbox(SandboxInfo("http://x", "localhost", 1, 2, Path("ca"), 3, "r")).environment()


@pytest.mark.parametrize(
    "name",
    [
        *(setting.name for setting in fields(SandboxSettings)),
        *(kind.value for kind in FaultKind),
        *(part.name for part in fields(ApiFault)),
        *(kind.value for kind in ApiFaultKind),
        *(stage.value for stage in Stage),
        *(mode.value for mode in TlsMode),
        *(operation for _, operation in _HANDLERS),
        *_COMPARISONS,
        *ENVIRONMENT,
    ],
)
def test_the_page_names_everything(name: str) -> None:
    """Settings, faults, stages, TLS modes, operations, operators and variables are documented."""
    assert f"`{name}`" in PAGE

"""A rotation within the limits of packaging/systemd/sesguard-rotate.service, with a real Exim."""

import configparser
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.exim import needs_exim
from rigs.host import MailHost
from sesguard.sandbox.process import Sandbox
from sesguard.system.files import find_program

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "sesguard-rotate.service"

pytestmark = [pytest.mark.real, needs_exim]


def _limits() -> tuple[str, ...]:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    names = parser["Service"]["CapabilityBoundingSet"].split()
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in names)
    return (str(find_program("setpriv")), f"--bounding-set=-all,{kept}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up capabilities")
@pytest.mark.skipif(find_program("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("layout", ["monolithic", "debian"])
def test_the_timer_rotates_with_the_capabilities_of_its_unit(
    new_host: Callable[..., MailHost], sandbox: Sandbox, layout: str
) -> None:
    """CapabilityBoundingSet= leaves what a rotation and the check of its target need."""
    host = new_host(layout=layout)
    with host.daemon():
        host.apply()
        done = subprocess.run(
            [
                *(*_limits(), sys.executable, "-m", "sesguard"),
                *("--config", host.settings_path, "rotate", "--if-due"),
            ],
            env={**os.environ, **sandbox.environment()},
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert 0 == done.returncode, done.stderr
    assert "version 2" in done.stderr

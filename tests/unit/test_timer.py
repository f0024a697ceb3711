"""Tests of the units of the rotation timer: what they run, how often, and within which limits."""

import configparser
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from sesguard.cli.context import App
from sesguard.cli.main import sesguard
from sesguard.config.schema import Settings
from sesguard.system.files import find_program

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICE = "sesguard-rotate.service"
TIMER = "sesguard-rotate.timer"


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_timer_starts_the_service_every_day() -> None:
    """Also after a day on which the host was off, and not all hosts in the same minute."""
    timer = _unit(TIMER)

    assert Path(SERVICE).stem == Path(TIMER).stem
    assert "Unit" not in timer["Timer"]
    assert ("daily", "true", "2h") == (
        timer["Timer"]["OnCalendar"],
        timer["Timer"]["Persistent"],
        timer["Timer"]["RandomizedDelaySec"],
    )
    assert "timers.target" == timer["Install"]["WantedBy"]


def test_the_service_runs_a_command_that_exists() -> None:
    """With options that the program knows; the timer alone starts it."""
    unit = _unit(SERVICE)
    program, *arguments = unit["Service"]["ExecStart"].split()

    assert "oneshot" == unit["Service"]["Type"]
    assert "/usr/bin/sesguard" == program
    assert 0 == CliRunner().invoke(sesguard, [*arguments, "--help"], obj=App()).exit_code
    assert "--if-due" in arguments
    assert "Install" not in unit


def test_the_service_is_root_and_may_run_set_user_id_programs() -> None:
    """Exim starts itself again to deliver, which NoNewPrivileges= would break."""
    service = _unit(SERVICE)["Service"]

    assert {"User", "DynamicUser", "NoNewPrivileges"}.isdisjoint(service)
    assert {"CAP_SETUID", "CAP_SETGID"} <= set(service["CapabilityBoundingSet"].split())


def test_the_service_may_write_what_a_rotation_writes() -> None:
    """State, vault and sockets at their default places; the rest of the host is read-only."""
    service, settings = _unit(SERVICE)["Service"], Settings()
    writable = [Path(path) for path in service["ReadWritePaths"].split()]
    needed = [
        settings.state_directory,
        settings.vault.directory,
        settings.daemon.runtime_directory,
        settings.target.exim.debian_directory,
        settings.target.exim.cpanel_local_file,
    ]

    assert "strict" == service["ProtectSystem"]
    assert [] == [path for path in needed if not any(map(path.is_relative_to, writable))]


def test_the_service_reaches_aws_and_the_daemon() -> None:
    """TCP over both protocols, and the control socket."""
    service = _unit(SERVICE)["Service"]

    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= set(service["RestrictAddressFamilies"].split())
    assert {"IPAddressDeny", "PrivateNetwork"}.isdisjoint(service)


def test_the_metrics_are_an_example_only() -> None:
    """A host without a textfile collector has nothing to switch off."""
    text = (UNITS / SERVICE).read_text()
    (example,) = (line for line in text.splitlines() if "ExecStopPost=" in line)

    assert example.startswith("# ")
    assert "sesguard rotate status --prometheus" in example
    assert 0 == CliRunner().invoke(sesguard, ["rotate", "status", "--help"], obj=App()).exit_code


@pytest.mark.skipif(find_program("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_metrics_example(tmp_path: Path) -> None:
    """The commented lines are a drop-in that systemd understands."""
    for name in (SERVICE, TIMER):
        text = (UNITS / name).read_text().replace("/usr/bin/sesguard ", "/bin/true ")
        (tmp_path / name).write_text(text.replace("# ExecStopPost=", "ExecStopPost="))

    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / SERVICE, tmp_path / TIMER],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (checked.returncode, checked.stderr)

"""Tests of packaging/systemd: the units fit the daemon, and the daemon lives with their limits."""

import configparser
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rigs.daemon import running_daemon
from sesguard.config.schema import DaemonSettings, LookupSettings, RelaySettings, Settings
from sesguard.daemon.build import lookup_settings
from sesguard.daemon.relay import LONGEST_STOP_S
from sesguard.daemon.sockets import CONTROL, socket_path
from sesguard.system.files import find_program

UNITS = Path(__file__).parents[3] / "packaging" / "systemd"
RELAY_SOCKET = UNITS / "sesguardd-relay.socket"
SOCKETS = sorted(path for path in UNITS.glob("*.socket") if path != RELAY_SOCKET)
ROOM_S = 10
"""For closing the databases and the interpreter's end."""
EXIM_ANSWER = b"^AKIA0000000000000001^first-password"

REFUSE_EXECUTABLE_MEMORY = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    os.environ["MDWE"] = "unsupported"
os.execv(sys.argv[1], sys.argv[1:])
"""


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_service_does_not_name_a_user() -> None:
    """The daemon reads the key as root and then drops its rights by itself."""
    service = _unit("sesguardd.service")["Service"]

    assert "User" not in service
    assert ("notify", "0", "yes") == (
        service["Type"],
        service["LimitCORE"],
        service["NoNewPrivileges"],
    )


def test_the_service_outlasts_whatever_is_in_progress() -> None:
    """Requests and messages end beside each other, and time is left to write down the rest."""
    (lookup_s,) = (
        meta.le
        for meta in LookupSettings.__annotations__["timeout_s"].__metadata__
        if meta.le is not None
    )
    limit_s = int(_unit("sesguardd.service")["Service"]["TimeoutStopSec"])

    assert max(lookup_s, LONGEST_STOP_S) + ROOM_S <= limit_s


@pytest.mark.parametrize("path", SOCKETS, ids=lambda path: path.name)
def test_a_socket_unit_names_a_socket_of_the_daemon(path: Path) -> None:
    """By FileDescriptorName=, at the default place, and never open to everybody."""
    unit = _unit(path.name)["Socket"]
    name = unit["FileDescriptorName"]

    assert name in {*lookup_settings(Settings()), CONTROL}
    assert str(socket_path(DaemonSettings().runtime_directory, name)) == unit["ListenStream"]
    assert "0660" == unit["SocketMode"]
    assert "sesguardd.service" == unit["Service"]


def test_the_relay_unit_holds_the_addresses_of_the_settings() -> None:
    """Those of the default, so that the daemon takes them; and it never gives them up."""
    lines = RELAY_SOCKET.read_text().splitlines()
    held = [line.partition("=")[2] for line in lines if line.startswith("ListenStream=")]

    assert list(RelaySettings().listen) == held
    assert "Service=sesguardd.service" in lines
    assert "TriggerLimitIntervalSec=0" in lines
    assert not [line for line in lines if line.startswith(("ReusePort=", "Accept="))]


def test_the_service_has_few_capabilities() -> None:
    """To read, to give sockets away, to open a low port, to become another user."""
    bounds = _unit("sesguardd.service")["Service"]["CapabilityBoundingSet"]

    expected = "CHOWN DAC_READ_SEARCH NET_BIND_SERVICE SETGID SETUID"
    assert [f"CAP_{name}" for name in expected.split()] == bounds.split()


@pytest.mark.skipif(find_program("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """No unknown line, no wrong value."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/sesguard ", "/bin/true ")
        (tmp_path / unit.name).write_text(text)

    checked = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (checked.returncode, checked.stderr)


def test_the_daemon_lives_without_new_executable_memory(host: Any) -> None:
    """MemoryDenyWriteExecute=yes, by prctl(2) PR_SET_MDWE where the kernel has it."""
    wrapper = (sys.executable, "-c", REFUSE_EXECUTABLE_MEMORY)
    with running_daemon(host.settings_path, wrapper=wrapper) as daemon:
        assert daemon.ask("exim", b"plain main\n") == EXIM_ANSWER


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up capabilities")
@pytest.mark.skipif(find_program("setpriv") is None, reason="needs setpriv")
def test_the_daemon_lives_with_the_capabilities_of_its_unit(host: Any) -> None:
    """CapabilityBoundingSet= and NoNewPrivileges=; the sockets still get their group."""
    names = _unit("sesguardd.service")["Service"]["CapabilityBoundingSet"].split()
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in names)
    wrapper = (str(find_program("setpriv")), "--no-new-privs", f"--bounding-set=-all,{kept}")
    host.configure(exim=["nobody", "root"])

    with running_daemon(host.settings_path, wrapper=wrapper) as daemon:
        assert daemon.ask("exim", b"plain main\n") == EXIM_ANSWER
        assert daemon.socket_path("exim").stat().st_gid != 0

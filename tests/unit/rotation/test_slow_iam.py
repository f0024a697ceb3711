"""IAM as it is: a new key that SES does not take for half a minute, in real time."""

import time

from rigs.rotating_host import RotatingHost
from rigs.sandbox import SandboxRig
from sesguard.rotation.context import Pace

DELAY_S = 30.0


def test_a_key_that_is_not_valid_for_30_seconds_is_waited_for(
    host: RotatingHost, rig: SandboxRig
) -> None:
    """CURRENT changes only once the new key logs in, and nothing is left to resume."""
    host.write_settings("[rotation]\ngrace_hours = 24\n")
    old = host.current()
    rig.client.configure(new_key_delay_s=DELAY_S)
    began = time.monotonic()
    changed: list[float] = []

    def listener(_report: object) -> None:
        if not changed and host.current() != old:
            changed.append(time.monotonic() - began)

    host.rotation(Pace()).rotate("ses", listener)

    assert changed[0] >= DELAY_S
    assert host.logs_in()
    assert not host.resume()

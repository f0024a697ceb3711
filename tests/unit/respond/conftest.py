"""One sandbox for all tests of this directory, and hosts in it."""

from rigs.rotating_fixtures import host, new_host, rig, started_sandbox

__all__ = ["host", "new_host", "rig", "started_sandbox"]

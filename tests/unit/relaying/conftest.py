"""A sandbox, and hosts with a running relay in front of it."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rigs.relay_host import RunningRelay, StartRelay, relay_host
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.sandbox.seed import SeededKey


@pytest.fixture(scope="session")
def ses() -> Iterator[SandboxRig]:
    """One sandbox for all tests of this directory."""
    with tempfile.TemporaryDirectory() as directory, running_sandbox(Path(directory)) as rig:
        yield rig


@pytest.fixture(scope="session")
def ses_key(ses: SandboxRig) -> SeededKey:
    """A key that may send as example.com."""
    return ses.seed()


@pytest.fixture(scope="session")
def relays(ses: SandboxRig, ses_key: SeededKey) -> Iterator[StartRelay]:
    """Start relays that live to the end of the run; the same arguments give the same one."""
    known: dict[tuple[tuple[str, str], ...], RunningRelay] = {}
    with ExitStack() as stack:

        def start(**options: str) -> RunningRelay:
            key = tuple(sorted(options.items()))
            if key not in known:
                host = stack.enter_context(relay_host(ses, key=ses_key, **options))
                known[key] = RunningRelay(host, stack.enter_context(host.running()))
            return known[key]

        yield start


@pytest.fixture(autouse=True)
def _clean(ses: SandboxRig) -> Iterator[None]:
    ses.client.clear_faults()
    ses.client.clear_inbox()
    yield
    ses.client.clear_faults()

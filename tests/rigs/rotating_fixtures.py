"""Fixtures for the tests of rotation and of the response to a leak: a sandbox, hosts in it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.rotating_host import RotatingHost, make_rotating_host
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.sandbox.model import SandboxSettings


@pytest.fixture(scope="session")
def started_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """The process."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started_sandbox: SandboxRig) -> Iterator[SandboxRig]:
    """The process, without faults before and after."""
    yield started_sandbox
    started_sandbox.client.clear_faults()
    started_sandbox.client.clear_api_faults()
    usual = SandboxSettings()
    started_sandbox.client.configure(
        new_key_delay_s=usual.new_key_delay_s, retired_key_delay_s=usual.retired_key_delay_s
    )


@pytest.fixture
def new_host(tmp_path: Path, rig: SandboxRig) -> Callable[..., RotatingHost]:
    """Makes hosts; see `make_rotating_host`."""
    numbers = itertools.count(1)

    def make(**options: Any) -> RotatingHost:
        return make_rotating_host(tmp_path / f"host-{next(numbers)}", rig, **options)

    return make


@pytest.fixture
def host(new_host: Callable[..., RotatingHost]) -> RotatingHost:
    """One host."""
    return new_host()

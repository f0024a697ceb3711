"""One sandbox for all tests of this directory; each test finds it as at the start."""

from collections.abc import Iterator

import pytest

from rigs.sandbox import SandboxRig, running_sandbox


@pytest.fixture(scope="session")
def started_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """The process."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started_sandbox: SandboxRig) -> SandboxRig:
    """The process, reset."""
    started_sandbox.client.reset()
    return started_sandbox

"""One sandbox for all tests of this directory and hosts in it, and managed secrets in another."""

from collections.abc import Iterator

import pytest

from rigs.managed_secret import Managed, new_managed
from rigs.rotating_fixtures import host, new_host, rig, started_sandbox
from rigs.sandbox import SandboxRig, running_sandbox

__all__ = ["host", "new_host", "rig", "started_sandbox"]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """The process."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def managed(sandbox: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> Managed:
    """A user without a key, and no secret yet."""
    return new_managed(sandbox, monkeypatch)


@pytest.fixture
def two_keys(managed: Managed) -> Managed:
    """A secret that was rotated before: its current and its previous value have a key each."""
    managed.create(managed.value_of_new_key(), managed.value_of_new_key())
    return managed

"""One sandbox for all tests with real programs, reset between them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.host import DOMAIN, MailHost, make_host, public_directory
from sesguard.sandbox.process import Sandbox, running_sandbox
from sesguard.sandbox.seed import SeededKey, seed_account


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """A sandbox that lives as long as the tests."""
    with public_directory() as directory, running_sandbox(directory / "sandbox") as sandbox:
        # Exim's user reads the CA's certificate.
        (directory / "sandbox").chmod(0o711)
        yield sandbox


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Sandbox:
    """The sandbox, as good as new."""
    shared_sandbox.client.reset()
    return shared_sandbox


@pytest.fixture
def key(sandbox: Sandbox) -> SeededKey:
    """An IAM user with one access key, and a verified domain."""
    return seed_account(sandbox, domain=DOMAIN)


@pytest.fixture
def host_directory() -> Iterator[Path]:
    """A directory that Exim's user can enter."""
    with public_directory() as directory:
        yield directory


@pytest.fixture
def new_host(
    host_directory: Path, sandbox: Sandbox, key: SeededKey
) -> Iterator[Callable[..., MailHost]]:
    """Makes hosts; their Exim daemons are stopped at the end."""
    hosts: list[MailHost] = []

    def make(**options: Any) -> MailHost:
        host = make_host(host_directory / f"host-{len(hosts)}", sandbox, key, **options)
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        host.exim.stop()

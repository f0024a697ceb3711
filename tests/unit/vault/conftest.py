"""A key, an empty vault and a filled one, and AWS, for the tests of the vault."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.secret import Secret
from sesguard.testing.key_provider_suite import CONTEXT
from sesguard.vault.generation import VaultContents
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.vault import Vault

Change = Callable[[Credential], Credential]


@pytest.fixture(scope="session")
def rotate() -> Change:
    """A change that adds a version and makes it CURRENT."""

    def change(credential: Credential) -> Credential:
        number = credential.next_number
        version = CredentialVersion(
            number=number,
            username=f"AKIAIOSFODNN7EXAM{number:03}",
            passwords={
                "us-east-1": Secret(f"BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJb{number:04}"),
                "eu-west-1": Secret(f"BFZ4XaLfYhPrX9R3pLRRQ/Xjn9mUVeqsUH9SX8q1{number:04}"),
            },
            created_at="2026-01-31T12:00:00Z",
            origin="issued",
        )
        return credential.add_pending(version).promote()

    return change


@pytest.fixture
def keyfile(tmp_path: Path) -> KeyfileProvider:
    """A key provider with a new key."""
    return KeyfileProvider.create(tmp_path / "etc" / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, keyfile: KeyfileProvider) -> Vault:
    """A new, empty vault."""
    vault = Vault(tmp_path / "vault", keyfile)
    vault.create()
    return vault


@pytest.fixture
def filled(vault: Vault, rotate: Change) -> Vault:
    """Generation 4: `ses` with versions 1 to 2, `other` with version 1."""
    vault.update("ses", rotate)
    vault.update("other", rotate)
    vault.update("ses", rotate)
    return vault


@pytest.fixture
def known(filled: Vault) -> list[VaultContents]:
    """The current and the previous contents of `filled`, as long as it is in order."""
    current = filled.read()
    path = filled.directory / "vault"
    kept = path.read_bytes()
    path.write_bytes(b"")
    previous = filled.read_last_good()
    path.write_bytes(kept)
    assert (4, 3) == (current.generation, previous.generation)
    return [current, previous]


@pytest.fixture
def sibling(tmp_path: Path, filled: Vault, rotate: Change) -> Vault:
    """Another vault with the same key, as many generations and the same credential ids."""
    sibling = Vault(tmp_path / "sibling", filled.provider)
    sibling.create()
    sibling.update("ses", rotate)
    sibling.update("other", rotate)
    sibling.update("ses", rotate)
    return sibling


@pytest.fixture(scope="session")
def started_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """One process for all tests with AWS."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started_sandbox: SandboxRig) -> SandboxRig:
    """The process, reset."""
    started_sandbox.client.reset()
    return started_sandbox


@pytest.fixture
def wrapped(make: Callable[[], KeyProvider]) -> bytes:
    """A data key, wrapped under a vault key that was made for it by the module's `make`."""
    provider = make()
    provider.ensure_key()
    return provider.wrap(bytes(32), CONTEXT)

"""A token without keys, and providers that use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.softhsm import PIN, TOKEN, MakeProvider, SoftHsm
from sesguard.testing.key_provider_suite import CONTEXT
from sesguard.vault.providers.pkcs11 import Pkcs11Provider
from sesguard.vault.providers.unlocking import Unlocking


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[SoftHsm]:
    """A token without keys."""
    hsm = SoftHsm(tmp_path / "hsm")
    with hsm.in_use():
        hsm.add_token(TOKEN)
        yield hsm


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the wrapped vault key lies."""
    return tmp_path / "vault-key.pkcs11"


@pytest.fixture
def make(hsm: SoftHsm, path: Path, tmp_path: Path) -> MakeProvider:
    """Makes providers, with the right PIN in a file if nothing else is said."""
    pin_file = tmp_path / "pin"
    pin_file.write_text(f"{PIN}\n")
    pin_file.chmod(0o600)

    def make(path: Path = path, **changes: object) -> Pkcs11Provider:
        settings: dict[str, object] = {
            "module": hsm.module,
            "token_label": TOKEN,
            "key_label": "sesguard",
            "pin": Unlocking("PIN", pin_file, "sesguard-pin"),
        }
        return Pkcs11Provider(path, **{**settings, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def wrapped(make: MakeProvider) -> bytes:
    """A data key, wrapped by a vault key that is there from now on."""
    provider = make()
    assert provider.ensure_key()
    return provider.wrap(b"d" * 32, CONTEXT)

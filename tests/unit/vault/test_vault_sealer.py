"""Sealing of data that is not a credential, such as a checkpoint."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.interfaces import Sealer
from sesguard.errors import VaultTampered, WrongKey
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.records import Sealed, unseal
from sesguard.vault.sealer import VaultSealer

CONTEXT = {"purpose": "checkpoint", "path": "/etc/exim.conf"}
PLAINTEXT = b"client_send = : user : BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ"


@pytest.fixture
def sealer(keyfile: KeyfileProvider) -> Sealer:
    return VaultSealer(keyfile)


def test_sealer_gives_back_what_it_sealed(sealer: Sealer) -> None:
    """Sealing and unsealing is the identity, and nothing shows in between."""
    sealed = sealer.seal(PLAINTEXT, CONTEXT)

    assert PLAINTEXT == sealer.unseal(sealed, CONTEXT)
    assert sealed.startswith(b"sesguard-sealed/1\n")
    assert not any(PLAINTEXT[start : start + 6] in sealed for start in range(len(PLAINTEXT) - 5))


def test_sealing_twice_gives_different_bytes(sealer: Sealer) -> None:
    """Equal plaintexts cannot be told from the sealed bytes."""
    assert sealer.seal(PLAINTEXT, CONTEXT) != sealer.seal(PLAINTEXT, CONTEXT)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"purpose": "checkpoint"},
        {**CONTEXT, "path": "/etc/exim.conf.local"},
        {**CONTEXT, "purpose": "sealed-data"},
        {**CONTEXT, "context.path": "/etc/exim.conf"},
    ],
)
def test_sealed_data_is_bound_to_its_context(sealer: Sealer, context: dict[str, str]) -> None:
    """What was sealed for one file does not open for another."""
    with pytest.raises(VaultTampered):
        sealer.unseal(sealer.seal(PLAINTEXT, CONTEXT), context)


def test_sealed_data_with_any_flipped_bit_is_refused(sealer: Sealer) -> None:
    """A flip of every bit is refused."""
    sealed = sealer.seal(PLAINTEXT, CONTEXT)

    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((VaultTampered, WrongKey)):
            sealer.unseal(bytes(changed), CONTEXT)


def test_sealed_data_cut_at_any_length_is_refused(sealer: Sealer) -> None:
    """A truncation at every length, and bytes at the end, are refused."""
    sealed = sealer.seal(PLAINTEXT, CONTEXT)

    for cut in [sealed[:length] for length in range(len(sealed))] + [sealed + b"\0"]:
        with pytest.raises(VaultTampered):
            sealer.unseal(cut, CONTEXT)


def test_sealed_data_needs_its_key(sealer: Sealer, tmp_path: Path) -> None:
    """Another key is told from tampering."""
    other = VaultSealer(KeyfileProvider.create(tmp_path / "other.key"))

    with pytest.raises(WrongKey):
        other.unseal(sealer.seal(PLAINTEXT, CONTEXT), CONTEXT)


def test_sealed_data_does_not_pass_for_a_credential_version(
    sealer: Sealer, keyfile: KeyfileProvider
) -> None:
    """A caller cannot choose the context of a sealed record, whatever it asks for."""
    context = {"purpose": "credential-version", "vault": "00", "credential": "ses", "version": "1"}
    rest = sealer.seal(PLAINTEXT, context).removeprefix(b"sesguard-sealed/1\n")
    end = 2 + int.from_bytes(rest[:2], "big")
    record = Sealed(rest[2:end], rest[end : end + 12], rest[end + 12 :])

    with pytest.raises(VaultTampered):
        unseal(keyfile, record, context)


@pytest.fixture(scope="module")
def lasting_sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    return VaultSealer(KeyfileProvider.create(tmp_path_factory.mktemp("key") / "vault.key"))


@given(
    plaintext=st.binary(max_size=5000),
    context=st.dictionaries(st.text(), st.text() | st.just("/etc/\udcff"), max_size=5),
)
def test_sealer_round_trip_of_anything(
    plaintext: bytes, context: dict[str, str], lasting_sealer: Sealer
) -> None:
    """Any bytes in any context, even with text that is not valid Unicode, come back the same."""
    sealed = lasting_sealer.seal(plaintext, context)

    assert plaintext == lasting_sealer.unseal(sealed, dict(reversed(context.items())))


def test_older_key_opens_and_the_new_one_seals(
    sealer: Sealer, keyfile: KeyfileProvider, tmp_path: Path
) -> None:
    """While the key is being changed what either sealed opens; only the new one seals."""
    new = KeyfileProvider.create(tmp_path / "new.key")
    turning = VaultSealer(new, keyfile)
    sealed = turning.seal(b"secret", {"purpose": "test"})

    assert b"secret" == turning.unseal(sealed, {"purpose": "test"})
    assert b"secret" == VaultSealer(new).unseal(sealed, {"purpose": "test"})
    assert b"old" == turning.unseal(sealer.seal(b"old", {"purpose": "test"}), {"purpose": "test"})
    with pytest.raises(VaultTampered):
        turning.unseal(sealer.seal(b"old", {"purpose": "test"}), {"purpose": "other"})

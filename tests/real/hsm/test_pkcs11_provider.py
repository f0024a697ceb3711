"""The pkcs11 provider with SoftHSM2: the contract with both kinds of key, and what goes wrong."""

import base64
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from pkcs11 import MechanismFlag

from rigs.softhsm import PIN, TOKEN, MakeProvider, SoftHsm, giving, needs_softhsm
from sesguard.errors import (
    KeyProviderUnavailable,
    SystemFault,
    VaultTampered,
    WrongKey,
)
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.pkcs11 import Pkcs11Provider

pytestmark = [pytest.mark.real, needs_softhsm]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """A token with a key of each kind, and two vault keys wrapped by each."""
    shared = SoftHsm(tmp_path_factory.mktemp("shared"))
    with shared.in_use():
        shared.add_token(TOKEN)
        shared.make_rsa_pair(TOKEN, "rsa")
        for label in ("aes", "rsa"):
            for name in (label, f"{label}-other"):
                make_shared(shared, shared.directory / name, label).ensure_key()
        yield shared


def make_shared(shared: SoftHsm, path: Path, label: str) -> Pkcs11Provider:
    """A provider with the token of all tests of the contract."""
    return Pkcs11Provider(
        path, module=shared.module, token_label=TOKEN, key_label=label, pin=giving(PIN)
    )


class TestPkcs11ProviderAes(KeyProviderContract):
    """The contract, with the AES key that it makes."""

    label: ClassVar[str] = "aes"

    @pytest.fixture
    def provider(self, shared: SoftHsm, path: Path) -> KeyProvider:
        shutil.copy2(shared.directory / self.label, path)
        return make_shared(shared, path, self.label)

    @pytest.fixture
    def fresh(self, shared: SoftHsm, path: Path) -> KeyProvider:
        return make_shared(shared, path, self.label)

    @pytest.fixture
    def other_provider(self, shared: SoftHsm) -> KeyProvider:
        return make_shared(shared, shared.directory / f"{self.label}-other", self.label)


class TestPkcs11ProviderRsa(TestPkcs11ProviderAes):
    """The contract, with a pair of RSA keys that somebody made."""

    label = "rsa"


class TestWhatIsStored:
    """The file, and the key in the token."""

    def test_key_that_it_makes_never_leaves_the_token(
        self, hsm: SoftHsm, make: MakeProvider
    ) -> None:
        """The key in the token may wrap and unwrap, and nothing else, and cannot be read."""
        make().ensure_key()
        make().load()

        assert [
            {
                "LABEL": "sesguard",
                "TOKEN": True,
                "PRIVATE": True,
                "SENSITIVE": True,
                "NEVER_EXTRACTABLE": True,
                "VALUE_LEN": 32,
                "WRAP": True,
                "UNWRAP": True,
                "ENCRYPT": False,
                "DECRYPT": False,
            }
        ] == hsm.secret_keys(TOKEN)

    def test_file_names_what_opens_it(self, make: MakeProvider, path: Path) -> None:
        """The file says which key of which token wrapped the vault key, and is private."""
        make(key_label="a b;ü").ensure_key()
        header, data = path.read_text().splitlines()

        assert re.fullmatch(
            r"sesguard-pkcs11/1 aes-key-wrap"
            r" pkcs11:serial=[0-9a-f]{16};object=a%20b%3B%C3%BC;id=[^;]+",
            header,
        )
        assert 40 == len(base64.b64decode(data, validate=True))
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        make(key_label="another").load()

    def test_one_that_is_there_is_taken(self, hsm: SoftHsm, make: MakeProvider) -> None:
        """A key with that label is used; none is made beside it."""
        hsm.make_aes_key(TOKEN, "sesguard")

        make().ensure_key()

        assert 1 == len(hsm.secret_keys(TOKEN))

    def test_next_vault_key_can_have_another_key_of_the_token(
        self, make: MakeProvider, wrapped: bytes
    ) -> None:
        """With another label in the settings a change of the vault key changes both keys."""
        changed = make(key_label="sesguard 2")
        changed.prepare_next()
        by_next = changed.wrap(b"e" * 32, CONTEXT)

        assert b"d" * 32 == make(key_label="sesguard 2").unwrap(wrapped, CONTEXT)
        changed.promote_next()
        assert b"e" * 32 == make(key_label="sesguard 2").unwrap(by_next, CONTEXT)

    @pytest.mark.parametrize("kind", ["aes", "rsa"])
    def test_file_that_was_changed_is_refused(
        self, hsm: SoftHsm, make: MakeProvider, path: Path, kind: str
    ) -> None:
        """Whatever is changed in the file, no other vault key comes out of it."""
        if kind == "rsa":
            hsm.make_rsa_pair(TOKEN, "sesguard")
        make().ensure_key()
        header, data = path.read_text().splitlines()
        flipped = bytearray(base64.b64decode(data))
        flipped[-1] ^= 1

        for changed, refusal in (
            (f"{header}\n{base64.b64encode(flipped).decode()}\n", VaultTampered),
            (f"{header}\n{data[:16]}\n", VaultTampered),
            (re.sub(r"1 \S+", "1 rot13", f"{header}\n{data}\n"), VaultTampered),
            (f"{header}\n{data}A\n", KeyProviderUnavailable),
            (f"{header}\nAAAAA\n", KeyProviderUnavailable),
            (f"{header}\n{data}", KeyProviderUnavailable),
            (header, KeyProviderUnavailable),
            ("", KeyProviderUnavailable),
        ):
            path.write_text(changed)
            with pytest.raises(refusal):
                make().load()

    @pytest.mark.parametrize("mechanism", ["aes-key-wrap", "rsa-oaep-sha256"])
    def test_mechanism_of_another_kind_of_key_is_refused(
        self, hsm: SoftHsm, make: MakeProvider, path: Path, mechanism: str
    ) -> None:
        """A file that names a mechanism that its key does not have is a changed one."""
        if mechanism.startswith("aes"):
            hsm.make_rsa_pair(TOKEN, "sesguard")
        make().ensure_key()
        path.write_text(re.sub(r"1 \S+", f"1 {mechanism}", path.read_text()))

        with pytest.raises(VaultTampered):
            make().load()


class TestKeyInTheToken:
    """Keys that are not used, and keys that are not there."""

    @pytest.mark.parametrize(("sensitive", "extractable"), [(True, True), (False, False)])
    def test_key_that_can_be_read_is_refused(
        self, hsm: SoftHsm, make: MakeProvider, path: Path, sensitive: bool, extractable: bool
    ) -> None:
        """A key that the token would hand out protects nothing; the hint says what to do."""
        hsm.make_aes_key(TOKEN, "sesguard", sensitive=sensitive, extractable=extractable)

        with pytest.raises(SystemFault, match="can be read out of the token") as caught:
            make().ensure_key()

        assert caught.value.hint
        assert "vault.pkcs11.key_label" in caught.value.hint
        assert not path.exists()

    def test_key_of_another_use_is_refused(
        self, hsm: SoftHsm, make: MakeProvider, path: Path
    ) -> None:
        """A key that must not wrap stores nothing; the hint says how to make one that may."""
        hsm.make_aes_key(TOKEN, "sesguard", usage=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT)

        with pytest.raises(KeyProviderUnavailable, match="cannot wrap") as caught:
            make().ensure_key()

        assert caught.value.hint
        assert "--keypairgen" in caught.value.hint
        assert not path.exists()

    def test_token_without_aes_key_wrap_gets_no_key(
        self, hsm: SoftHsm, make: MakeProvider, path: Path
    ) -> None:
        """No key of no use is left in such a token; it can have a pair of RSA keys."""
        hsm.offer_only("CKM_AES_KEY_GEN", "CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS_OAEP")

        with pytest.raises(KeyProviderUnavailable, match="no CKM_AES_KEY_WRAP") as caught:
            make().ensure_key()

        assert caught.value.hint
        assert "--keypairgen" in caught.value.hint
        assert [] == hsm.secret_keys(TOKEN)
        assert not path.exists()
        hsm.make_rsa_pair(TOKEN, "sesguard")
        assert make().ensure_key()

    def test_two_keys_with_one_label_are_not_guessed_at(
        self, hsm: SoftHsm, make: MakeProvider
    ) -> None:
        """Which of two keys is meant nobody knows."""
        hsm.make_aes_key(TOKEN, "sesguard")
        hsm.make_rsa_pair(TOKEN, "sesguard")

        with pytest.raises(KeyProviderUnavailable, match="has 2 keys sesguard"):
            make().ensure_key()

    def test_file_tells_two_keys_with_one_label_apart(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """Another key that got the same label later does not keep the vault from opening."""
        hsm.make_aes_key(TOKEN, "sesguard", key_id=b"\xff")

        assert b"d" * 32 == make().unwrap(wrapped, CONTEXT)

    def test_key_that_is_gone_is_said_to_be(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """Without the key in the token the vault key cannot be had."""
        hsm.destroy_keys(TOKEN, "sesguard")

        with pytest.raises(KeyProviderUnavailable, match="has no key sesguard"):
            make().load()

    def test_another_key_with_that_label_is_the_wrong_one(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """A key that was made anew under the same label is not the one that wrapped it."""
        hsm.destroy_keys(TOKEN, "sesguard")
        hsm.make_aes_key(TOKEN, "sesguard", key_id=b"\xff")

        with pytest.raises(WrongKey):
            make().load()

    def test_another_token_with_that_label_is_the_wrong_one(
        self, hsm: SoftHsm, make: MakeProvider
    ) -> None:
        """Even a key with the same label and id is not the one, when the token is another."""
        hsm.make_aes_key(TOKEN, "sesguard")
        make().ensure_key()
        hsm.unplug()
        hsm.add_token(TOKEN)
        hsm.make_aes_key(TOKEN, "sesguard")

        with pytest.raises(WrongKey, match="is not the one that wrapped the vault key"):
            make().load()

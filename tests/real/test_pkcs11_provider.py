"""The pkcs11 provider with SoftHSM2: the contract with both kinds of key, and what goes wrong."""

import base64
import os
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Final

import pytest
from pkcs11 import MechanismFlag, TokenFlag
from pkcs11 import exceptions as ckr

from rigs.softhsm import OTHER_PIN, PIN, SPY, SoftHsm, needs_softhsm, needs_spy
from sesguard.config.schema import Pkcs11Settings, Settings, VaultSettings
from sesguard.core.secret import Secret
from sesguard.errors import (
    KeyProviderError,
    KeyProviderLocked,
    KeyProviderUnavailable,
    SettingsError,
    SystemFault,
    VaultTampered,
    WrongKey,
)
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.opening import make_provider
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.pkcs11 import Pkcs11Provider
from sesguard.vault.providers.pkcs11_messages import Wrap
from sesguard.vault.providers.pkcs11_token import _trouble
from sesguard.vault.providers.unlocking import Unlocking

pytestmark = [pytest.mark.real, needs_softhsm]

TOKEN: Final = "sesguard test"
MakeProvider = Callable[..., Pkcs11Provider]


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


def giving(pin: str) -> Unlocking:
    """A person who types this PIN."""
    return Unlocking("PIN", None, "sesguard-pin", lambda _what, *, new: Secret(pin))


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


class TestPin:
    """The PIN, and how often it is given."""

    def test_without_a_pin_it_is_locked(self, make: MakeProvider, wrapped: bytes) -> None:
        """No file, no credential, no terminal: somebody has to do something."""
        with pytest.raises(KeyProviderLocked, match="there is no PIN"):
            make(pin=Unlocking("PIN", None, "sesguard-pin")).load()

    @pytest.mark.parametrize("pin", [OTHER_PIN, "1", "x" * 300, "ü" * 8, "\udcff" * 8])
    def test_wrong_pin_is_refused_and_not_shown(
        self, make: MakeProvider, wrapped: bytes, pin: str
    ) -> None:
        """A wrong PIN locks the vault, and is in no part of the error."""
        with pytest.raises(KeyProviderLocked) as caught:
            make(pin=giving(pin)).load()

        shown = f"{caught.value}{caught.value.hint}{caught.value.parameters}"
        assert len(pin) == 1 or pin not in shown
        assert caught.value.__context__ is None

    @needs_spy
    def test_wrong_pin_is_given_once(
        self,
        hsm: SoftHsm,
        make: MakeProvider,
        wrapped: bytes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The token sees one attempt, also while two vault keys are there."""
        make().prepare_next()
        calls = spy_on(hsm, tmp_path, monkeypatch)

        with pytest.raises(KeyProviderLocked, match="refuses the PIN"):
            make(pin=giving(OTHER_PIN), module=SPY).load()

        assert 1 == calls().count("C_Login")
        assert "C_Finalize" == calls()[-1]

    @needs_spy
    @pytest.mark.parametrize(
        ("flag", "text"),
        [(TokenFlag.USER_PIN_LOCKED, "is locked"), (TokenFlag.USER_PIN_FINAL_TRY, "would lock it")],
    )
    def test_no_pin_is_given_where_it_could_do_harm(
        self,
        hsm: SoftHsm,
        make: MakeProvider,
        wrapped: bytes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        flag: TokenFlag,
        text: str,
    ) -> None:
        """With one try left, or none, not even the right PIN is given: the service starts often."""
        hsm.raise_flag(flag)
        calls = spy_on(hsm, tmp_path, monkeypatch)

        with pytest.raises(KeyProviderLocked, match=text) as caught:
            make(module=SPY).load()

        assert caught.value.hint
        assert "pkcs11-tool" in caught.value.hint
        assert "C_Login" not in calls()

    def test_person_is_asked_once(self, make: MakeProvider) -> None:
        """Making the key and fetching it takes one question, and the answer is not kept."""
        asked: list[str] = []

        def person(what: str, *, new: bool) -> Secret:
            asked.append(what)
            return Secret(PIN)

        provider = make(pin=Unlocking("PIN", None, "sesguard-pin", person))
        provider.ensure_key()

        assert ["PIN"] == asked
        assert provider._pin is None

    def test_systemd_credential_has_the_pin(
        self,
        make: MakeProvider,
        wrapped: bytes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The PIN may come with the service."""
        (tmp_path / "credentials").mkdir()
        (tmp_path / "credentials" / "hsm-pin").write_text(PIN)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

        make(pin=Unlocking("PIN", None, "hsm-pin")).load()


class TestTokenAndModule:
    """What is not there, or does not answer."""

    def test_token_may_go_away_after_the_start(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """What was loaded stays; whoever starts without the token hears of it, and with it goes."""
        provider = make()
        provider.load()
        hsm.unplug()

        assert b"d" * 32 == provider.unwrap(wrapped, CONTEXT)
        with pytest.raises(KeyProviderUnavailable, match=f"there is no token {TOKEN}"):
            make().load()
        hsm.plug_in()
        assert b"d" * 32 == make().unwrap(wrapped, CONTEXT)

    def test_two_tokens_with_one_label_are_not_guessed_at(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """The PIN of one must not be given to the other."""
        hsm.add_token(TOKEN, OTHER_PIN)

        with pytest.raises(KeyProviderUnavailable, match="there are 2 tokens") as caught:
            make().load()

        assert caught.value.hint

    @pytest.mark.parametrize("name", ["missing.so", "text.so", "/usr/lib/os-release"])
    def test_module_that_is_none_is_named(
        self, make: MakeProvider, wrapped: bytes, tmp_path: Path, name: str
    ) -> None:
        """A module that is not there, or is not one, is named with the reason."""
        (tmp_path / "text.so").write_text("no library\n")

        with pytest.raises(KeyProviderUnavailable, match="cannot load the PKCS#11 module") as error:
            make(module=tmp_path / name).load()

        assert name in str(error.value)
        assert error.value.hint
        assert "vault.pkcs11.module" in error.value.hint

    def test_module_that_hangs_is_killed(
        self, make: MakeProvider, wrapped: bytes, tmp_path: Path
    ) -> None:
        """A module that never returns costs the time limit and no more."""
        os.mkfifo(tmp_path / "hangs.so")

        with pytest.raises(KeyProviderUnavailable, match=r"did not end within 0\.5 s"):
            make(module=tmp_path / "hangs.so", timeout_s=0.5).load()

    def test_module_that_crashes_does_not_take_us_with_it(
        self, make: MakeProvider, wrapped: bytes, tmp_path: Path
    ) -> None:
        """A crash in the module is an error like others."""
        os.mkfifo(tmp_path / "hangs.so")
        killer = threading.Thread(target=kill_child_of, args=(os.getpid(), "pkcs11_token"))
        killer.start()

        with pytest.raises(KeyProviderUnavailable, match="exit status -11"):
            make(module=tmp_path / "hangs.so").load()
        killer.join()

    def test_settings_that_are_missing_are_named(self) -> None:
        """Nothing can be guessed of the module and the token."""
        for settings, key in (
            (Pkcs11Settings(), "vault.pkcs11.module"),
            (Pkcs11Settings(module=Path("/m.so")), "vault.pkcs11.token_label"),
        ):
            with pytest.raises(SettingsError, match=key):
                make_provider(Settings(vault=VaultSettings(pkcs11=settings)), "pkcs11")


class TestDaemon:
    """What a daemon that forks and drops its rights needs."""

    def test_nothing_of_the_module_stays(self, make: MakeProvider, wrapped: bytes) -> None:
        """After the load there is no library, thread, child or descriptor more than before."""
        provider = make()
        before = (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
        softhsm_before = mapped("softhsm")

        provider.load()

        assert before == (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
        assert softhsm_before == mapped("softhsm")
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_worker_that_was_forked_unwraps(
        self, hsm: SoftHsm, make: MakeProvider, wrapped: bytes
    ) -> None:
        """What the parent loaded serves its children and threads, without the token."""
        provider = make()
        provider.load()
        hsm.unplug()
        results: list[bytes] = []
        thread = threading.Thread(target=lambda: results.append(provider.unwrap(wrapped, CONTEXT)))

        thread.start()
        thread.join()
        statuses = [in_child(lambda: provider.unwrap(wrapped, CONTEXT)) for _ in range(3)]

        assert [b"d" * 32] == results
        assert [0] * 3 == statuses

    def test_each_error_of_a_token_is_one_of_ours(self) -> None:
        """Whatever a token says, the vault hears that its key provider failed."""
        request = Wrap("/m.so", TOKEN, Secret(PIN), "sesguard", b"k" * 32)
        kinds: list[type[ckr.PKCS11Error]] = ckr.PKCS11Error.__subclasses__()
        assert len(kinds) > 50
        for kind in kinds:
            error = _trouble(kind(PIN), request)

            assert isinstance(error, KeyProviderError)
            assert kind.__name__ in str(error)
            assert PIN not in str(error)


def spy_on(
    hsm: SoftHsm, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """From now on the module `SPY` writes down the calls; the answer reads them."""
    log = directory / "calls"
    monkeypatch.setenv("PKCS11SPY", str(hsm.module))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(log))
    return lambda: re.findall(r"^\d+: (C_\w+)$", log.read_text(), re.MULTILINE)


def mapped(name: str) -> bool:
    """Whether a library is in this process."""
    return name in Path("/proc/self/maps").read_text()


def in_child(act: Callable[[], object]) -> int:
    """Fork, do it there, give the exit code."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_child_of(parent: int, name: str) -> None:
    """Send SIGSEGV to the child of `parent` with `name` in its command line, once it is there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            command = Path(f"/proc/{each}/cmdline").read_bytes()
            if name.encode() in command:
                os.kill(int(each), signal.SIGSEGV)
                return
        time.sleep(0.02)

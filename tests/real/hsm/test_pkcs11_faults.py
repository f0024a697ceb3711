"""The pkcs11 provider when the PIN, the token or the module is not as it should be, and later."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pkcs11 import TokenFlag
from pkcs11 import exceptions as ckr

from rigs.softhsm import (
    OTHER_PIN,
    PIN,
    SPY,
    TOKEN,
    MakeProvider,
    SoftHsm,
    giving,
    needs_softhsm,
    needs_spy,
)
from sesguard.config.schema import Pkcs11Settings, Settings, VaultSettings
from sesguard.core.secret import Secret
from sesguard.errors import (
    KeyProviderError,
    KeyProviderLocked,
    KeyProviderUnavailable,
    SettingsError,
)
from sesguard.testing.key_provider_suite import CONTEXT
from sesguard.vault.opening import make_provider
from sesguard.vault.providers.pkcs11_messages import Wrap
from sesguard.vault.providers.pkcs11_token import _trouble
from sesguard.vault.providers.unlocking import Unlocking

pytestmark = [pytest.mark.real, needs_softhsm]


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

    @needs_spy
    def test_module_that_prints_does_not_spoil_the_answer(
        self,
        hsm: SoftHsm,
        make: MakeProvider,
        wrapped: bytes,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What a module writes to the standard output is not taken for the answer."""
        monkeypatch.setenv("PKCS11SPY", str(hsm.module))
        monkeypatch.setenv("PKCS11SPY_OUTPUT", "/dev/stdout")

        assert b"d" * 32 == make(module=SPY).unwrap(wrapped, CONTEXT)

    def test_working_directory_gives_no_code(
        self,
        make: MakeProvider,
        wrapped: bytes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Python files where somebody happens to stand are not run with the PIN at hand."""
        (tmp_path / "pkcs11.py").write_text("raise SystemExit(3)\n")
        monkeypatch.chdir(tmp_path)

        assert b"d" * 32 == make().unwrap(wrapped, CONTEXT)

    def test_library_that_is_not_installed_is_named(
        self, make: MakeProvider, wrapped: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the extra the error says how to get it."""
        monkeypatch.setitem(sys.modules, "pkcs11", None)

        with pytest.raises(KeyProviderUnavailable, match="python-pkcs11 is not installed") as error:
            make().load()

        assert error.value.hint == "run: pip install 'sesguard[pkcs11]'"

    def test_settings_that_are_missing_are_named(self) -> None:
        """Nothing can be guessed of the module and the token."""
        for settings, key in (
            (Pkcs11Settings(), "vault.pkcs11.module"),
            (Pkcs11Settings(module=Path("/m.so")), "vault.pkcs11.token_label"),
        ):
            with pytest.raises(SettingsError, match=key):
                make_provider(Settings(vault=VaultSettings(pkcs11=settings)), "pkcs11")


def own_threads_descriptors_children() -> tuple[int, int, set[str]]:
    """How many threads and descriptors this process has, and its children: other tests' as well."""
    threads = list(Path("/proc/self/task").iterdir())
    children = {pid for each in threads for pid in (each / "children").read_text().split()}
    return len(threads), len(os.listdir("/proc/self/fd")), children


class TestDaemon:
    """What a daemon that forks and drops its rights needs."""

    def test_nothing_of_the_module_stays(self, make: MakeProvider, wrapped: bytes) -> None:
        """After the load there is no library, thread, child or descriptor more than before."""
        provider = make()
        before = own_threads_descriptors_children()

        provider.load()

        assert before == own_threads_descriptors_children()
        assert not softhsm_is_mapped()

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


def softhsm_is_mapped() -> bool:
    """Whether SoftHSM's library is in this process."""
    return "libsofthsm2.so" in Path("/proc/self/maps").read_text()


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


def spy_on(
    hsm: SoftHsm, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """From now on the module `SPY` writes down the calls; the answer reads them."""
    log = directory / "calls"
    monkeypatch.setenv("PKCS11SPY", str(hsm.module))
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(log))
    return lambda: re.findall(r"^\d+: (C_\w+)$", log.read_text(), re.MULTILINE)

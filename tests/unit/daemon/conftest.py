"""A host for the daemon: settings, a vault with one credential, and a runtime directory."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from sesguard.config.load import load_settings
from sesguard.config.schema import Settings
from sesguard.core.credential import CredentialVersion
from sesguard.core.secret import Secret
from sesguard.vault.opening import init_vault, open_vault
from sesguard.vault.vault import Vault

ME = str(os.geteuid())


@dataclass
class Host:
    """A directory that stands for a host."""

    directory: Path

    @cached_property
    def vault(self) -> Vault:
        """Its vault, opened with the key of the first settings."""
        return open_vault(self.settings)

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    @property
    def run(self) -> Path:
        """The runtime directory."""
        return self.directory / "run"

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return load_settings(self.settings_path)

    def configure(
        self, exim: Sequence[str] = (ME,), postfix: Sequence[str] = (ME,), more: str = ""
    ) -> None:
        """Write the settings file; `more` goes into ``[lookup.exim]``."""
        user = "nobody" if os.geteuid() == 0 else ME
        self.settings_path.write_text(
            f'[credentials.main]\nregions = ["us-east-1"]\n'
            f'[vault]\ndirectory = "{self.directory}/vault"\n'
            f'[vault.keyfile]\npath = "{self.directory}/vault.key"\n'
            f'[daemon]\nuser = "{user}"\nruntime_directory = "{self.run}"\n'
            f"[lookup.postfix]\nusers = {list(postfix)!r}\n"
            f"[lookup.exim]\nusers = {list(exim)!r}\n{more}\n"
        )

    def put(self, password: str) -> None:
        """Make `password` that of the next version, and that version CURRENT."""

        def version(number: int) -> CredentialVersion:
            return CredentialVersion(
                number,
                f"AKIA{number:016}",
                {"us-east-1": Secret(password)},
                "2026-01-01T00:00:00Z",
                "test",
                exposed=number == 1,
            )

        self.vault.update("main", lambda c: c.add_pending(version(c.next_number)).promote())


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose credential has version 1 with the password ``first-password``."""
    # pytest's own temporary directories are closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="sesguard-daemon-"))
    directory.chmod(0o755)
    host = Host(directory)
    host.configure()
    init_vault(host.settings)
    host.put("first-password")
    yield host
    shutil.rmtree(directory)


@pytest.fixture
def as_user() -> Callable[..., int]:
    """
    Run something in a child process that has become another user; its result is the exit code.

    ``as_user(uid, gid, act)``: `act` gives a small number; an OSError gives its errno.
    """

    def run(uid: int, gid: int, act: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 255
            try:
                os.setgroups([])
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                code = act()
            except OSError as error:
                code = error.errno or 254
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run

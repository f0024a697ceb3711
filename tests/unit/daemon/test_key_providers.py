"""
sesguardd with each key provider: it starts, serves on when the provider goes away, and says what to
do when it is not there at a start.

That mail is deferred meanwhile, and sent later, is shown with a real Exim in
``tests/real/test_exim_lookup.py`` (`test_mail_is_deferred_while_the_vault_key_is_away`).
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from rigs.daemon import running_daemon, start_daemon
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.cli.demo_key import KEY_PROVIDERS, DemoKey, prepare_key
from sesguard.errors import SandboxError
from sesguard.vault.opening import init_vault

UNREACHABLE: Final = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
FILES: Final = {
    "keyfile": "vault.key",
    "passphrase": "passphrase",
    "systemd": "vault-key.cred",
    "pkcs11": "tokens",
}
"""What is taken away of the providers that are files here."""
ADVICE: Final = {
    "keyfile": "put the key back from its backup",
    "passphrase": "put the file in its place",
    "systemd": "put the key back from its backup",
    "kms": "look at the network",
    "secretsmanager": "look at the network",
    "pkcs11": "plug it in",
}
"""Of the error at a start without the provider."""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """AWS for the providers that are there."""
    with running_sandbox(tmp_path_factory.mktemp("aws")) as rig:
        yield rig


@pytest.fixture(params=KEY_PROVIDERS)
def name(request: pytest.FixtureRequest) -> str:
    """One of the providers."""
    return str(request.param)


@pytest.fixture
def key(name: str, host: Any, aws: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> DemoKey:
    """The host's vault is under a key of that provider."""
    directory = host.directory / "key"
    try:
        key = prepare_key(name, directory, aws.sandbox)
    except SandboxError as error:
        pytest.skip(f"left out: {error}")
    for variable, value in key.environment.items():
        monkeypatch.setenv(variable, value)
    host.directory.joinpath("vault").rename(host.directory / "vault.of-the-fixture")
    text = host.settings_path.read_text().partition("[vault.keyfile]")
    rest = text[2].partition("[daemon]")
    host.settings_path.write_text(
        f'{text[0]}key_provider = "{name}"\n{key.settings}[daemon]{rest[2]}'
    )
    del host.vault  # It was opened with the settings of before.
    init_vault(host.settings)
    host.put("first-password")
    return key


def test_provider_may_go_away_and_come_back(name: str, host: Any, key: DemoKey) -> None:
    """Once started it serves without the provider; without it at a start it says what to do."""
    with running_daemon(host.settings_path) as daemon:
        assert b"first-password" in daemon.ask("exim", b"plain main\n")
        away = take_away(name, host.directory / "key")
        assert b"first-password" in daemon.ask("exim", b"plain main\n")
        assert daemon.status()["vault"]["problem"] is None

    code, said = start_in_vain(host.settings_path, away)
    assert 4 == code
    assert ADVICE[name] in said
    assert "first-password" not in said

    bring_back(name, host.directory / "key")
    with running_daemon(host.settings_path) as daemon:
        assert b"first-password" in daemon.ask("exim", b"plain main\n")


def test_new_version_is_read_without_the_provider(name: str, host: Any, key: DemoKey) -> None:
    """A rotation goes on while the provider is away: each program has fetched the key."""
    vault = host.vault
    vault.read()
    with running_daemon(host.settings_path) as daemon:
        take_away(name, host.directory / "key")
        host.put("second-password")
        assert b"second-password" in daemon.ask("exim", b"plain main\n")
        assert [] == daemon.events("vault.problem")


def take_away(name: str, directory: Path) -> Mapping[str, str]:
    """Make the provider unusable; gives the environment of a program that shall not have it."""
    if name not in FILES:
        return UNREACHABLE
    os.rename(directory / FILES[name], directory / "drawer")
    if name == "pkcs11":
        (directory / "tokens").mkdir()
    return {}


def bring_back(name: str, directory: Path) -> None:
    """Undo `take_away`."""
    if name == "pkcs11":
        (directory / "tokens").rmdir()
    if name in FILES:
        os.rename(directory / "drawer", directory / FILES[name])


def start_in_vain(settings_path: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Start a daemon that cannot; gives its exit code and what it said."""
    before = settings_path.with_name("sesguardd.log").read_bytes()
    daemon = start_daemon(settings_path, environment=environment)
    try:
        code = daemon.process.wait(100)
    except subprocess.TimeoutExpired:
        daemon.stop()
        raise
    return code, daemon.log_path.read_bytes()[len(before) :].decode()

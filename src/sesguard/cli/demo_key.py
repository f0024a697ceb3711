"""
Where the vault key of ``sesguard demo`` lies: one of the key providers, set up for the story alone.

Everything is made in the story's directory: a passphrase, a SoftHSM2 token; a KMS key or a secret
in the sandbox. Only systemd keeps its host key where it always is, and makes it if there is none.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sesguard.errors import SandboxError
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import admin_session
from sesguard.system.files import ensure_directory, find_program, write_atomic
from sesguard.system.privileges import is_root
from sesguard.system.processes import run_program

_SOFTHSM_MODULES: Final = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/softhsm/libsofthsm.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
)
_TOKEN: Final = "sesguard demo"  # noqa: S105 - a label


@dataclass(frozen=True, slots=True)
class DemoKey:
    """A key provider that is ready for ``sesguard init``."""

    settings: str
    """Its table of the settings file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the commands and the daemon need to reach it."""


def prepare_key(name: str, directory: Path, sandbox: Sandbox) -> DemoKey:
    """
    Set a key provider up.

    Args:
        name: As in the settings.
        directory: For its files.
        sandbox: The AWS of the story.

    Raises:
        SandboxError: This machine lacks something that it needs.
    """
    ensure_directory(directory, mode=0o755)
    return _MAKERS[name](directory, sandbox)


def _keyfile(directory: Path, _sandbox: Sandbox) -> DemoKey:
    return DemoKey(f'[vault.keyfile]\npath = "{directory}/vault.key"\n')


def _passphrase(directory: Path, _sandbox: Sandbox) -> DemoKey:
    file = _secret_file(directory / "passphrase", secrets.token_urlsafe(24))
    return DemoKey(
        f'[vault.passphrase]\npath = "{directory}/vault-key"\npassphrase_file = "{file}"\n'
    )


def _systemd(directory: Path, _sandbox: Sandbox) -> DemoKey:
    if not (is_root() and find_program("systemd-creds")):
        raise _missing("systemd", "systemd-creds, and to be root")
    return DemoKey(f'[vault.systemd]\npath = "{directory}/vault-key.cred"\nwith_key = "host"\n')


def _kms(directory: Path, sandbox: Sandbox) -> DemoKey:
    key = admin_session(sandbox).kms.create_key(Description="sesguard demo")
    return DemoKey(
        f'[vault.kms]\npath = "{directory}/vault-key"\nkey_id = "{key["KeyMetadata"]["Arn"]}"\n',
        sandbox.environment(),
    )


def _secretsmanager(_directory: Path, sandbox: Sandbox) -> DemoKey:
    region = sandbox.info.region
    return DemoKey(f'[vault.secretsmanager]\nregion = "{region}"\n', sandbox.environment())


def _pkcs11(directory: Path, _sandbox: Sandbox) -> DemoKey:
    module = next((path for path in _SOFTHSM_MODULES if path.exists()), None)
    if module is None or find_program("softhsm2-util") is None:
        raise _missing("pkcs11", "SoftHSM2")
    tokens = directory / "tokens"
    ensure_directory(tokens, mode=0o700)
    configuration = directory / "softhsm2.conf"
    text = f"directories.tokendir = {tokens}\nobjectstore.backend = file\n"
    write_atomic(configuration, text.encode(), mode=0o644)
    environment = {"SOFTHSM2_CONF": str(configuration)}
    pin = secrets.token_hex(8)
    # The program takes PINs as arguments only; this token lives as long as the demo.
    made = run_program(
        ("softhsm2-util", "--init-token", "--free", "--label", _TOKEN,
         "--so-pin", secrets.token_hex(8), "--pin", pin),
        environment=environment,
    )  # fmt: skip
    if not made.ok:
        raise SandboxError(
            "softhsm2-util made no token: {reason}", reason=made.errors.strip()[-200:]
        )
    return DemoKey(
        f'[vault.pkcs11]\npath = "{directory}/vault-key"\nmodule = "{module}"\n'
        f'token_label = "{_TOKEN}"\npin_file = "{_secret_file(directory / "pin", pin)}"\n',
        environment,
    )


def _secret_file(path: Path, text: str) -> Path:
    write_atomic(path, f"{text}\n".encode(), mode=0o600)
    return path


def _missing(name: str, what: str) -> SandboxError:
    return SandboxError(
        "the key provider {name} needs {what}, which this machine lacks",
        hint="install it, or choose another one with --key-provider",
        name=name,
        what=what,
    )


_MAKERS: Final[Mapping[str, Callable[[Path, Sandbox], DemoKey]]] = {
    "keyfile": _keyfile,
    "passphrase": _passphrase,
    "systemd": _systemd,
    "kms": _kms,
    "secretsmanager": _secretsmanager,
    "pkcs11": _pkcs11,
}
KEY_PROVIDERS: Final = tuple(_MAKERS)
"""Names of those that there are."""

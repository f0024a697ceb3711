"""
A change of the key between every ordered pair of the key providers, killed at every step.

`test_rewrap_crash` does the same more closely with two simple kinds of files.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from rigs.aws_keys import as_root
from rigs.crash import killed_at, points_before_writes, points_of
from rigs.key_providers import SETTINGS, Kinds, SealedHost, sealed_host
from rigs.sandbox import SandboxRig, running_sandbox
from rigs.softhsm import MODULE, PIN, TOKEN, SoftHsm
from sesguard.core.credential import Credential
from sesguard.errors import VaultError
from sesguard.system.files import find_program
from sesguard.system.privileges import is_root
from sesguard.vault import cipher
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.providers.kms import KmsProvider
from sesguard.vault.providers.passphrase import PassphraseProvider
from sesguard.vault.providers.pkcs11 import Pkcs11Provider
from sesguard.vault.providers.secretsmanager import SecretsManagerProvider
from sesguard.vault.providers.systemd import SystemdProvider
from sesguard.vault.providers.unlocking import Unlocking

Change = Callable[[Credential], Credential]

NAMES = ("keyfile", "passphrase", "systemd", "kms", "secretsmanager", "pkcs11")
CHANGES_AT_AWS = ("CreateSecret", "PutSecretValue", "UpdateSecretVersionStage")
PAIRS = [(source, target) for source in NAMES for target in NAMES]
LACKING = {
    "systemd": not (is_root() and find_program("systemd-creds")),
    "pkcs11": MODULE is None or find_program("softhsm2-util") is None,
}
"""Names of the providers that this machine has not, and why not."""


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm | None]:
    """A token that all hosts share: their vault keys lie in files of their own."""
    if LACKING["pkcs11"]:
        yield None
        return
    token = SoftHsm(tmp_path_factory.mktemp("hsm"))
    with token.in_use():
        token.add_token(TOKEN)
        # The key in the token is made here, so that all of the changes pass the same points.
        _pkcs11(tmp_path_factory.mktemp("first"), token).ensure_key()
        yield token


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """AWS, with a secret for each host."""
    with running_sandbox(tmp_path_factory.mktemp("aws")) as rig:
        yield rig


@pytest.fixture(scope="module")
def kinds(hsm: SoftHsm | None, aws: SandboxRig) -> Iterator[Kinds]:
    """Every provider; guessing a passphrase is cheap, and the token is asked once for each key."""
    # One session for all, because to make one takes longer than all calls of a change.
    connect = cache(as_root(aws))
    kms_key = aws.aws("kms").create_key()["KeyMetadata"]["Arn"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "scrypt_key", _quick(cipher.scrypt_key))
        patch.setattr(Pkcs11Provider, "_open", _remembering(Pkcs11Provider._open))
        yield {
            "keyfile": lambda directory: KeyfileProvider(directory / "keyfile" / "vault.key"),
            "passphrase": _passphrase,
            "systemd": lambda directory: SystemdProvider(
                directory / "systemd" / "key", with_key="host"
            ),
            "kms": lambda directory: KmsProvider(directory / "kms" / "key", kms_key, connect),
            "secretsmanager": lambda directory: SecretsManagerProvider(
                _secret_of(directory), connect
            ),
            "pkcs11": lambda directory: _pkcs11(directory, hsm),
        }


def _secret_of(directory: Path) -> str:
    return "vault-key" + str(directory).replace("/tmp", "")


def copy_secret(aws: SandboxRig, directory: Path, copy: Path) -> None:
    """Give the copy of a host a secret of its own."""
    client = aws.aws("secretsmanager")
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        found = client.get_secret_value(SecretId=_secret_of(directory), VersionStage="AWSCURRENT")
        client.create_secret(Name=_secret_of(copy), SecretString=found["SecretString"])


def steps_of(host: SealedHost, target: str) -> list[int]:
    """Numbers of the points before something is written here, and around each change at AWS."""
    points = points_of(lambda: host.rewrap(target))
    around = [n for n, label in enumerate(points, 1) if label.endswith(CHANGES_AT_AWS)]
    return sorted({*points_before_writes(points), *around})


def _passphrase(directory: Path) -> KeyProvider:
    own = directory / "passphrase"
    own.mkdir(exist_ok=True)
    (own / "words").touch(0o600)
    (own / "words").write_text("correct horse battery staple\n")
    return PassphraseProvider(own / "key", Unlocking("passphrase", own / "words", "none"))


def _pkcs11(directory: Path, hsm: SoftHsm | None) -> KeyProvider:
    assert hsm is not None
    pin = hsm.directory / "pin"
    pin.touch(0o600)
    pin.write_text(PIN)
    return Pkcs11Provider(
        directory / "pkcs11" / "key",
        module=hsm.module,
        token_label=TOKEN,
        key_label="sesguard",
        pin=Unlocking("PIN", pin, "none"),
    )


def _quick(scrypt: Callable[[bytes, bytes, int], bytes]) -> Callable[[bytes, bytes, int], bytes]:
    return lambda passphrase, salt, _log2_n: scrypt(passphrase, salt, 10)


def _remembering(
    open_content: Callable[[Pkcs11Provider, bytes], bytes],
) -> Callable[[Pkcs11Provider, bytes], bytes]:
    known: dict[bytes, bytes] = {}

    def remembered(provider: Pkcs11Provider, content: bytes) -> bytes:
        if content not in known:
            known[content] = open_content(provider, content)
        return known[content]

    return remembered


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_killed_change_opens_with_exactly_one_of_the_two(
    tmp_path: Path, rotate: Change, kinds: Kinds, aws: SandboxRig, source: str, target: str
) -> None:
    """Killed before any write, one of the two opens the vault, and the same command finishes."""
    for name in (source, target):
        if LACKING.get(name):
            pytest.skip(f"left out: this machine lacks what {name} needs")
    copy = partial(copy_secret, aws)
    fresh = sealed_host(tmp_path / "fresh", source, rotate, kinds, copy_elsewhere=copy)
    expected, entries = fresh.vault().read(), fresh.entries()
    rehearsal = fresh.copied(tmp_path / "rehearsal")
    moved = []

    for point in steps_of(rehearsal, target):
        host = fresh.copied(tmp_path / f"host-{point}")
        assert killed_at(lambda host=host: host.rewrap(target), point)  # type: ignore[misc]
        [(kind, found)] = host.openers(source, target).items()
        moved.append(found.generation)
        assert expected.credentials == found.credentials
        assert found == host.vault(kind).read_last_good()

        host.rewrap(target)

        require_moved(host, source, target, aws)
        assert expected.credentials == host.vault().read().credentials
        assert entries == host.entries()

    assert {4, 5} == set(moved)


def require_moved(host: SealedHost, source: str, target: str, aws: SandboxRig) -> None:
    """All is under the target, and the old key is not needed."""
    assert SETTINGS.format(target) == host.config.read_text()
    if source != target:
        if source == "secretsmanager":
            name = _secret_of(host.directory)
            aws.aws(source).delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        else:
            host.forget(source)
        with pytest.raises(VaultError):
            host.vault(source).read()
    assert all(check.ok for check in host.vault().verify())

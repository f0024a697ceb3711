"""
The key provider ``systemd``: the vault key is a credential that ``systemd-creds`` encrypted.

The file is what ``systemd-creds encrypt --name=sesguard-vault-key`` makes of a key file of the
provider ``keyfile``, under the host key, the TPM or both. The next key has the same name inside,
because its file only takes the place of the present one.

A command of root decrypts the file itself. A service is better given the key, because it needs no
access to the TPM then:

    LoadCredentialEncrypted=sesguard-vault-key:/etc/credstore.encrypted/sesguard-vault-key

Where there is a credentials directory (CREDENTIALS_DIRECTORY) the key is taken from it and from
nowhere else: one without the key, or empty, is an error, whatever the file is. So a unit that
passes any credential has to pass this one too. The next key is read from its file also there. What
was passed stays as it was until the service is started anew, so the key is changed outside of one.

A new key is decrypted once before it is stored, and one whose PCRs the firmware leaves empty is
refused, because it would be bound to nothing. Only options of systemd 252 are used. Loading the key
takes 11 ms with the host key and 32 ms with a TPM (measured with swtpm; a chip is slower); it is
given up after 60 s.

Known faults
    systemd-creds has one exit status for every failure. They are told apart by its words, and what
    they do not tell is `KeyProviderUnavailable`.
    Sealed to no PCR at all, a key does not open in systemd 252; it is refused when it is made.
    A service without access to the TPM that is started in the middle of a change of the key cannot
    read the next key, and fails until the change is finished.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from sesguard.errors import (
    KeyProviderDenied,
    KeyProviderError,
    KeyProviderLocked,
    KeyProviderUnavailable,
    SystemFault,
)
from sesguard.system.credentials import credentials_directory, service_credential
from sesguard.system.files import find_program, read_if_exists
from sesguard.system.processes import Completed, run_program
from sesguard.vault import cipher
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.key_line import decode_key, encode_key
from sesguard.vault.providers.stored import FileKeyProvider, Slot

CREDENTIAL: Final = "sesguard-vault-key"
"""Name of the credential."""

_NOISE: Final = re.compile(r"(ERROR|WARNING):|\s*$")
_TPM: Final = frozenset(
    bytes.fromhex(each)
    for each in (
        "0c7cc07b117645919c4b0bea08bc20fe",
        "faf7eb9341e3412ca1a436f95a29362f",
        "93a894094874449090caf2fc93cab553",
        "af4950a849134eb1a73846304ff30c05",
    )
)
"""How a credential that needs a TPM begins: CRED_AES256_GCM_BY_*TPM2* in systemd's creds-util.h."""

_HOST_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "a web user, another local user or a backup without /var/lib/systemd gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "whoever reads the whole disk, or a snapshot or backup of it, has the key and the vault",
        "root on this host can use the key",
    ),
)
_TPM_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "the disk, or a snapshot or backup of it, is worth nothing without the TPM of this machine",
        "this machine started with another state of Secure Boot or the chosen PCRs gets nothing",
        "a web user or another local user gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "whoever takes the whole machine, starts it as it is and becomes root has the key",
        "a cleared or broken TPM, or other firmware, loses the key, and the vault with it",
        "root on this host can use the key",
    ),
)


class SystemdProvider(FileKeyProvider):
    """
    Wraps data keys with a key that systemd encrypted; see the module docstring.

    Args:
        path: The file. It is read at the first use or by `load`.
        with_key: What a new key is encrypted with: ``host``, ``tpm2``, ``host+tpm2``, ``auto``.
        tpm2_device: As ``systemd-creds --tpm2-device`` has it; None: the one that there is.
        tpm2_pcrs: PCRs that must be as they were when the key was made.
    """

    name: ClassVar[str] = "systemd"

    def __init__(
        self,
        path: Path,
        *,
        with_key: str = "auto",
        tpm2_device: str | None = None,
        tpm2_pcrs: Sequence[int] = (7,),
    ) -> None:
        super().__init__(path)
        self._with_key: Final = with_key
        self._device: Final = () if tpm2_device is None else (f"--tpm2-device={tpm2_device}",)
        self._pcrs: Final = "+".join(map(str, tpm2_pcrs))

    def describe(self) -> ProviderDescription:
        """What it protects against and what not, by what the key was encrypted with."""
        return _TPM_DESCRIPTION if self._needs_tpm() else _HOST_DESCRIPTION

    def _needs_tpm(self) -> bool:
        try:
            state = read_if_exists(Path(self.place))
        except SystemFault:
            state = None
        return "tpm2" in self._with_key if state is None else _made_with_tpm(state.content)

    def _exists(self, slot: Slot) -> bool:
        return _is_passed(slot) or super()._exists(slot)

    def _fetch(self, slot: Slot) -> bytes:
        return self._passed() if _is_passed(slot) else super()._fetch(slot)

    def _store(self, slot: Slot, key: bytes) -> None:
        _require_no_service()
        super()._store(slot, key)

    def _promote(self) -> None:
        _require_no_service()
        super()._promote()

    def _passed(self) -> bytes:
        key = decode_key(service_credential(CREDENTIAL) or b"")
        if len(key) != cipher.KEY_BYTES:
            raise KeyProviderUnavailable(
                "systemd did not pass the vault key to this service",
                hint="put LoadCredentialEncrypted={credential}:{path} into the unit; if it is there"
                " and {directory} is empty, run: mount --make-rshared /",
                credential=CREDENTIAL,
                path=self.place,
                directory=credentials_directory(),
            )
        return key

    def _protect(self, key: bytes) -> bytes:
        options = (f"--with-key={self._with_key}", f"--tpm2-pcrs={self._pcrs}")
        completed = self._run("encrypt", options, encode_key(key))
        if "unenforced" in completed.errors:
            raise KeyProviderUnavailable(
                "the firmware of this machine leaves the PCRs {pcrs} of the TPM empty",
                hint="choose others in vault.systemd.tpm2_pcrs, or set vault.systemd.with_key to"
                ' "host"',
                pcrs=self._pcrs,
            )
        content = completed.output.encode()
        self._open(content)
        return content

    def _open(self, content: bytes) -> bytes:
        return decode_key(self._run("decrypt", (), content).output.encode())

    def _run(self, command: str, options: Sequence[str], content: bytes) -> Completed:
        program = find_program("systemd-creds")
        if program is None:
            raise KeyProviderUnavailable(
                "systemd-creds is not installed",
                hint="install systemd 250 or later, or choose another key provider",
            )
        arguments = (f"--name={CREDENTIAL}", *options, *self._device)
        completed = run_program((program, command, *arguments, "-", "-"), stdin=content)
        if not completed.ok:
            raise _refusal(self.place, _reason(completed))
        return completed


def _is_passed(slot: Slot) -> bool:
    return slot is Slot.CURRENT and credentials_directory() is not None


def _require_no_service() -> None:
    if credentials_directory() is not None:
        raise SystemFault(
            "the vault key cannot be changed by a service that systemd passed credentials to",
            hint="run the command in a shell of root",
        )


def _made_with_tpm(content: bytes) -> bool:
    try:
        return base64.b64decode(content[:24])[:16] in _TPM
    except binascii.Error:
        return False


def _reason(completed: Completed) -> str:
    # The TPM library writes its own lines before and after the one that says what failed.
    lines = [line for line in completed.errors.splitlines() if not _NOISE.match(line)]
    return lines[-1] if lines else f"status {completed.status}"


def _refusal(path: str, reason: str) -> KeyProviderError:
    if "policy" in reason:
        return KeyProviderLocked(
            "the TPM does not open {path}: firmware or Secure Boot is not as it was",
            hint="put the firmware and its settings back as they were, or put the vault and its key"
            " back from a backup; before the next change run: sesguard credential rewrap",
            path=path,
        )
    if "ermission denied" in reason:
        return KeyProviderDenied(
            "systemd-creds does not serve this user: {reason}",
            hint="run the command as root",
            reason=reason,
        )
    return KeyProviderUnavailable(
        "systemd-creds does not encrypt or open {path}: {reason}",
        hint="see that the TPM answers, and that {path} and /var/lib/systemd/credential.secret were"
        " made on this machine; or put the vault and its key back from a backup",
        path=path,
        reason=reason,
    )

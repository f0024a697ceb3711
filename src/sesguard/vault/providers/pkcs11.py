"""
The key provider ``pkcs11``: the vault key lies in a file, wrapped by a key in an HSM.

The key in the token never leaves it: AES-256, which is made at the first use, or a pair of RSA keys
that somebody made. The token is needed to make the vault key and at each start, for part of a
second; what goes away later stops nothing. The file is two lines,

    sesguard-pkcs11/1 MECHANISM pkcs11:serial=SERIAL;object=LABEL;id=ID
    the wrapped key in base64

with a URI (RFC 7512) that names the token and the key that wrapped it. So another `key_label` in
the settings is for the next vault key; this one opens as before.

The PKCS#11 module is loaded in a process of its own, which has ended when `load` returns: no
session, thread or PIN stays behind in a daemon that forks. A module that hangs is killed after 30
s. The PIN is given to the token once in a `load`, and never when it might be the last try.

AES key wrap notices a changed file. For RSA anybody with the public key can make a file that opens;
who writes such a file (as root) has put a vault key of his own there, with which no vault opens
(`WrongKey`).

Raises, beside what every provider does: `KeyProviderLocked` (no PIN, a wrong or a locked one),
`KeyProviderUnavailable` (no module, no token, two of them, no key, no answer), `WrongKey` (another
token, or another key with that label), `VaultTampered` (a changed file) and `SystemFault` (a key
that can be read out of the token).

Known fault: the PIN is as secret as the place that it comes from.
"""

import base64
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote, unquote, unquote_to_bytes

from sesguard import errors
from sesguard.core.secret import Secret
from sesguard.errors import Error, KeyProviderLocked, KeyProviderUnavailable, SystemFault
from sesguard.system.processes import run_program
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.pkcs11_messages import (
    Asked,
    Failure,
    Request,
    Unwrap,
    Unwrapped,
    Wrap,
    Wrapped,
    parse_answer,
    reveal_bytes,
)
from sesguard.vault.providers.stored import FileKeyProvider
from sesguard.vault.providers.unlocking import Unlocking

TIMEOUT_S: Final = 30.0
"""What a token has for one act, its module's start among it."""

_FILE: Final = re.compile(
    rb"sesguard-pkcs11/1 (?P<mechanism>[a-z0-9-]{1,40})"
    rb" pkcs11:serial=(?P<serial>[^;\s]*);object=(?P<label>[^;\s]*);id=(?P<id>[^;\s]*)\n"
    rb"(?P<data>[A-Za-z0-9+/]+={0,2})\n"
)

_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "whoever has the disk, a snapshot or a backup of it, but not the token, has nothing",
        "nobody can copy the key that wraps: it does not leave the token",
        "a web user or another local user gets nothing",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "root on this host can use the token, and take the vault key from the memory of the daemon",
        "whoever has the disk with the PIN on it can use the token when he has that as well",
        "when the token is lost and its key has no backup, the vault is lost",
    ),
)


class Pkcs11Provider(FileKeyProvider):
    """
    Wraps data keys with a key that a token unwraps; see the module docstring.

    Args:
        path: The file. It is read at the first use or by `load`.
        module: The PKCS#11 library of the token.
        token_label: Label of the token.
        key_label: Label of the key that wraps new vault keys.
        pin: Finds the PIN.
        timeout_s: What the token has for one act.
    """

    name: ClassVar[str] = "pkcs11"

    def __init__(
        self,
        path: Path,
        *,
        module: Path,
        token_label: str,
        key_label: str,
        pin: Unlocking,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(path)
        self._module: Final = str(module)
        self._token_label: Final = token_label
        self._key_label: Final = key_label
        self._unlocking: Final = pin
        self._timeout_s: Final = timeout_s
        self._pin: Secret | None = None

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def _protect(self, key: bytes) -> bytes:
        request = Wrap(self._module, self._token_label, self._find_pin(), self._key_label, key)
        return _file_content(self._ask(request, Wrapped))

    def _open(self, content: bytes) -> bytes:
        wrapped = _parse_file(content)
        if wrapped is None:
            return b""
        request = Unwrap(self._module, self._token_label, self._find_pin(), wrapped)
        return self._ask(request, Unwrapped).key

    def _forget(self) -> None:
        self._pin = None

    def _find_pin(self) -> Secret:
        # Kept from one act to the next, so that a person is asked once.
        if self._pin is None:
            pin = self._unlocking.find()
            if not _is_utf8(pin):
                raise KeyProviderLocked(
                    "the PIN is not text in UTF-8", hint="correct the file or credential with it"
                )
            self._pin = pin
        return self._pin

    def _ask(self, request: Request, kind: type[Asked]) -> Asked:
        """What the token says, from a process of its own; a failure is raised."""
        if find_spec("pkcs11") is None:
            raise KeyProviderUnavailable(
                "the Python package python-pkcs11 is not installed",
                hint="run: pip install 'sesguard[pkcs11]'",
            )
        answer = parse_answer(self._run_in_child(reveal_bytes(request)), kind)
        if isinstance(answer, Failure):
            failure: type[Error] = getattr(errors, answer.kind)
            raise failure(answer.template, hint=answer.hint, **answer.parameters)
        return answer

    def _run_in_child(self, request: bytes) -> bytes:
        # -P: no directory that somebody happens to work in may have modules for us.
        command = (sys.executable, "-P", "-m", "sesguard.vault.providers.pkcs11_token")
        search_path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = run_program(
                command,
                stdin=request,
                timeout_s=self._timeout_s,
                # Modules are told by variables of their own where the token is.
                environment={**os.environ, **search_path},
            )
        except SystemFault as error:
            reason = str(error)
        else:
            if done.ok:
                return done.output.encode()
            # Its output is not shown: a module may print what it was given.
            reason = f"exit status {done.status}"
        # Not chained: the frames of the cause hold the request.
        raise KeyProviderUnavailable(
            "the PKCS#11 module {module} gave no answer: {reason}",
            hint="see whether the token is there and works, with the tool that came with it",
            module=self._module,
            reason=reason,
        )


def _is_utf8(pin: Secret) -> bool:
    try:
        pin.reveal().encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_content(wrapped: Wrapped) -> bytes:
    serial, label, key_id = (
        quote(each, safe="") for each in (wrapped.serial, wrapped.key_label, wrapped.key_id)
    )
    return (
        f"sesguard-pkcs11/1 {wrapped.mechanism} pkcs11:serial={serial};object={label};id={key_id}\n"
        f"{base64.b64encode(wrapped.data).decode()}\n"
    ).encode()


def _parse_file(content: bytes) -> Wrapped | None:
    match = _FILE.fullmatch(content)
    if match is None:
        return None
    mechanism, serial, label, key_id, data = (part.decode("latin-1") for part in match.groups())
    try:
        decoded = base64.b64decode(data)
    except ValueError:
        return None
    return Wrapped(mechanism, unquote(serial), unquote(label), unquote_to_bytes(key_id), decoded)

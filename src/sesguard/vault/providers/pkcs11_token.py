"""
``python -m sesguard.vault.providers.pkcs11_token``: one act in a PKCS#11 token, then the end.

It runs as a process of its own because a PKCS#11 module is foreign code in the address space: it
may hang, crash, print, start threads, and is not to be used after a fork. The caller gives it a
time and takes its answer; see `sesguard.vault.providers.pkcs11_messages`. A failure is an answer
too, and the exit code is 0; any other one means that it crashed.

Promises:
- the PIN is given to the token once, and not at all when the token says that one more wrong PIN
  would lock it (CKF_USER_PIN_FINAL_TRY);
- only a key that cannot be read out of the token (CKA_SENSITIVE, not CKA_EXTRACTABLE) is used;
- a vault key is not given out before the token has opened it again.

What wraps, the first of its kind of key that the token can do:

    aes-key-wrap       CKM_AES_KEY_WRAP (RFC 3394), by C_WrapKey and C_UnwrapKey
    aes-key-wrap-pad   CKM_AES_KEY_WRAP_PAD, likewise
    rsa-oaep-sha256    CKM_RSA_PKCS_OAEP with SHA-256, by C_Encrypt and C_Decrypt
    rsa-oaep-sha1      likewise, with SHA-1

More tokens can do C_Decrypt than C_UnwrapKey. OAEP with SHA-1 is as good: it asks for no collision
resistance (RFC 8017, section 7.1 and B.1).

Known fault: a token whose PIN is typed at its own key pad (CKF_PROTECTED_AUTHENTICATION_PATH) is
not supported.

Source: PKCS #11 Cryptographic Token Interface 2.40 and 3.1 (OASIS).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, TokenFlag
from pkcs11 import exceptions as ckr

from sesguard.errors import (
    Error,
    KeyProviderLocked,
    KeyProviderUnavailable,
    SystemFault,
    VaultTampered,
    WrongKey,
)
from sesguard.system.privileges import die_with_parent, forbid_core_dumps
from sesguard.vault.providers.pkcs11_messages import (
    Answer,
    Failure,
    Request,
    Unwrap,
    Unwrapped,
    Wrap,
    Wrapped,
    parse_request,
    reveal_bytes,
)

_AES: Final[dict[str, Any]] = {
    "aes-key-wrap": Mechanism.AES_KEY_WRAP,
    "aes-key-wrap-pad": Mechanism.AES_KEY_WRAP_PAD,
}
_RSA: Final[dict[str, Any]] = {
    "rsa-oaep-sha256": (Mechanism.SHA256, pkcs11.MGF.SHA256, None),
    "rsa-oaep-sha1": (Mechanism.SHA_1, pkcs11.MGF.SHA1, None),
}
_MECHANISMS: Final = {KeyType.AES: _AES, KeyType.RSA: _RSA}

_READABLE: Final = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
"""An object of the session alone, which is gone with it."""

_KEY_BITS: Final = 256
_ID_BYTES: Final = 8

_WRONG_PIN: Final = (ckr.PinIncorrect, ckr.PinInvalid, ckr.PinLenRange)
_GONE: Final = (
    ckr.DeviceError,
    ckr.DeviceMemory,
    ckr.DeviceRemoved,
    ckr.HostMemory,
    ckr.SessionClosed,
    ckr.SessionHandleInvalid,
    ckr.TokenNotPresent,
    ckr.UserNotLoggedIn,
)
"""Say nothing of what was to be unwrapped."""


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """A session in which somebody is logged in, and the key in the token that wraps."""

    session: pkcs11.Session
    key: Any

    @property
    def mechanisms(self) -> dict[str, Any]:
        """Names and parameters of what it could wrap with."""
        return _MECHANISMS.get(self.key.key_type, {})

    def wrap(self, mechanism: str, vault_key: bytes) -> bytes:
        """Raises PKCS11Error, or AttributeError where the key must not be used for it."""
        if self.key.key_type == KeyType.RSA:
            public = self.session.get_key(ObjectClass.PUBLIC_KEY, KeyType.RSA, self.key.label)
            return bytes(_oaep(public, "encrypt", mechanism, vault_key))
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
        value = {Attribute.VALUE: vault_key, Attribute.TOKEN: False}
        temporary = self.session.create_object({**template, **value, **_READABLE})
        return bytes(self.key.wrap_key(temporary, mechanism=_AES[mechanism]))

    def unwrap(self, mechanism: str, data: bytes) -> bytes:
        """Raises as `wrap` does."""
        if self.key.key_type == KeyType.RSA:
            return bytes(_oaep(self.key, "decrypt", mechanism, data))
        temporary = self.key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            data,
            mechanism=_AES[mechanism],
            capabilities=0,
            template=_READABLE,
        )
        return bytes(temporary[Attribute.VALUE])


def main() -> None:
    """Read a request, write its answer."""
    forbid_core_dumps()
    die_with_parent(os.getppid())
    with os.fdopen(os.dup(1), "wb") as output:
        # What the module prints must not get into the answer.
        os.dup2(2, 1)
        output.write(reveal_bytes(answer(parse_request(sys.stdin.buffer.read()))))


def answer(request: Request) -> Answer:
    """Do what the request asks for."""
    try:
        with _token(request) as token, _logged_in(token, request) as session:
            if isinstance(request, Wrap):
                return _wrap(token, session, request)
            return _unwrap(token, session, request)
    except Error as error:
        return _failure(error)
    except ckr.PKCS11Error as error:
        return _failure(_trouble(error, request))


def _failure(error: Error) -> Failure:
    parameters = {name: str(value) for name, value in error.parameters.items()}
    return Failure(type(error).__name__, error.template, error.hint_template, parameters)


def _trouble(error: ckr.PKCS11Error, request: Request) -> Error:
    # Its name only: a foreign text may have anything in it.
    return KeyProviderUnavailable(
        "the token {token} failed: {reason}",
        hint="see whether the token is there and works, with the tool that came with it",
        token=request.token_label,
        reason=type(error).__name__,
    )


@contextmanager
def _token(request: Request) -> Iterator[pkcs11.Token]:
    try:
        module = pkcs11.lib(request.module)
    except ckr.PKCS11Error as error:
        raise KeyProviderUnavailable(
            "cannot load the PKCS#11 module {module}: {reason}",
            hint="set vault.pkcs11.module to the library that came with the token",
            module=request.module,
            reason=str(error) or type(error).__name__,
        ) from error
    try:
        yield _find_token(module, request)
    finally:
        # The answer is there, and the process ends.
        with suppress(ckr.PKCS11Error):
            module.finalize()


def _find_token(module: Any, request: Request) -> pkcs11.Token:
    found = list(module.get_tokens(token_label=request.token_label))
    if not found:
        raise KeyProviderUnavailable(
            "there is no token {token}",
            hint="plug it in, or set vault.pkcs11.token_label to the label of another one",
            token=request.token_label,
        )
    if len(found) > 1:
        raise KeyProviderUnavailable(
            "there are {count} tokens {token}",
            hint="give each token a label of its own",
            count=len(found),
            token=request.token_label,
        )
    token: pkcs11.Token = found[0]
    return token


@contextmanager
def _logged_in(token: pkcs11.Token, request: Request) -> Iterator[pkcs11.Session]:
    _require_tries(token, request)
    try:
        session = token.open(user_pin=request.pin.reveal())
    except ckr.PinLocked:
        raise _locked(request) from None
    except _WRONG_PIN:
        raise KeyProviderLocked(
            "the token {token} refuses the PIN",
            hint="put the right PIN in its place: the token locks itself after some wrong ones",
            token=request.token_label,
        ) from None
    except (ckr.PinExpired, ckr.UserPinNotInitialized) as error:
        raise KeyProviderLocked(
            "the token {token} has no PIN that is in force: {reason}",
            hint="set the user PIN, with the tool that came with the token",
            token=request.token_label,
            reason=type(error).__name__,
        ) from None
    with session:
        yield session


def _require_tries(token: pkcs11.Token, request: Request) -> None:
    if TokenFlag.USER_PIN_LOCKED in token.flags:
        raise _locked(request)
    if TokenFlag.USER_PIN_FINAL_TRY in token.flags:
        raise KeyProviderLocked(
            "the token {token} got so many wrong PINs that the next one would lock it",
            hint="log in to it once with the right PIN, with pkcs11-tool or its own tool",
            token=request.token_label,
        )


def _locked(request: Request) -> KeyProviderLocked:
    return KeyProviderLocked(
        "the PIN of the token {token} is locked",
        hint="set a new one as its security officer: pkcs11-tool --module {module}"
        " --login --login-type so --init-pin",
        token=request.token_label,
        module=request.module,
    )


def _wrap(token: pkcs11.Token, session: pkcs11.Session, request: Wrap) -> Wrapped:
    key = _find_key(session, request.key_label)
    if key is None:
        _make_key(token, request)
        key = _find_key(session, request.key_label)
    wrapper = _Wrapper(session, key)
    reasons = []
    for mechanism in wrapper.mechanisms:
        try:
            data = wrapper.wrap(mechanism, request.key)
            if wrapper.unwrap(mechanism, data) == request.key:
                return Wrapped(mechanism, _serial(token), request.key_label, wrapper.key.id, data)
            reasons.append(f"{mechanism}: ?")
        except (ckr.PKCS11Error, AttributeError) as error:
            reasons.append(f"{mechanism}: {type(error).__name__}")
    raise _cannot_wrap(request, ", ".join(reasons) or "neither AES nor RSA")


def _cannot_wrap(request: Wrap, reason: str) -> KeyProviderUnavailable:
    return KeyProviderUnavailable(
        "the token {token} cannot wrap the vault key with its key {key}: {reason}",
        hint="make a pair of RSA keys in it and name its label in vault.pkcs11.key_label:"
        " pkcs11-tool --module {module} --token-label {token} --login --keypairgen"
        " --key-type rsa:3072 --usage-decrypt --label NEW-LABEL",
        token=request.token_label,
        key=request.key_label,
        module=request.module,
        reason=reason,
    )


def _make_key(token: pkcs11.Token, request: Wrap) -> None:
    if not {*_AES.values()} & {*token.slot.get_mechanisms()}:
        raise _cannot_wrap(request, "no CKM_AES_KEY_WRAP")
    with token.open(rw=True) as session:
        session.generate_key(
            KeyType.AES,
            _KEY_BITS,
            id=os.urandom(_ID_BYTES),
            label=request.key_label,
            store=True,
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )


def _unwrap(token: pkcs11.Token, session: pkcs11.Session, request: Unwrap) -> Unwrapped:
    wrapped = request.wrapped
    key = _find_key(session, wrapped.key_label, wrapped.key_id)
    if key is None:
        raise _no_key(token, session, request)
    wrapper = _Wrapper(session, key)
    try:
        # An unknown mechanism or one of another kind of key is a KeyError.
        return Unwrapped(wrapper.unwrap(wrapped.mechanism, wrapped.data))
    except _GONE:
        raise
    except (ckr.PKCS11Error, AttributeError, KeyError):
        # Tokens disagree about the code; with SoftHSM it is CKR_GENERAL_ERROR.
        raise _refused(token, request) from None


def _no_key(token: pkcs11.Token, session: pkcs11.Session, request: Unwrap) -> Error:
    label = request.wrapped.key_label
    if _find_key(session, label) is None:
        return KeyProviderUnavailable(
            "the token {token} has no key {key}",
            hint="put the key back into the token from its backup",
            token=request.token_label,
            key=label,
        )
    return _other_key(token, request)


def _refused(token: pkcs11.Token, request: Unwrap) -> Error:
    if request.wrapped.serial != _serial(token):
        return _other_key(token, request)
    return VaultTampered(
        "the key {key} of the token {token} does not open the vault key: its file was changed",
        hint="put the file back from its backup",
        key=request.wrapped.key_label,
        token=request.token_label,
    )


def _other_key(token: pkcs11.Token, request: Unwrap) -> WrongKey:
    return WrongKey(
        "the key {key} of the token {token} ({serial}) is not the one that wrapped the vault key"
        " (in {wrapped_in})",
        hint="plug in the token that wrapped it, or put its key back from the backup",
        key=request.wrapped.key_label,
        token=request.token_label,
        serial=_serial(token),
        wrapped_in=request.wrapped.serial,
    )


def _find_key(session: pkcs11.Session, label: str, key_id: bytes = b"") -> Any:
    """The one key that may wrap, or None: secret or private, never to be read."""
    attributes: dict[Attribute, Any] = {Attribute.LABEL: label}
    if key_id:
        attributes[Attribute.ID] = key_id
    found = [
        each
        for each in session.get_objects(attributes)
        if isinstance(each, pkcs11.SecretKey | pkcs11.PrivateKey)
    ]
    if len(found) > 1:
        raise KeyProviderUnavailable(
            "the token has {count} keys {key}",
            hint="give each key a label of its own",
            count=len(found),
            key=label,
        )
    if found and (found[0][Attribute.EXTRACTABLE] or not found[0][Attribute.SENSITIVE]):
        raise SystemFault(
            "the key {key} can be read out of the token, so it protects nothing",
            hint="set vault.pkcs11.key_label to a label that the token does not have: sesguard"
            " makes a key there that cannot be read",
            key=label,
        )
    return found[0] if found else None


def _oaep(key: Any, act: str, mechanism: str, data: bytes) -> Any:
    method = getattr(key, act)
    return method(data, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=_RSA[mechanism])


def _serial(token: pkcs11.Token) -> str:
    return token.serial.decode("utf-8", "replace")


if __name__ == "__main__":
    main()

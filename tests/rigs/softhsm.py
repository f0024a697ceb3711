"""
SoftHSM2, a token in files: a directory of its own for each test, tokens that come and go.

SoftHSM reads SOFTHSM2_CONF at each C_Initialize, so `in_use` is enough for this process, for those
that it starts, and for one test after another.
"""

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass, TokenFlag

from sesguard.core.secret import Secret
from sesguard.system.files import find_program
from sesguard.vault.providers.pkcs11 import Pkcs11Provider
from sesguard.vault.providers.unlocking import Unlocking

PIN: Final = "not-1234"
OTHER_PIN: Final = "not-5678"
TOKEN: Final = "sesguard test"

MakeProvider = Callable[..., Pkcs11Provider]
"""Makes providers, from a path and what is to differ from the usual."""

_SO_PIN: Final = "so-12345678"
_FLAGS: Final = struct.pack(">QQ", 0x8000534B, 2)
"""How the flags of a token begin in its file: CKA_OS_TOKENFLAGS, an unsigned long."""
_SHOWN: Final = (
    Attribute.LABEL,
    Attribute.TOKEN,
    Attribute.PRIVATE,
    Attribute.SENSITIVE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.VALUE_LEN,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
)


def _first(*patterns: str) -> Path | None:
    found = [each for pattern in patterns for each in sorted(Path("/usr").glob(pattern))]
    return found[0] if found else None


MODULE: Final = _first("lib*/softhsm/libsofthsm*.so", "lib*/*/softhsm/libsofthsm*.so")
SPY: Final = _first("lib*/pkcs11-spy.so", "lib*/*/pkcs11-spy.so")
"""OpenSC's module that writes down each call and passes it on."""

needs_softhsm = pytest.mark.skipif(
    MODULE is None or find_program("softhsm2-util") is None, reason="left out: no SoftHSM here"
)
needs_spy = pytest.mark.skipif(SPY is None, reason="left out: no pkcs11-spy of OpenSC here")


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """A place for tokens."""

    directory: Path

    @property
    def module(self) -> Path:
        """SoftHSM's PKCS#11 library."""
        assert MODULE is not None
        return MODULE

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """SoftHSM has these tokens."""
        tokens = self.directory / "tokens"
        tokens.mkdir(parents=True)
        conf = self.directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOFTHSM2_CONF", str(conf))
            yield

    def add_token(self, label: str, pin: str = PIN) -> None:
        """A new token, empty; its user has a PIN."""
        command = ("softhsm2-util", "--init-token", "--free", "--label", label)
        subprocess.run(
            (*command, "--pin", pin, "--so-pin", _SO_PIN), check=True, capture_output=True
        )

    def unplug(self) -> None:
        """Take all tokens away, keys and all."""
        os.rename(self.directory / "tokens", self.directory / "drawer")
        (self.directory / "tokens").mkdir()

    def plug_in(self) -> None:
        """Put back what `unplug` took away."""
        (self.directory / "tokens").rmdir()
        os.rename(self.directory / "drawer", self.directory / "tokens")

    def offer_only(self, *mechanisms: str) -> None:
        """Let the tokens have these mechanisms and no others."""
        with (self.directory / "softhsm2.conf").open("a") as conf:
            conf.write(f"slots.mechanisms = {','.join(mechanisms)}\n")

    def raise_flag(self, flag: TokenFlag) -> None:
        """Let every token say something more of itself; SoftHSM counts no wrong PINs."""
        for path in self.directory.glob("tokens/*/token.object"):
            content = path.read_bytes()
            start = content.index(_FLAGS) + len(_FLAGS)
            (flags,) = struct.unpack_from(">Q", content, start)
            changed = struct.pack(">Q", flags | flag)
            path.write_bytes(content[:start] + changed + content[start + len(changed) :])

    @contextmanager
    def session(self, token: str, pin: str = PIN) -> Iterator[pkcs11.Session]:
        """A session in this process, in which the user is logged in and may write."""
        library = pkcs11.lib(str(self.module))
        try:
            with library.get_token(token_label=token).open(rw=True, user_pin=pin) as session:
                yield session
        finally:
            pkcs11.unload(str(self.module))

    def make_rsa_pair(self, token: str, label: str, *, key_id: bytes = b"\x01") -> None:
        """A pair of RSA keys for encryption, as pkcs11-tool makes it with ``--usage-decrypt``."""
        usage = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        with self.session(token) as session:
            session.generate_keypair(
                KeyType.RSA, 2048, id=key_id, label=label, store=True, capabilities=usage
            )

    def make_aes_key(
        self,
        token: str,
        label: str,
        *,
        key_id: bytes = b"\x01",
        sensitive: bool = True,
        extractable: bool = False,
        usage: MechanismFlag = MechanismFlag.WRAP | MechanismFlag.UNWRAP,
    ) -> None:
        """An AES key."""
        template = {Attribute.SENSITIVE: sensitive, Attribute.EXTRACTABLE: extractable}
        with self.session(token) as session:
            session.generate_key(
                KeyType.AES,
                256,
                id=key_id,
                label=label,
                store=True,
                capabilities=usage,
                template=template,
            )

    def destroy_keys(self, token: str, label: str) -> None:
        """Every key with that label."""
        with self.session(token) as session:
            for each in list(session.get_objects({Attribute.LABEL: label})):
                each.destroy()

    def secret_keys(self, token: str) -> list[dict[str, object]]:
        """What each secret key of a token says of itself."""
        with self.session(token) as session:
            found = session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})
            return [{name.name: each[name] for name in _SHOWN} for each in list(found)]


def giving(pin: str) -> Unlocking:
    """A person who types this PIN."""
    return Unlocking("PIN", None, "sesguard-pin", lambda _what, *, new: Secret(pin))

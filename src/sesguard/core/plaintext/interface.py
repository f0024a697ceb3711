"""
What a parser of plaintext is, and what it finds.

A parser reports a pair only when the user has the shape of an access key id and the password that
of an SES SMTP password. Two passwords that cannot work are reported as well, with the reason in
`FoundCredential.problem`: a raw IAM secret key given as the password, which is a frequent mistake,
and a password of signature version 2.

Parsers raise nothing, on any text, and take time in proportion to its length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from sesguard.core.secret import Secret
from sesguard.core.shapes import is_access_key_id, is_smtp_password, looks_like_secret_key
from sesguard.core.smtp_password import PasswordVersion, password_version

RAW_KEY: Final = "the password is the raw IAM secret key; SES wants the one derived from it"
OLD_SIGNATURE: Final = "the password is of signature version 2, which SES refuses since 2021"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FoundCredential:
    """One SMTP user and password that lie in plaintext."""

    username: str
    """The access key id."""
    password: Secret
    host: str | None
    """The SES host named with it, if any."""
    port: int | None
    line: int
    """Line of the password, from 1."""
    kind: str
    """The form it has, for people: ``exim client_send``, ``dotenv``."""
    problem: str | None
    """Why it cannot work as it stands, or None."""


class Parser(Protocol):
    """Finds the credentials of one family of formats."""

    @property
    def name(self) -> str:
        """Name for messages and for ``parser_named``."""
        ...

    def find(self, text: str) -> Iterator[FoundCredential]:
        """Give the credentials in `text`, in the order of their passwords."""
        ...


def judge(
    username: str,
    password: str,
    *,
    line: int,
    kind: str,
    host: str | None = None,
    port: int | None = None,
) -> FoundCredential | None:
    """The finding for a pair, or None when it does not have the shape of an SES credential."""
    if not is_access_key_id(username):
        return None
    if is_smtp_password(password):
        old = password_version(password) is PasswordVersion.V2
        problem = OLD_SIGNATURE if old else None
    elif looks_like_secret_key(password):
        problem = RAW_KEY
    else:
        return None
    return FoundCredential(username, Secret(password), host, port, line, kind, problem)


def present(item: _T | None) -> tuple[_T, ...]:
    """`item` as a sequence of one, or of none."""
    return () if item is None else (item,)

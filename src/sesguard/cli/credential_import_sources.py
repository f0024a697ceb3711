"""
Where an imported credential comes from: each source gives one user and its passwords.

A password is a `Secret` from the moment it is read, and a secret access key does not leave
`from_access_key`. Input is bounded (`MAX_BYTES`). Several different credentials in one source are
listed by key id, line and form, and the user is asked to choose; never is one guessed.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.cli.i18n import _
from sesguard.cli.output import Output, is_interactive
from sesguard.core.endpoints import region_of_host
from sesguard.core.plaintext.detect import find_credentials
from sesguard.core.plaintext.interface import RAW_KEY, FoundCredential, judge
from sesguard.core.secret import Secret
from sesguard.core.shapes import is_access_key_id, is_smtp_password, looks_like_secret_key
from sesguard.core.smtp_password import derive_for_regions
from sesguard.errors import CredentialError, Error, UsageError
from sesguard.system.files import read_file
from sesguard.vault.openssl_legacy import CredentialPart, decrypt_credential_part

MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one source. Configuration files are far smaller."""

_TEMPORARY_KEY_ID: Final = re.compile(r"ASIA[A-Z0-9]{16}")
_STDIN: Final = "standard input"


@dataclass(frozen=True, slots=True)
class Plaintext:
    """One SMTP user and its passwords."""

    username: str
    passwords: Mapping[str | None, Secret]
    """AWS region to password; None where the source does not say for which region it is."""
    origin: str
    """For `CredentialVersion.origin`."""


def from_file(output: Output, path: Path, username: str | None) -> Plaintext:
    """
    Search a file of any format.

    Raises:
        CredentialError: No usable credential in it.
        UsageError: Several, and `username` does not say which.
        SystemFault: It cannot be read.
    """
    return _from_text(output, _read(path), str(path), username)


def from_stdin(output: Output, username: str | None) -> Plaintext:
    """
    Search what comes from standard input.

    Raises:
        CredentialError: As `from_file`.
        UsageError: As `from_file`.
    """
    if is_interactive():
        output.note(_("Paste USER:PASSWORD or a DSN, then press Ctrl-D on a line of its own."))
    return _from_text(output, sys.stdin.buffer.read(MAX_BYTES), _STDIN, username)


def from_access_key(output: Output, regions: Sequence[str]) -> Plaintext:
    """
    Derive the password of every region from an IAM access key, and forget the key.

    Raises:
        CredentialError: Not an access key.
    """
    if is_interactive():
        key_id = output.ask(_("Access key id"))
        secret_key = output.ask_secret(_("Secret access key"))
    else:
        key_id, secret_key = _parse_access_key(sys.stdin.buffer.read(MAX_BYTES))
    passwords = derive_for_regions(secret_key, regions)
    return Plaintext(
        _require_key_id(key_id),
        {region: passwords[region] for region in regions},
        "derived from an IAM access key",
    )


def from_encrypted(
    output: Output,
    paths: Sequence[Path],
    key_file: Path | None,
    iv: str | None,
    username: str | None,
) -> Plaintext:
    """
    Decrypt what a script wrote with PHP's openssl_encrypt or openssl enc.

    Args:
        output: Asks for the key.
        paths: One file with user and password, or one for each.
        key_file: File with the key; None: it is asked for, or the first line of standard input.
        iv: As the script has it.
        username: The user, when the files hold the password only.

    Raises:
        CredentialError: The key does not fit, or a part is missing.
        SystemFault: A file cannot be read.
    """
    key = _read_key(output, key_file)
    parts = [_decrypt(path, key, iv) for path in paths]
    usernames = {part.username for part in parts if part.username} | {username} - {None}
    passwords = [part.password for part in parts if part.password is not None]
    if len(usernames) != 1 or len(passwords) != 1:
        raise CredentialError(
            "the encrypted files hold {users} users and {passwords} passwords, not one of each",
            hint="give both files, or the user with --username",
            users=len(usernames),
            passwords=len(passwords),
        )
    source = " and ".join(str(path) for path in paths)
    key_id = _require_key_id(str(usernames.pop()))
    item = judge(key_id, passwords[0].reveal(), line=1, kind=parts[0].variant)
    assert item is not None
    if item.problem is not None:
        raise _explain(item, source)
    return Plaintext(key_id, {None: item.password}, f"imported from {source} ({item.kind})")


def _from_text(output: Output, content: bytes, source: str, username: str | None) -> Plaintext:
    text = content.decode("utf-8", "surrogateescape")
    found = find_credentials(text, None if source == _STDIN else source)
    if username is not None:
        found = [item for item in found if item.username == username]
    if not found:
        raise CredentialError(
            "there is no SES credential in {source}",
            hint="a user is AKIA and 16 more characters, an SMTP password 44 characters",
            source=source,
        )
    if len({item.username for item in found}) > 1:
        _list_found(output, found, source)
        raise UsageError(
            "there are several credentials in {source}",
            hint="choose one with --username",
            source=source,
        )
    usable = [item for item in found if item.problem is None]
    if not usable:
        raise _explain(found[0], source)
    origin = f"imported from {source} ({usable[0].kind})"
    return Plaintext(usable[0].username, _by_region(usable, source), origin)


def _by_region(found: Sequence[FoundCredential], source: str) -> dict[str | None, Secret]:
    """Region to password: those that a host stands beside, or else the only one there is."""
    placed: dict[str | None, Secret] = {}
    loose: list[FoundCredential] = []
    for item in found:
        region = region_of_host(item.host) if item.host else None
        if region is None:
            loose.append(item)
        elif placed.setdefault(region, item.password) != item.password:
            raise _second_password(item, source)
    passwords = placed or {None: loose[0].password}
    for item in loose:
        if item.password not in passwords.values():
            raise _second_password(item, source)
    return passwords


def _second_password(item: FoundCredential, source: str) -> CredentialError:
    return CredentialError(
        "{source}, line {line}: a second, different password of {username}",
        hint="find out which one works, and import that one with --stdin",
        source=source,
        line=item.line,
        username=item.username,
    )


def _list_found(output: Output, found: Sequence[FoundCredential], source: str) -> None:
    for item in found:
        where = f" {item.host}" if item.host else ""
        output.note(f"  {item.username}  {source}:{item.line}  ({item.kind}){where}")


def _explain(item: FoundCredential, source: str) -> Error:
    if item.problem == RAW_KEY:
        return CredentialError(
            "{source}, line {line}: the password of {username} is the IAM secret access key itself",
            hint="run it again with --access-key: the SMTP password is derived, the key dropped",
            source=source,
            line=item.line,
            username=item.username,
        )
    return CredentialError(
        "{source}, line {line}: the password of {username} is of signature version 2, "
        "which SES refuses",
        hint="make a new access key for an SMTP user in IAM and import it with --access-key",
        source=source,
        line=item.line,
        username=item.username,
    )


def _parse_access_key(content: bytes) -> tuple[str, Secret]:
    """Find key id and secret key: two lines, ``ID:KEY``, the console's CSV, an AWS profile."""
    words = re.split(r"[\s:,;=\"']+", content.decode("utf-8", "replace"))
    ids = dict.fromkeys(w for w in words if is_access_key_id(w) or _TEMPORARY_KEY_ID.fullmatch(w))
    keys = dict.fromkeys(w for w in words if looks_like_secret_key(w) or is_smtp_password(w))
    if len(ids) != 1 or len(keys) != 1:
        raise CredentialError(
            "standard input holds {ids} access key ids and {keys} secret keys, not one of each",
            hint="give the key id and the secret access key on two lines",
            ids=len(ids),
            keys=len(keys),
        )
    return next(iter(ids)), Secret(next(iter(keys)))


def _require_key_id(text: str) -> str:
    key_id = text.strip()
    if _TEMPORARY_KEY_ID.fullmatch(key_id):
        raise CredentialError(
            "{id} is a temporary access key, and SES SMTP takes none",
            hint="make an access key (AKIA...) for an IAM user",
            id=key_id,
        )
    if not is_access_key_id(key_id):
        # Not shown: it may be the secret, given in the wrong place.
        raise CredentialError(
            "the access key id does not have the form of one",
            hint="it is AKIA and 16 more capital letters and digits",
        )
    return key_id


def _read_key(output: Output, key_file: Path | None) -> Secret:
    if key_file is None:
        return output.ask_secret(_("Key of the encrypted file"))
    return Secret(_read(key_file).decode("utf-8", "surrogateescape").rstrip("\r\n"))


def _decrypt(path: Path, key: Secret, iv: str | None) -> CredentialPart:
    return decrypt_credential_part(_read(path), key, iv.encode() if iv is not None else None)


def _read(path: Path) -> bytes:
    """The content of a file that the user named; a link of the user's is followed."""
    return read_file(path.resolve(), max_bytes=MAX_BYTES).content

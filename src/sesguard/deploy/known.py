"""
The secrets that the vault knows, as something to search for and to take out of files.

Every version of every credential counts: an old password in a backup may still work.
"""

from collections.abc import Mapping
from typing import final

from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.encodings import encoded_forms
from sesguard.core.plaintext.redact import redact
from sesguard.core.secret import Secret


@final
class KnownSecrets:
    """The passwords of some credentials, each with its user."""

    def __init__(self, credentials: Mapping[str, Credential]) -> None:
        self._pairs: list[tuple[Secret, str]] = [
            (password, version.username)
            for credential in credentials.values()
            for version in credential.versions
            for password in version.passwords.values()
        ]
        self._current: list[Secret] = [
            password
            for credential in credentials.values()
            if (version := credential.labelled(StagingLabel.CURRENT)) is not None
            for password in version.passwords.values()
        ]

    def needles(self) -> dict[str, bytes]:
        """Every encoded form of every password, named by user and form."""
        return {
            f"{username} {form}": value
            for password, username in self._pairs
            for form, value in encoded_forms(password, username).items()
        }

    def retired(self) -> list[bytes]:
        """The passwords that are not those of a CURRENT version."""
        return [
            password.reveal().encode()
            for password, _username in self._pairs
            if password not in self._current
        ]

    def knows(self, text: str) -> bool:
        """Whether `text` is one of the passwords."""
        return any(Secret(text) == password for password, _username in self._pairs)

    def redacted(self, content: bytes) -> bytes:
        """`content` with every form of every password replaced by a harmless word."""
        for password, username in self._pairs:
            content, _count = redact(content, [password], username)
        return content

    def without_lines(self, content: bytes) -> bytes:
        """`content` without the lines that hold a password as it is."""
        raw = [password.reveal().encode() for password, _username in self._pairs]
        return b"".join(
            line
            for line in content.splitlines(keepends=True)
            if not any(value in line for value in raw)
        )

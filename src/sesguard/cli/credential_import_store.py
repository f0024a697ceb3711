"""Commits an imported credential to the vault, in one durable step."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.secret import Secret
from sesguard.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Stored:
    """What an import did."""

    version: CredentialVersion
    """The CURRENT version."""
    is_new: bool
    """Whether it was made by this import."""


def store(
    vault: Vault, name: str, username: str, passwords: Mapping[str, Secret], origin: str
) -> Stored:
    """
    Make user and passwords the CURRENT version of a credential, marked as exposed.

    Passwords of the same user for other regions are kept. When all of it is CURRENT already nothing
    is written.

    Args:
        vault: The vault.
        name: Name of the credential; made when the vault has none of that name.
        username: The access key id.
        passwords: AWS region to SMTP password.
        origin: Where it came from, for people.

    Raises:
        CredentialError: A rotation of the credential is under way.
        VaultError: The vault cannot be changed; nothing was.
    """
    made: list[int] = []

    def change(credential: Credential) -> Credential:
        present = credential.labelled(StagingLabel.CURRENT)
        known = present.passwords if present and present.username == username else {}
        wanted = {**known, **passwords}
        if wanted == dict(known):
            return credential
        made.append(credential.next_number)
        version = CredentialVersion(
            credential.next_number, username, wanted, _now(), origin, exposed=True
        )
        return credential.add_pending(version).promote()

    current = vault.update(name, change).current()
    return Stored(current, current.number in made)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

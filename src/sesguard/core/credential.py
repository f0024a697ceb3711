"""
The credential and its versions.

A credential is an SMTP user and password with the IAM access key behind them. It has numbered
versions, and some of them carry a staging label, as in AWS Secrets Manager, but for the last:

    PENDING    made, not in use yet
    CURRENT    what lookup and relay hand out
    PREVIOUS   what CURRENT was before; kept until nothing uses it
    HELD       what was CURRENT when it leaked; nothing is handed out, and mail waits

    add_pending      (none)  -> PENDING
    promote          PENDING -> CURRENT, CURRENT -> PREVIOUS
    demote           PREVIOUS -> CURRENT, CURRENT -> PENDING   (the roll-back of promote)
    hold             CURRENT -> HELD; promote then takes HELD away
    withdraw         CURRENT -> (none)
    drop             removes a version that is not CURRENT

Everything is frozen: a transition returns a new `Credential`, and an illegal one raises.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from sesguard.core.endpoints import region_of_host
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class StagingLabel(StrEnum):
    """Role of a version; each label is on at most one version."""

    CURRENT = "CURRENT"
    PENDING = "PENDING"
    PREVIOUS = "PREVIOUS"
    HELD = "HELD"


@dataclass(frozen=True, slots=True)
class CredentialVersion:
    """One SMTP user and password."""

    number: int
    """1, 2, 3, ...; never reused within a credential."""
    username: str
    """The access key id."""
    passwords: Mapping[str, Secret]
    """AWS region to SMTP password."""
    created_at: str
    """RFC 3339, UTC."""
    origin: str
    """Where it came from, for people: ``issued``, ``imported from /etc/exim4/passwd.client``."""
    exposed: bool = False
    """Whether it lay in plaintext somewhere and should be rotated."""
    deactivated_at: str | None = None
    """RFC 3339, UTC: since when sesguard has its key deactivated; None while it has not."""

    def password_for(self, host: str) -> Secret:
        """
        The password that works at `host`.

        A host that names no region (a sandbox, a private DNS name) gets the only password there is.

        Raises:
            CredentialError: No password for the region of `host`, or the choice is not clear.
        """
        region = region_of_host(host)
        if region is None and len(self.passwords) == 1:
            return next(iter(self.passwords.values()))
        password = self.passwords.get(region) if region else None
        if password is None:
            raise CredentialError(
                "version {number} has no SMTP password for {host}; it has {regions}",
                hint="add the region to the credential's settings and rotate the credential",
                number=self.number,
                host=host,
                regions=", ".join(self.passwords) or "none",
            )
        return password


@dataclass(frozen=True, slots=True)
class Credential:
    """A named credential: its versions and which label is on which."""

    credential_id: str
    versions: tuple[CredentialVersion, ...] = ()
    labels: Mapping[StagingLabel, int] = field(default_factory=dict)
    next_number: int = 1
    """Number of the next version; only ever grows, so that a dropped number is not used twice."""

    def __post_init__(self) -> None:
        require_credential_id(self.credential_id)
        numbers = [version.number for version in self.versions]
        if numbers != sorted(set(numbers)) or any(not 1 <= n < self.next_number for n in numbers):
            raise CredentialError(
                "the version numbers of credential {id} are not in order", id=self.credential_id
            )
        if len(set(self.labels.values())) != len(self.labels) or not set(
            self.labels.values()
        ) <= set(numbers):
            raise CredentialError(
                "the labels of credential {id} do not fit its versions", id=self.credential_id
            )

    def version(self, number: int) -> CredentialVersion:
        """
        The version with that number.

        Raises:
            CredentialError: There is none.
        """
        version = self.find(number)
        if version is None:
            raise CredentialError(
                "credential {id} has no version {number}", id=self.credential_id, number=number
            )
        return version

    def find(self, number: int) -> CredentialVersion | None:
        """The version with that number, or None."""
        return next((version for version in self.versions if version.number == number), None)

    def labelled(self, label: StagingLabel) -> CredentialVersion | None:
        """The version that carries `label`, or None."""
        number = self.labels.get(label)
        return None if number is None else self.version(number)

    def label_of(self, number: int) -> StagingLabel | None:
        """The label on a version, or None."""
        return next((label for label, n in self.labels.items() if n == number), None)

    def of_key(self, access_key_id: str) -> CredentialVersion | None:
        """The version with that access key, or None."""
        return next((v for v in self.versions if v.username == access_key_id), None)

    def current(self) -> CredentialVersion:
        """
        The version in use.

        Raises:
            CredentialError: None is.
        """
        version = self.labelled(StagingLabel.CURRENT)
        if StagingLabel.HELD in self.labels:
            raise CredentialError(
                "the mail of credential {id} is held, because its key leaked",
                hint="run: sesguard panic --credential {id}",
                id=self.credential_id,
            )
        if version is None:
            raise CredentialError(
                "credential {id} has no CURRENT version",
                hint="run: sesguard credential import",
                id=self.credential_id,
            )
        return version

    def add_pending(self, version: CredentialVersion) -> "Credential":
        """
        Add `version` as PENDING.

        Raises:
            CredentialError: Another version is PENDING, or the number is not the next one.
        """
        if StagingLabel.PENDING in self.labels:
            raise CredentialError(
                "credential {id} already has a PENDING version",
                hint="finish or undo the rotation that made it",
                id=self.credential_id,
            )
        if version.number != self.next_number:
            raise CredentialError(
                "the next version of credential {id} is {expected}, not {number}",
                id=self.credential_id,
                expected=self.next_number,
                number=version.number,
            )
        return replace(
            self,
            versions=(*self.versions, version),
            labels={**self.labels, StagingLabel.PENDING: version.number},
            next_number=self.next_number + 1,
        )

    def promote(self) -> "Credential":
        """
        Make PENDING the CURRENT version, and CURRENT the PREVIOUS one.

        Raises:
            CredentialError: Nothing is PENDING.
        """
        return self._moved(StagingLabel.PENDING, StagingLabel.PREVIOUS)

    def demote(self) -> "Credential":
        """
        Undo `promote`: PREVIOUS is CURRENT again, and CURRENT is PENDING again.

        Raises:
            CredentialError: Nothing is PREVIOUS, or something is PENDING.
        """
        if StagingLabel.PENDING in self.labels:
            raise CredentialError(
                "credential {id} already has a PENDING version", id=self.credential_id
            )
        return self._moved(StagingLabel.PREVIOUS, StagingLabel.PENDING)

    def _moved(self, source: StagingLabel, old_current: StagingLabel) -> "Credential":
        """Move the label CURRENT to the version labelled `source`; the old one gets a new label."""
        number = self.labels.get(source)
        if number is None:
            raise CredentialError(
                "credential {id} has no {label} version", id=self.credential_id, label=source.value
            )
        labels = dict(self.labels)
        for label in (source, StagingLabel.HELD):
            labels.pop(label, None)
        if StagingLabel.CURRENT in labels:
            labels[old_current] = labels[StagingLabel.CURRENT]
        return replace(self, labels={**labels, StagingLabel.CURRENT: number})

    def hold(self) -> "Credential":
        """Make CURRENT the HELD version, so that nothing is handed out; else change nothing."""
        if StagingLabel.CURRENT not in self.labels:
            return self
        labels = dict(self.labels)
        labels[StagingLabel.HELD] = labels.pop(StagingLabel.CURRENT)
        return replace(self, labels=labels)

    def withdraw(self) -> "Credential":
        """Take the label CURRENT away, so that no version is handed out."""
        labels = dict(self.labels)
        labels.pop(StagingLabel.CURRENT, None)
        return replace(self, labels=labels)

    def with_version(self, version: CredentialVersion) -> "Credential":
        """
        Replace the version of the same number.

        Raises:
            CredentialError: There is none.
        """
        self.version(version.number)
        versions = tuple(version if v.number == version.number else v for v in self.versions)
        return replace(self, versions=versions)

    def drop(self, number: int) -> "Credential":
        """
        Remove a version.

        Raises:
            CredentialError: There is no such version, or it is CURRENT.
        """
        self.version(number)
        if self.label_of(number) is StagingLabel.CURRENT:
            raise CredentialError(
                "version {number} of credential {id} is CURRENT and cannot be dropped",
                id=self.credential_id,
                number=number,
            )
        return replace(
            self,
            versions=tuple(v for v in self.versions if v.number != number),
            labels={label: n for label, n in self.labels.items() if n != number},
        )


def require_credential_id(text: str) -> str:
    """
    Give `text` back when it may name a credential: a-z 0-9 _ -, at most 63 characters.

    Raises:
        CredentialError: It may not.
    """
    if not _ID.fullmatch(text):
        raise CredentialError(
            "{id!r} cannot name a credential",
            hint="use lower-case letters, digits, - and _, at most 63",
            id=text,
        )
    return text

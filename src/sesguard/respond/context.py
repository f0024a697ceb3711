"""What the steps of the response work on: everything that rotation has, and the incident."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sesguard.aws.cloudtrail import TrailEvents
from sesguard.aws.iam import KeyUse
from sesguard.aws.ses import SesSending
from sesguard.aws.users import IamUsers
from sesguard.config.schema import PanicSettings
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.message import Message
from sesguard.errors import CheckFailed, SystemFault
from sesguard.respond.incident import Incident
from sesguard.rotation.context import RotationContext
from sesguard.rotation.keys import find_facts
from sesguard.workflow.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseContext(RotationContext):
    """One leaked key; the steps of a rotation work on it too."""

    panic: PanicSettings
    incident: Incident
    users: IamUsers
    sending: Callable[[str], SesSending]
    """By region."""
    trails: tuple[TrailEvents, ...]
    """One for each region in which events of the key may be; the first has those of IAM."""
    journal: Journal | None
    """None where it cannot be opened."""
    warnings: list[Message] = field(default_factory=list)
    """What a person should know although nothing failed."""
    holders: dict[str, Any] = field(default_factory=dict)
    """Who can ask for the credential on this host, for the evidence."""

    @property
    def access_key_id(self) -> str:
        """The leaked key."""
        return self.incident.record.access_key_id

    def senders(self) -> list[str]:
        """
        The credentials whose mail is sent with the leaked key, or waits because it was.

        Raises:
            VaultError: The vault does not open.
        """
        labels = {StagingLabel.CURRENT, StagingLabel.HELD}
        return [
            name
            for name, credential in self.vault.read().credentials.items()
            for version in credential.versions
            if version.username == self.access_key_id
            and credential.label_of(version.number) in labels
        ]

    def held(self) -> list[str]:
        """
        The credentials whose mail waits because of the leaked key.

        Raises:
            VaultError: The vault does not open.
        """
        credentials = self.vault.read().credentials
        return [
            name
            for name in self.senders()
            if credentials[name].labelled(StagingLabel.HELD) is not None
        ]

    def was_proved(self) -> bool:
        """Whether SES was seen to refuse the leaked key, since `forget_proof`."""
        return self.incident.record.proved_at is not None

    def forget_proof(self) -> str | None:
        """Begin a new proof; gives the time of the old one."""
        before, self.incident.record.proved_at = self.incident.record.proved_at, None
        return before

    def note(self, act: str, detail: str = "", **changes: Any) -> None:
        """
        Write a line into the incident's timeline.

        A full disk does not hold the act up: the line stays in memory and is written with the next.
        """
        with contextlib.suppress(SystemFault):
            self.note_first(act, detail, **changes)

    def note_first(self, act: str, detail: str = "", **changes: Any) -> None:
        """
        As `note`, for what no later run could undo or go on with unless it is on record.

        Raises:
            SystemFault: It cannot be written; the act must not follow.
        """
        self.incident.note(self.pace.timestamp(), act, detail, **changes)

    def leaked_user(self) -> str:
        """
        IAM user of the leaked key: noted, or asked for.

        Raises:
            CheckFailed: AWS knows no such key.
            AwsError: IAM cannot be asked.
        """
        known = self.incident.record.user_name
        if known is not None:
            return known
        facts = find_facts(self.keys, self.access_key_id)
        if facts is None and self.credential.iam_user and self.leaked_version() is not None:
            return self.credential.iam_user
        if facts is None:
            raise CheckFailed(
                "AWS knows no access key {key}: it was deleted, or is of another account",
                hint="check the key id and the AWS account, or set iam_user of the credential",
                key=self.access_key_id,
            )
        use = facts.last_use
        self.note(
            "found the IAM user",
            facts.user_name,
            user_name=facts.user_name,
            last_use=None if use is None else use_json(use),
        )
        return facts.user_name

    def leaked_version(self) -> CredentialVersion | None:
        """The vault's version of the leaked key, of whichever credential, or None."""
        found = (each.of_key(self.access_key_id) for each in self._credentials())
        return next((version for version in found if version is not None), None)

    def _credentials(self) -> list[Credential]:
        """Its own first: the password must be for the host that is asked."""
        credentials = dict(self.vault.read().credentials)
        own = credentials.pop(self.credential_id, Credential(self.credential_id))
        return [own, *credentials.values()]


def use_json(use: KeyUse) -> dict[str, str]:
    """A use of a key, for a record."""
    return {
        "at": use.at.isoformat(timespec="seconds"),
        "service": use.service,
        "region": use.region,
    }

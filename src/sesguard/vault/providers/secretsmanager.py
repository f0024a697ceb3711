"""
The key provider ``secretsmanager``: the vault key is a secret in AWS Secrets Manager.

The value is one line of text (`sesguard.vault.providers.key_line`). It is read at each start, with
the AWS credentials of the host: an instance role, say. What goes away later stops nothing.

The version with the stage AWSCURRENT is the vault key. The next one is made as AWSPENDING, and
becomes the vault key when AWSCURRENT is moved to it; then AWSPREVIOUS and AWSPENDING are taken
away. A version without a stage is what AWS calls deprecated: it deletes it some time, and until
then whoever may read the secret and knows the id of the version can read the old key.

A secret that is missing is made, where `secret_id` is a name. One that has no version yet is
filled, so it may be made by others, with a KMS key and a policy of its own. Each vault needs a
secret of its own: the change of a key by one host takes the key from any other that reads it.

A secret that AWS rotates would get a value that is no key, or not this one, so it is refused.

Calls are given up within 45 s where nobody answers (`sesguard.aws.session.START`).

Raises, beside what every provider does: `KeyProviderDenied` (no right, no credentials, a wrong
clock), `KeyProviderUnavailable` (no answer, too many calls; a secret with another value, one that
is rotated, or about to be deleted).
"""

import uuid
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from sesguard.aws.errors import AwsMissing
from sesguard.aws.secrets_manager import CURRENT, PENDING, PREVIOUS, ManagedSecret, SecretFacts
from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret
from sesguard.errors import KeyProviderUnavailable
from sesguard.vault import cipher
from sesguard.vault.providers.aws_refusals import aws_refusals
from sesguard.vault.providers.interface import ProviderDescription
from sesguard.vault.providers.key_line import decode_key, encode_key
from sesguard.vault.providers.stored import Slot, StoredKeyProvider

_STAGES: Final[Mapping[Slot, str]] = {Slot.CURRENT: CURRENT, Slot.NEXT: PENDING}
_ABOUT: Final = "Key of a vault of sesguard. Without it the vault is lost: no rotation, please."

_DESCRIPTION: Final = ProviderDescription(
    protects=(
        "the disk, or a snapshot or backup of it, is worth nothing without the right to the secret",
        "AWS logs each reading of the secret, and without that right no new start opens the vault",
        "a changed, mixed up or exchanged record is refused",
    ),
    does_not_protect=(
        "who may read the secret, as AWS administrators, has the key, and for a time the old one",
        "a web user that gets at the role of the instance reads the secret, though not the vault",
        "when the secret is deleted, the vault is lost",
        "root on this host can use the key",
    ),
)


class SecretsManagerProvider(StoredKeyProvider):
    """
    Wraps data keys with a key that is a secret; see the module docstring.

    Args:
        secret_id: Name or ARN.
        connect: Makes the session, in the region of the secret. It is kept until `load` is done.
    """

    name: ClassVar[str] = "secretsmanager"

    def __init__(self, secret_id: str, connect: Callable[[], AwsSession]) -> None:
        super().__init__()
        self._secret_id: Final = secret_id
        self._connect: Final = connect
        self._session: AwsSession | None = None

    @property
    def place(self) -> str:
        """Name or ARN of the secret."""
        return self._secret_id

    def describe(self) -> ProviderDescription:
        """What it protects against and what it does not."""
        return _DESCRIPTION

    def _exists(self, slot: Slot) -> bool:
        facts = self._facts()
        return facts is not None and facts.version_in(_STAGES[slot]) is not None

    def _is_taken(self) -> bool:
        facts = self._facts()
        current = facts.version_in(CURRENT) if facts else None
        # The first version of a secret has both stages; it is of a change that was cut short.
        return bool(facts and current and current != facts.version_in(PENDING))

    def _fetch(self, slot: Slot) -> bytes:
        with aws_refusals(self.place):
            value = self._secret().read(stage=_STAGES[slot])
        key = b"" if value is None else decode_key(value.reveal().strip().encode() + b"\n")
        if len(key) != cipher.KEY_BYTES:
            raise KeyProviderUnavailable(
                "the version {stage} of the secret {place} is no vault key",
                hint="put the key back from its backup",
                stage=_STAGES[slot],
                place=self.place,
            )
        return key

    def _store(self, slot: Slot, key: bytes) -> None:
        secret, token = self._secret(), str(uuid.uuid4())
        value = Secret(encode_key(key).decode().rstrip())
        with aws_refusals(self.place):
            if self._facts() is None:
                self._require_name()
                secret.ensure_exists(_ABOUT)
            if slot is Slot.NEXT:
                secret.put_pending(token, value)
            else:
                secret.put_current(token, value)

    def _promote(self) -> None:
        facts = self._facts()
        current = facts.version_in(CURRENT) if facts else None
        following = facts.version_in(PENDING) if facts else None
        if following is None:
            return
        with aws_refusals(self.place):
            # They are the same in a first version, and where an earlier promotion got so far.
            if following != current:
                self._secret().move_current(to=following, away_from=current)
            previous = self._secret().describe().version_in(PREVIOUS)
            if previous is not None:
                self._secret().remove_stage(PREVIOUS, away_from=previous)
            # The last one: as long as it is there, the promotion is not finished.
            self._secret().remove_stage(PENDING, away_from=following)

    def _facts(self) -> SecretFacts | None:
        """What is known of the secret, which is fit to be used; None when there is none."""
        with aws_refusals(self.place):
            try:
                facts = self._secret().describe()
            except AwsMissing:
                return None
        if facts.deletion_scheduled:
            raise KeyProviderUnavailable(
                "the secret {place} is about to be deleted",
                hint="keep it: aws secretsmanager restore-secret --secret-id {place}",
                place=self.place,
            )
        if facts.rotation_enabled:
            raise KeyProviderUnavailable(
                "the secret {place} is rotated by AWS, which would replace the vault key",
                hint="end that: aws secretsmanager cancel-rotate-secret --secret-id {place}; if it"
                " was rotated already, move AWSCURRENT back to the version with the key",
                place=self.place,
            )
        return facts

    def _require_name(self) -> None:
        if self.place.startswith("arn:"):
            raise KeyProviderUnavailable(
                "there is no secret {place}",
                hint="correct vault.secretsmanager.secret_id, or give it the name of a secret that"
                " is to be made",
                place=self.place,
            )

    def _forget(self) -> None:
        self._session = None

    def _secret(self) -> ManagedSecret:
        self._session = self._session or self._connect()
        return ManagedSecret(self._session, self.place)

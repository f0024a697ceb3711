"""
The rotation of an SES SMTP credential as a rotation function of AWS Secrets Manager.

`handler` is the entry point of the Lambda function. Secrets Manager calls it four times, in order:

    createSecret   a second key; its passwords become the value of AWSPENDING
    setSecret      nothing is set at SES: the key must be there and active
    testSecret     SES must take it, several times in a row
    finishSecret   SES must take it now; then it becomes AWSCURRENT

and a schedule of yours calls it once a day with the step ``retire``, which deactivates, and later
deletes, the key before (`sesguard.rotation.managed_keys`). Without that schedule the next
createSecret does so.

Promises: every step may be repeated, and may be killed at any point; the repetition goes on from
there. AWSCURRENT does not move before the new key logs in. Both keys work from then on, so a host
may take the new value when it likes, within the time of grace. A user never has more than two keys,
and none that only a dead call knows. A key that is foreign, or in use, is named and left alone.

A failure raises, and Secrets Manager calls again later. What happened goes to standard output, a
JSON object a line: never a secret.

Environment: ``SESGUARD_GRACE_HOURS`` (default 24), ``SESGUARD_CA_FILE`` (default: the system's).

Limits: a version of a secret cannot change its value, so a pending version whose key somebody
deleted can only be given up; the message says how.

Source: the AWS Secrets Manager guide, "Rotation by Lambda function".
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from sesguard.aws.iam import IamKeys, KeyStatus, NewAccessKey
from sesguard.aws.secrets_manager import CURRENT, PENDING, PREVIOUS, ManagedSecret, SecretFacts
from sesguard.aws.session import AwsSession
from sesguard.aws.users import IamUsers
from sesguard.core.smtp_password import derive_for_regions
from sesguard.errors import AwsError, CheckFailed, Error, SettingsError
from sesguard.rotation.context import Pace
from sesguard.rotation.keys import find_status, make_key
from sesguard.rotation.login import wait_until_valid
from sesguard.rotation.managed_keys import ManagedKeys
from sesguard.rotation.managed_value import ManagedValue, parse_value

DEFAULT_GRACE_HOURS: Final = 24.0

_LONGEST_TEST_S: Final = 120.0
_RESERVE_S: Final = 15.0
"""Kept for the last attempt at a login, and for what comes after."""


class LambdaContext(Protocol):
    """What is used of the second argument of a Lambda handler."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is killed."""
        ...


def handler(event: Mapping[str, Any], context: LambdaContext) -> None:
    """
    Take one step.

    Args:
        event: ``SecretId`` and ``Step``, and ``ClientRequestToken`` except for ``retire``.
        context: Of the call.

    Raises:
        CheckFailed: The step cannot be taken as things are.
        UpstreamError: SES does not take the new key.
        AwsError: AWS refused, or could not be reached.
        SettingsError: The event or the environment does not fit.
    """
    secret_id, step = _text(event, "SecretId"), _text(event, "Step")
    log = {"secret": secret_id, "step": step}
    try:
        rotation = _rotation(secret_id, context)
        if step == "retire":
            outcome = rotation.retire()
        else:
            outcome = rotation.take(step, _text(event, "ClientRequestToken"))
    except Error as error:
        _write(log | {"outcome": "failed", "reason": str(error), "hint": error.hint or ""})
        raise
    _write(log | {"outcome": outcome})


@dataclass(frozen=True, slots=True)
class SecretRotation:
    """The steps for one secret; each gives what was done, for the log."""

    secret: ManagedSecret
    keys: IamKeys
    managed: ManagedKeys
    test_timeout_s: float
    ca_file: Path | None
    pace: Pace

    def take(self, step: str, token: str) -> str:
        """Check that `token` is what is being rotated, and take the step."""
        steps: dict[str, Callable[[str, SecretFacts], str]] = {
            "createSecret": self._create,
            "setSecret": self._set,
            "testSecret": self._test,
            "finishSecret": self._finish,
        }
        if step not in steps:
            raise SettingsError("there is no step {step!r}", step=step)
        facts = self.secret.describe()
        if not facts.rotation_enabled:
            raise CheckFailed("rotation of {secret} is not enabled", secret=facts.arn)
        stages = facts.stages.get(token, ())
        if CURRENT in stages:
            return self._clean_up() if step == "finishSecret" else "is current already"
        if PENDING not in stages:
            raise CheckFailed(
                "version {token} of {secret} is not pending", token=token, secret=facts.arn
            )
        return steps[step](token, facts)

    def retire(self) -> str:
        """Go one step towards the end of the old key."""
        return self.managed.retire(self._current(), self._previous())

    def _create(self, token: str, _facts: SecretFacts) -> str:
        if self._read(PENDING, token) is not None:
            return "is made already"
        current = self._current()
        user = current.iam_user
        known = self.managed.free_slot(current, self._previous())
        self.managed.write_intent(user, known)
        made = make_key(self.keys, user, known, self.pace)
        self._keep(token, current, made)
        return f"made {made.access_key_id}"

    def _keep(self, token: str, current: ManagedValue, made: NewAccessKey) -> None:
        """Make the new key the pending value; take it back when that cannot be."""
        value = msgspec.structs.replace(
            current,
            username=made.access_key_id,
            passwords=derive_for_regions(made.secret_key, current.regions),
            created_at=self.pace.now().replace(microsecond=0),
        )
        try:
            self.secret.put_pending(token, value.seal())
        except AwsError:
            # The answer may be lost only. When that cannot be told, the next attempt finds out.
            kept = self._read(PENDING, token)
            if kept is None or kept.username != made.access_key_id:
                self.keys.ensure_key_deleted(current.iam_user, made.access_key_id)
                raise

    def _set(self, token: str, _facts: SecretFacts) -> str:
        pending = self._pending(token)
        assert pending.username is not None
        status = find_status(self.keys, pending.iam_user, pending.username)
        if status is not KeyStatus.ACTIVE:
            raise CheckFailed(
                "the new key {key} is {status}",
                hint="activate it, or give this rotation up: aws secretsmanager "
                "update-secret-version-stage --secret-id {secret} --version-stage AWSPENDING "
                "--remove-from-version-id {token}",
                key=pending.username,
                status="deleted" if status is None else "deactivated",
                secret=self.secret.secret_id,
                token=token,
            )
        return "nothing to set"

    def _test(self, token: str, _facts: SecretFacts) -> str:
        pending = self._pending(token)
        version, settings = pending.credential_version(), pending.settings(self.ca_file)
        wait_until_valid(version, settings, self.test_timeout_s, self.pace)
        return f"{version.username} logs in"

    def _finish(self, token: str, facts: SecretFacts) -> str:
        self._test(token, facts)
        self.secret.move_current(to=token, away_from=facts.version_in(CURRENT))
        return self._clean_up()

    def _clean_up(self) -> str:
        current = self._current()
        self.managed.forget_intent(current.iam_user)
        return f"{current.username} is current"

    def _current(self) -> ManagedValue:
        found = self._read(CURRENT)
        if found is None:
            raise CheckFailed(
                "{secret} has no value that says whose key is wanted",
                hint="give it a first value, as docs/formats/managed-secret.md says",
                secret=self.secret.secret_id,
            )
        return found

    def _previous(self) -> ManagedValue | None:
        try:
            return self._read(PREVIOUS)
        except CheckFailed:
            return None  # From before sesguard: its key is foreign to us.

    def _pending(self, token: str) -> ManagedValue:
        found = self._read(PENDING, token)
        if found is None or found.username is None:
            raise CheckFailed(
                "version {token} of {secret} has no key yet",
                token=token,
                secret=self.secret.secret_id,
            )
        return found

    def _read(self, stage: str, version_id: str | None = None) -> ManagedValue | None:
        text = self.secret.read(stage=stage, version_id=version_id)
        return None if text is None else parse_value(text, self.secret.secret_id)


def _rotation(secret_id: str, context: LambdaContext) -> SecretRotation:
    session, pace = AwsSession(_region(secret_id)), Pace()
    keys = IamKeys(session)
    left_s = context.get_remaining_time_in_millis() / 1000
    ca_file = os.environ.get("SESGUARD_CA_FILE")
    return SecretRotation(
        ManagedSecret(session, secret_id),
        keys,
        ManagedKeys(keys, IamUsers(session), _grace(), pace),
        max(min(_LONGEST_TEST_S, left_s - _RESERVE_S), 0.0),
        Path(ca_file) if ca_file else None,
        pace,
    )


def _grace() -> timedelta:
    text = os.environ.get("SESGUARD_GRACE_HOURS", "")
    try:
        hours = float(text) if text else DEFAULT_GRACE_HOURS
        if not 0 <= hours <= 8760:
            raise ValueError
    except ValueError:
        raise SettingsError("SESGUARD_GRACE_HOURS is not a number from 0 to 8760") from None
    return timedelta(hours=hours)


def _region(secret_id: str) -> str:
    """The region of an ARN, or else the function's own."""
    parts = secret_id.split(":")
    region = parts[3] if len(parts) > 3 else os.environ.get("AWS_REGION")
    if not region:
        raise SettingsError(
            "the region of {secret} is not known",
            hint="name the secret by its ARN, or set AWS_REGION",
            secret=secret_id,
        )
    return region


def _text(event: Mapping[str, Any], name: str) -> str:
    found = event.get(name)
    if not isinstance(found, str) or not found:
        raise SettingsError("the event has no {name}", name=name)
    return found


def _write(fields: Mapping[str, str]) -> None:
    sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    sys.stdout.flush()

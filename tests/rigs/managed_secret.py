"""A secret that the rotation function looks after, in a sandbox."""

import json
import os
import signal
import smtplib
import traceback
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rigs.sandbox import Login, SandboxRig, eventually
from sesguard.core.secret import Secret
from sesguard.core.shapes import SMTP_PASSWORD
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.rotation.secrets_manager import handler
from sesguard.sandbox.model import ApiFault
from sesguard.sandbox.process import ADMIN_ACCESS_KEY
from sesguard.sandbox.seed import SeededKey

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
USER = "ses-smtp-user.managed"
NAME = "mail/ses"
NO_FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:none"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Remaining:
    """A Lambda context with so many seconds left."""

    seconds: float

    def get_remaining_time_in_millis(self) -> int:
        """See `LambdaContext`."""
        return int(self.seconds * 1000)


@dataclass(slots=True)
class Managed:
    """A managed secret, its IAM user, and the function."""

    rig: SandboxRig
    iam: Any
    store: Any
    arn: str = ""
    known_secrets: list[str] = field(default_factory=list)
    """Whatever must never be shown."""
    seeded: dict[str, SeededKey] = field(default_factory=dict)
    """The keys that were made by hand, by id."""

    def value(self, **changes: Any) -> Document:
        """A first value, with changes."""
        return {
            "version": 1,
            "iam_user": USER,
            "regions": ["us-east-1"],
            "host": self.rig.info.smtp_host,
            "port": self.rig.info.starttls_port,
            **changes,
        }

    def value_of_new_key(self, *, age: timedelta = timedelta(days=90)) -> Document:
        """Make a key by hand, and the value for it."""
        key = self.iam.create_access_key(UserName=USER)["AccessKey"]
        secret_key = Secret(key["SecretAccessKey"])
        self.seeded[key["AccessKeyId"]] = SeededKey(USER, key["AccessKeyId"], secret_key)
        password = derive_smtp_password(secret_key, "us-east-1").reveal()
        self.known_secrets += [key["SecretAccessKey"], password]
        made_at = datetime.now(UTC) - age
        return self.value(
            username=key["AccessKeyId"],
            passwords={"us-east-1": password},
            created_at=made_at.isoformat(timespec="seconds"),
        )

    def create(self, *values: Document | str) -> None:
        """Make the secret, with these values one after the other."""
        for value in values:
            text = value if isinstance(value, str) else json.dumps(value)
            if self.arn:
                self.store.put_secret_value(SecretId=NAME, SecretString=text)
            else:
                self.arn = self.store.create_secret(Name=NAME, SecretString=text)["ARN"]

    def begin(self) -> str:
        """Begin a rotation as Secrets Manager does, up to where it calls the function."""
        pending = self.version_in("AWSPENDING")
        if pending is not None:  # On AWSCURRENT it does no harm at AWS; moto minds.
            self.store.update_secret_version_stage(
                SecretId=NAME, VersionStage="AWSPENDING", RemoveFromVersionId=pending
            )
        token = str(uuid.uuid4())
        with suppress(self.store.exceptions.ResourceNotFoundException):
            self.store.rotate_secret(
                SecretId=NAME,
                ClientRequestToken=token,
                RotationLambdaARN=NO_FUNCTION,
                RotationRules={"AutomaticallyAfterDays": 30},
            )
        return token

    def call(self, step: str, token: str | None = None, *, seconds: float = 60.0) -> None:
        """Call the function."""
        event = {"SecretId": self.arn, "Step": step}
        handler(event | ({"ClientRequestToken": token} if token else {}), Remaining(seconds))

    def rotate(self, token: str | None = None, *, times: int = 1) -> str:
        """Take all steps, each so many times."""
        token = token or self.begin()
        for step in STEPS:
            for _ in range(times):
                self.call(step, token)
        return token

    def version_in(self, stage: str) -> str | None:
        """The version that has the stage."""
        stages = self.store.describe_secret(SecretId=NAME)["VersionIdsToStages"]
        return next((version for version, found in stages.items() if stage in found), None)

    def read(self, stage: str) -> Document:
        """A value."""
        answer = self.store.get_secret_value(SecretId=NAME, VersionStage=stage)
        found: Document = json.loads(answer["SecretString"])
        self.known_secrets += found.get("passwords", {}).values()
        return found

    def username(self, stage: str = "AWSCURRENT") -> str:
        """The key in a value."""
        return str(self.read(stage)["username"])

    def keys(self) -> dict[str, str]:
        """Status of each key of the user, by id."""
        listed = self.iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def use(self, access_key_id: str) -> None:
        """Use a key that was made by hand."""
        self.rig.aws("sts", self.seeded[access_key_id]).get_caller_identity()

    def set_status(self, access_key_id: str, status: str) -> None:
        """Activate or deactivate a key."""
        self.iam.update_access_key(UserName=USER, AccessKeyId=access_key_id, Status=status)

    def tag(self, name: str, value: str) -> None:
        """Give the user a tag of the function's."""
        self.iam.tag_user(UserName=USER, Tags=[{"Key": f"sesguard:{name}", "Value": value}])

    def tags(self) -> dict[str, str]:
        """The tags of the user."""
        return {t["Key"]: t["Value"] for t in self.iam.list_user_tags(UserName=USER)["Tags"]}

    def logs_in(self, stage: str = "AWSCURRENT") -> bool:
        """Whether SES takes a value, read as a host reads it."""
        value = self.read(stage)
        login = Login(value["username"], Secret(value["passwords"]["us-east-1"]))
        try:
            with self.rig.session(login):
                return True
        except smtplib.SMTPAuthenticationError:
            return False


def new_managed(rig: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> Managed:
    """A user without a key, and no secret yet; no time of grace. The sandbox is reset."""
    rig.client.reset()
    for name, value in {
        "AWS_ENDPOINT_URL": rig.info.endpoint_url,
        "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ADMIN_ACCESS_KEY,
        "SESGUARD_CA_FILE": str(rig.info.ca_file),
        "SESGUARD_GRACE_HOURS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    made = Managed(rig, rig.aws("iam"), rig.aws("secretsmanager"))
    made.iam.create_user(UserName=USER)
    return made


def shows_password(error: Exception) -> bool:
    """Whether what Lambda prints of an error has something in it that looks like a password."""
    return SMTP_PASSWORD.search("".join(traceback.format_exception(error))) is not None


def killed_at(managed: Managed, fault: ApiFault, token: str) -> bool:
    """Rotate in a child that is killed when the fault strikes; False when it never does."""
    managed.rig.client.set_api_faults(fault)
    pid = os.fork()
    if pid == 0:
        try:
            managed.rotate(token)
        finally:
            os._exit(0)
    try:
        eventually(lambda: has_struck(managed) or has_ended(pid), timeout_s=60)
        struck = has_struck(managed)
        os.kill(pid, signal.SIGKILL)
    finally:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        managed.rig.client.clear_api_faults()
    return struck


def has_struck(managed: Managed) -> bool:
    """Whether the one fault is used up."""
    return managed.rig.client.status().api_faults == ()


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

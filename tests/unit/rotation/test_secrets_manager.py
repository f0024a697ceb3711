"""The rotation function of Secrets Manager, called as Lambda calls it, against the sandbox."""

import json
import os
import signal
import smtplib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rigs.sandbox import Login, SandboxRig, eventually, running_sandbox
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import AwsError, CheckFailed, SettingsError, UpstreamError
from sesguard.rotation.secrets_manager import handler
from sesguard.sandbox.model import ApiFault, ApiFaultKind, Fault, FaultKind, Stage
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


@pytest.fixture(scope="session")
def function_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """The process."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def managed(function_sandbox: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> Managed:
    """A user without a key, and no secret yet; no time of grace."""
    rig = function_sandbox
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


@pytest.fixture
def two_keys(managed: Managed) -> Managed:
    """A secret that was rotated before: its current and its previous value have a key each."""
    managed.create(managed.value_of_new_key(), managed.value_of_new_key())
    return managed


class TestRotation:
    def test_the_first_rotation_issues_the_first_key(self, managed: Managed) -> None:
        """A value that only says whose key is wanted becomes one that a host can log in with."""
        managed.create(managed.value())
        managed.rotate()

        assert {managed.username(): "Active"} == managed.keys()
        assert managed.logs_in()
        assert managed.value().items() <= managed.read("AWSCURRENT").items()

    def test_both_keys_work_after_a_rotation(self, managed: Managed) -> None:
        """Hosts take the new value when they like."""
        managed.create(managed.value_of_new_key())
        old = managed.username()
        managed.rotate()

        assert old == managed.username("AWSPREVIOUS") != managed.username()
        assert managed.logs_in("AWSPREVIOUS")
        assert managed.logs_in()

    def test_ten_rotations_in_a_row(self, managed: Managed) -> None:
        """The user never has a third key, and the secret always has one that works."""
        managed.create(managed.value())
        seen = []
        for _ in range(10):
            managed.rotate()
            seen.append(managed.username())
            assert set(seen[-2:]) == set(managed.keys())
            assert managed.logs_in()

        assert 10 == len(set(seen))
        assert {} == managed.tags()

    def test_every_step_may_be_repeated(self, two_keys: Managed) -> None:
        """Secrets Manager repeats whatever it got no answer for."""
        old = two_keys.username()
        two_keys.rotate(times=2)

        assert {old, two_keys.username()} == set(two_keys.keys())
        assert two_keys.logs_in()

    def test_a_retry_after_the_end_does_not_wedge(self, two_keys: Managed) -> None:
        """All steps again with the token of a finished rotation do nothing, and the next works."""
        token = two_keys.rotate()
        keys = two_keys.keys()
        two_keys.rotate(token)
        unchanged = two_keys.keys() == keys
        two_keys.rotate()

        assert unchanged
        assert two_keys.logs_in()
        assert 2 == len(two_keys.keys())

    def test_every_region_gets_a_password(self, managed: Managed) -> None:
        """They are derived from one key; only the first is tested where there is one host."""
        managed.create(managed.value(regions=["us-east-1", "eu-west-1"]))
        managed.rotate()

        assert ["us-east-1", "eu-west-1"] == list(managed.read("AWSCURRENT")["passwords"])
        assert managed.logs_in()

    def test_a_key_that_was_not_ours_may_stay_beside_the_first(self, managed: Managed) -> None:
        """Hosts that still have a key by hand go on; it is named when its slot is needed."""
        foreign = managed.value_of_new_key()["username"]
        managed.create(managed.value())
        managed.rotate()

        assert {foreign, managed.username()} == set(managed.keys())
        with pytest.raises(CheckFailed, match=f"{foreign} .* is not of this secret"):
            managed.rotate()
        assert managed.logs_in()

    def test_what_the_log_says(self, two_keys: Managed, capsys: pytest.CaptureFixture[str]) -> None:
        """One JSON object for each call, and no secret."""
        two_keys.rotate()
        output = capsys.readouterr().out
        entries = [json.loads(line) for line in output.splitlines()]
        new = two_keys.username()

        assert [f"made {new}", "nothing to set", f"{new} logs in", f"{new} is current"] == [
            entry["outcome"] for entry in entries
        ]
        assert list(STEPS) == [entry["step"] for entry in entries]
        assert [] == [secret for secret in two_keys.known_secrets if secret in output]


class TestRefusals:
    @pytest.mark.parametrize("step", STEPS)
    def test_rotation_must_be_enabled(self, managed: Managed, step: str) -> None:
        """Anybody who may call the function cannot make it rotate a secret that does not."""
        managed.create(managed.value())

        with pytest.raises(CheckFailed, match="is not enabled"):
            managed.call(step, managed.version_in("AWSCURRENT"))
        assert {} == managed.keys()

    @pytest.mark.parametrize("step", STEPS)
    def test_the_version_must_be_pending(self, two_keys: Managed, step: str) -> None:
        """Neither an unknown version nor an old one can be made current."""
        two_keys.begin()
        keys = two_keys.keys()

        for token in (str(uuid.uuid4()), two_keys.version_in("AWSPREVIOUS")):
            with pytest.raises(CheckFailed, match="is not pending"):
                two_keys.call(step, token)
        assert keys == two_keys.keys()

    @pytest.mark.parametrize("step", STEPS[1:])
    def test_a_step_before_the_first(self, two_keys: Managed, step: str) -> None:
        """Without a key there is nothing to test or to finish."""
        with pytest.raises(CheckFailed, match="has no key yet"):
            two_keys.call(step, two_keys.begin())

    def test_an_event_that_is_none(self, two_keys: Managed) -> None:
        """What is missing is named."""
        with pytest.raises(SettingsError, match="the event has no SecretId"):
            handler({}, Remaining(60))
        with pytest.raises(SettingsError, match="the event has no ClientRequestToken"):
            two_keys.call("createSecret")
        with pytest.raises(SettingsError, match="there is no step 'destroySecret'"):
            two_keys.call("destroySecret", "token")

    def test_the_region_must_be_known(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name is looked for in the region of the function."""
        monkeypatch.delenv("AWS_REGION", raising=False)
        event = {"SecretId": NAME, "Step": "retire"}
        with pytest.raises(SettingsError, match="the region of mail/ses is not known"):
            handler(event, Remaining(60))

        monkeypatch.setenv("AWS_REGION", "us-east-1")
        handler(event, Remaining(60))

    @pytest.mark.parametrize("hours", ["soon", "-1", "nan", "1e9"])
    def test_the_time_of_grace_must_be_a_number(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch, hours: str
    ) -> None:
        """A misspelt one is not taken for none."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", hours)

        with pytest.raises(SettingsError, match="SESGUARD_GRACE_HOURS"):
            two_keys.call("retire")

    def test_a_secret_without_a_value(self, managed: Managed) -> None:
        """Nothing says whose key is wanted."""
        managed.arn = managed.store.create_secret(Name=NAME)["ARN"]

        with pytest.raises(CheckFailed, match="no value that says whose key is wanted"):
            managed.call("retire")

    def test_a_key_that_is_not_ours(self, managed: Managed) -> None:
        """It is named and left alone, although nobody ever used it."""
        managed.create(managed.value_of_new_key())
        foreign = managed.value_of_new_key()["username"]
        keys = managed.keys()

        with pytest.raises(CheckFailed, match=f"{foreign} .Active.* is not of this secret"):
            managed.rotate()
        assert keys == managed.keys()

    def test_a_key_of_a_value_that_is_not_ours(self, managed: Managed) -> None:
        """What a previous value of another format says is not trusted."""
        old, new = managed.value_of_new_key(), managed.value_of_new_key()
        managed.create(f"{old['username']}:{old['passwords']['us-east-1']}", new)

        with pytest.raises(CheckFailed, match=old["username"]):
            managed.rotate()
        assert 2 == len(managed.keys())


class TestFailures:
    def test_a_value_that_cannot_be_kept(self, managed: Managed) -> None:
        """The key that was made for it is deleted, and the next attempt succeeds."""
        managed.create(managed.value_of_new_key())
        keys, token = managed.keys(), managed.begin()
        denied = ApiFault("secretsmanager:PutSecretValue", ApiFaultKind.DENIED)
        managed.rig.client.set_api_faults(denied)

        with pytest.raises(AwsError, match="PutSecretValue"):
            managed.call("createSecret", token)
        assert keys == managed.keys()
        managed.rotate(token)
        assert managed.logs_in()

    def test_a_value_whose_answer_is_lost(self, managed: Managed) -> None:
        """The key stays, because the value was kept."""
        managed.create(managed.value_of_new_key())
        lost = ApiFault("secretsmanager:PutSecretValue", ApiFaultKind.LOST, count=None)
        managed.rig.client.set_api_faults(lost)
        token = managed.begin()
        managed.call("createSecret", token)
        managed.rig.client.clear_api_faults()

        managed.rotate(token)
        assert managed.logs_in()
        assert 2 == len(managed.keys())

    @pytest.mark.parametrize("kind", [ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
    def test_nothing_is_known_of_the_value(self, managed: Managed, kind: ApiFaultKind) -> None:
        """The key stays until the next attempt finds out whether it is wanted."""
        managed.create(managed.value_of_new_key())
        token = managed.begin()
        managed.rig.client.set_api_faults(
            ApiFault("secretsmanager:PutSecretValue", kind, count=None),
            ApiFault("secretsmanager:GetSecretValue", ApiFaultKind.DENIED, count=None, after=3),
        )
        with pytest.raises(AwsError):
            managed.call("createSecret", token)
        left = managed.keys()
        managed.rig.client.clear_api_faults()
        managed.rotate(token)

        assert 2 == len(left)
        assert 2 == len(managed.keys())
        assert managed.logs_in()

    def test_a_lost_key(self, managed: Managed) -> None:
        """IAM made it and the answer got lost: it is deleted, and another one is made."""
        managed.create(managed.value_of_new_key())
        managed.rig.client.set_api_faults(ApiFault("iam:CreateAccessKey", ApiFaultKind.LOST))
        managed.rotate()

        assert {managed.username(), managed.username("AWSPREVIOUS")} == set(managed.keys())

    @pytest.mark.parametrize("step", ["testSecret", "finishSecret"])
    def test_a_key_that_does_not_log_in(self, two_keys: Managed, step: str) -> None:
        """AWSCURRENT does not move, whichever step notices; later it does."""
        token, old = two_keys.begin(), two_keys.username()
        two_keys.call("createSecret", token)
        two_keys.rig.client.set_faults(Fault(Stage.AUTH, FaultKind.REPLY_454))

        with pytest.raises(UpstreamError, match="did not take the new key"):
            two_keys.call(step, token, seconds=0)
        assert old == two_keys.username()
        two_keys.rig.client.clear_faults()
        two_keys.rotate(token)
        assert two_keys.logs_in()

    def test_a_key_that_does_not_work_yet(self, two_keys: Managed) -> None:
        """The test waits for IAM, as long as the function may run."""
        two_keys.rig.client.configure(new_key_delay_s=1.0)
        two_keys.rotate()

        assert two_keys.logs_in()

    @pytest.mark.parametrize("status", ["deactivated", "deleted"])
    def test_a_pending_key_that_somebody_took_away(self, two_keys: Managed, status: str) -> None:
        """The message says how to give that rotation up, and then the next one works."""
        token = two_keys.begin()
        two_keys.call("createSecret", token)
        key = {"UserName": USER, "AccessKeyId": two_keys.username("AWSPENDING")}
        if status == "deleted":
            two_keys.iam.delete_access_key(**key)
        else:
            two_keys.iam.update_access_key(**key, Status="Inactive")

        with pytest.raises(CheckFailed, match=f"the new key .* is {status}") as caught:
            two_keys.call("setSecret", token)
        assert f"--remove-from-version-id {token}" in str(caught.value.hint)
        two_keys.rotate()
        assert two_keys.logs_in()
        assert 2 == len(two_keys.keys())

    def test_a_rotation_that_was_given_up(self, two_keys: Managed) -> None:
        """Its key was never used: the next rotation knows it for its own, and deletes it."""
        token = two_keys.begin()
        two_keys.call("createSecret", token)
        abandoned = two_keys.username("AWSPENDING")
        two_keys.rotate()

        assert abandoned not in set(two_keys.keys())
        assert two_keys.logs_in()

    def test_a_foreign_key_made_long_after_an_attempt(self, two_keys: Managed) -> None:
        """What an attempt wrote down proves nothing about a key that came later."""
        two_keys.iam.delete_access_key(UserName=USER, AccessKeyId=two_keys.username("AWSPREVIOUS"))
        an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        two_keys.iam.tag_user(
            UserName=USER,
            Tags=[{"Key": "sesguard:rotation", "Value": f"{an_hour_ago} {two_keys.username()}"}],
        )
        foreign = two_keys.value_of_new_key()["username"]

        with pytest.raises(CheckFailed, match=foreign):
            two_keys.rotate()
        assert foreign in set(two_keys.keys())

    def test_a_tag_that_somebody_else_wrote(self, two_keys: Managed) -> None:
        """It is not believed, and does no harm."""
        two_keys.iam.tag_user(
            UserName=USER,
            Tags=[{"Key": f"sesguard:{x}", "Value": "hello"} for x in ("rotation", "retired")],
        )
        two_keys.rotate()

        assert two_keys.logs_in()


class TestOldKey:
    def test_one_that_is_in_use_stays(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who needs its slot is told where it was seen, and it is not even deactivated."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        old, keys = two_keys.username("AWSPREVIOUS"), two_keys.keys()
        two_keys.use(old)

        for step, token in (("createSecret", two_keys.begin()), ("retire", None)):
            with pytest.raises(CheckFailed, match=f"{old} used by sts in us-east-1"):
                two_keys.call(step, token)
        assert keys == two_keys.keys()

    def test_one_that_was_replaced_just_now_stays(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host that did not fetch the new value yet goes on sending."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        two_keys.rotate()
        keys, token = two_keys.keys(), two_keys.begin()
        two_keys.call("retire")

        with pytest.raises(CheckFailed, match="was replaced less than 24 h ago"):
            two_keys.call("createSecret", token)
        assert keys == two_keys.keys()

    def test_retiring_goes_by_steps(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Deactivated, left so for the time of grace, then deleted; then there is nothing to do."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        old, new = two_keys.username("AWSPREVIOUS"), two_keys.username()
        seen = []
        for hours in ("24", "24", "0", "0"):
            monkeypatch.setenv("SESGUARD_GRACE_HOURS", hours)
            two_keys.call("retire")
            seen.append(two_keys.keys())

        waiting = {old: "Inactive", new: "Active"}
        assert [waiting, waiting, {new: "Active"}, {new: "Active"}] == seen
        assert {} == two_keys.tags()

    def test_one_that_was_deactivated_by_hand(self, two_keys: Managed) -> None:
        """The time in which somebody may notice begins with the first look at it."""
        old = two_keys.username("AWSPREVIOUS")
        two_keys.set_status(old, "Inactive")
        two_keys.call("retire")
        noted = two_keys.tags()["sesguard:retired"]
        two_keys.call("retire")

        assert noted.startswith(f"{old} 20")
        assert old not in set(two_keys.keys())

    def test_one_that_was_activated_again_stays(self, two_keys: Managed) -> None:
        """Somebody needs it, whatever IAM says of its use."""
        old = two_keys.username("AWSPREVIOUS")
        two_keys.call("retire")
        two_keys.set_status(old, "Active")

        for step, token in (("createSecret", two_keys.begin()), ("retire", None)):
            with pytest.raises(CheckFailed, match=f"{old} was activated again"):
                two_keys.call(step, token)
        assert "Active" == two_keys.keys()[old]

    def test_nothing_is_retired_before_there_is_an_old_key(self, managed: Managed) -> None:
        """Neither without a previous value, nor when its key is the current one, nor a lost one."""
        value = managed.value_of_new_key()
        managed.create(value)
        managed.call("retire")
        managed.create(value)
        managed.call("retire")
        lost, current = managed.value_of_new_key(), managed.value_of_new_key
        managed.iam.delete_access_key(UserName=USER, AccessKeyId=lost["username"])
        managed.create(lost, current())
        managed.call("retire")

        assert 2 == len(managed.keys())


class TestKilled:
    @pytest.mark.parametrize("kind", [ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
    def test_after_the_key_was_made(self, managed: Managed, kind: ApiFaultKind) -> None:
        """The function dies as it keeps the value, or just before: no key is left over."""
        managed.create(managed.value_of_new_key())
        token = managed.begin()
        fault = ApiFault("secretsmanager:PutSecretValue", kind, delay_s=1.0)
        assert killed_at(managed, fault, token)

        assert 2 == len(managed.keys())
        managed.rotate(token)
        assert {managed.username(), managed.username("AWSPREVIOUS")} == set(managed.keys())
        assert managed.logs_in()

    def test_after_every_call(self, two_keys: Managed) -> None:
        """Killed once an AWS call took effect, whichever it is, a rotation converges on a retry."""
        killed, token = 0, two_keys.begin()
        while killed_at(
            two_keys, ApiFault("*", ApiFaultKind.LOST, after=killed, delay_s=1.0), token
        ):
            killed += 1
            assert 2 >= len(two_keys.keys())
            assert two_keys.logs_in()
            two_keys.rotate(token)
            staged = {two_keys.username(stage) for stage in ("AWSCURRENT", "AWSPREVIOUS")}
            assert (staged, {}) == (set(two_keys.keys()), two_keys.tags())
            assert two_keys.logs_in()
            token = two_keys.begin()

        assert killed > 20


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
        eventually(lambda: has_struck(managed) or has_ended(pid))
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

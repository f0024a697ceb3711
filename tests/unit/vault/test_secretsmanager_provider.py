"""The Secrets Manager provider: the contract, the secret and its versions, and what AWS answers."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from rigs.aws_keys import SECRET as NAME
from rigs.aws_keys import Connect, as_root, as_user, failure, outage, stages, value
from rigs.sandbox import SandboxRig
from sesguard.aws.session import AwsSession
from sesguard.errors import (
    Error,
    KeyProviderDenied,
    KeyProviderUnavailable,
    WrongKey,
)
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.testing.key_provider_suite import CONTEXT, KeyProviderContract
from sesguard.vault.providers.interface import KeyProvider
from sesguard.vault.providers.secretsmanager import SecretsManagerProvider

LINE: Final = re.compile(r"sesguard-key/1 [A-Za-z0-9+/]{43}=")
Make = Callable[..., SecretsManagerProvider]


@pytest.fixture
def secrets(rig: SandboxRig) -> Any:
    """Secrets Manager, as root."""
    return rig.aws("secretsmanager")


@pytest.fixture
def make(rig: SandboxRig) -> Make:
    """Makes a provider, as another process has it."""

    def make(name: str = NAME, connect: Connect | None = None) -> SecretsManagerProvider:
        return SecretsManagerProvider(name, connect or as_root(rig))

    return make


class TestSecretsManagerProvider(KeyProviderContract):
    """The contract."""

    @pytest.fixture
    def provider(self, make: Make) -> KeyProvider:
        provider = make()
        provider.ensure_key()
        return provider

    @pytest.fixture
    def fresh(self, make: Make) -> KeyProvider:
        return make()

    @pytest.fixture
    def other_provider(self, make: Make) -> KeyProvider:
        other = make("sesguard/mail2")
        other.ensure_key()
        return other


class TestSecret:
    """The secret as others see it."""

    @pytest.mark.usefixtures("wrapped")
    def test_missing_secret_is_made(self, secrets: Any) -> None:
        """With one line of text, and a description that says to leave it alone."""
        facts = secrets.describe_secret(SecretId=NAME)

        assert LINE.fullmatch(value(secrets))
        assert "no rotation" in facts["Description"]
        assert [["AWSCURRENT"]] == stages(secrets)

    def test_empty_secret_is_filled(self, secrets: Any, make: Make) -> None:
        """So somebody else may make it, with a KMS key of their own."""
        arn = secrets.create_secret(Name=NAME, Description="theirs")["ARN"]

        assert make(arn).ensure_key()

        assert LINE.fullmatch(value(secrets))
        assert "theirs" == secrets.describe_secret(SecretId=NAME)["Description"]

    def test_name_and_arn_are_the_same_key(self, secrets: Any, make: Make, wrapped: bytes) -> None:
        """Either may be in the settings."""
        arn = secrets.describe_secret(SecretId=NAME)["ARN"]

        assert bytes(32) == make(arn).unwrap(wrapped, CONTEXT)

    def test_secret_with_a_given_arn_is_not_made(self, make: Make) -> None:
        """AWS chooses the end of an ARN."""
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:none-AbCdEf"

        assert f"there is no secret {arn}" in failure(KeyProviderUnavailable, make(arn).ensure_key)

    def test_missing_secret_is_not_made_by_a_load(self, secrets: Any, make: Make) -> None:
        """A new key would open nothing."""
        assert f"there is no vault key {NAME}" in failure(KeyProviderUnavailable, make().load)
        assert [] == secrets.list_secrets()["SecretList"]

    def test_person_may_put_the_key_back(self, secrets: Any, make: Make, wrapped: bytes) -> None:
        """From a backup, with a line end too many."""
        line = value(secrets)
        secrets.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)
        secrets.create_secret(Name=NAME, SecretString=f"{line}\n")

        assert bytes(32) == make().unwrap(wrapped, CONTEXT)

    @pytest.mark.parametrize(
        "content",
        [
            {"SecretString": "hunter2"},
            {"SecretString": '{"key": "x"}'},
            {"SecretString": "sesguard-key/1 AAAA"},
            {"SecretString": "sesguard-key/1 " + "A" * 43 + "=\nmore"},
            {"SecretString": "\u00e9"},
        ],
    )
    def test_other_text_is_no_key(self, secrets: Any, make: Make, content: dict[str, str]) -> None:
        """It is neither used nor overwritten nor shown."""
        secrets.create_secret(Name=NAME, **content)

        text = failure(KeyProviderUnavailable, make().ensure_key)

        assert "AWSCURRENT of the secret sesguard/mail1 is no vault key" in text
        assert content["SecretString"] not in text
        assert content["SecretString"] == value(secrets)

    def test_bytes_are_no_key(self, secrets: Any, make: Make) -> None:
        """A binary secret is refused."""
        secrets.create_secret(Name=NAME, SecretBinary=b"sesguard-key/1 ")

        assert "is not text" in failure(KeyProviderUnavailable, make().load)

    @pytest.mark.usefixtures("wrapped")
    def test_secret_about_to_be_deleted(self, secrets: Any, make: Make) -> None:
        """With the command that keeps it; after that it opens."""
        secrets.delete_secret(SecretId=NAME, RecoveryWindowInDays=7)

        text = failure(KeyProviderUnavailable, make().load)
        failure(KeyProviderUnavailable, make().ensure_key)
        secrets.restore_secret(SecretId=NAME)

        assert "about to be deleted" in text
        assert f"aws secretsmanager restore-secret --secret-id {NAME}" in text
        make().load()

    @pytest.mark.usefixtures("wrapped")
    def test_rotated_secret_is_refused(self, secrets: Any, make: Make) -> None:
        """A rotation function would lose the key; with the command that ends it."""
        with pytest.raises(secrets.exceptions.ResourceNotFoundException):
            secrets.rotate_secret(
                SecretId=NAME,
                RotationLambdaARN="arn:aws:lambda:us-east-1:123456789012:function:none",
                RotationRules={"AutomaticallyAfterDays": 30},
            )

        for act in (make().load, make().ensure_key, make().prepare_next):
            text = failure(KeyProviderUnavailable, act)
            assert f"aws secretsmanager cancel-rotate-secret --secret-id {NAME}" in text


class TestChange:
    """Versions and stages while the key is changed."""

    @pytest.mark.usefixtures("wrapped")
    def test_old_key_has_no_stage_at_the_end(self, secrets: Any, make: Make) -> None:
        """AWSCURRENT moves; neither AWSPREVIOUS nor AWSPENDING is left."""
        provider = make()
        before = value(secrets)
        provider.prepare_next()
        during = stages(secrets)
        following = value(secrets, "AWSPENDING")

        provider.promote_next()

        assert [["AWSCURRENT"], ["AWSPENDING"]] == during
        assert [["AWSCURRENT"]] == stages(secrets)
        assert before != following
        assert following == value(secrets)

    def test_change_begins_without_a_secret(self, secrets: Any, make: Make) -> None:
        """A vault that comes from another provider: the first version is both, then current."""
        provider = make()
        provider.prepare_next()
        wrapped = provider.wrap(bytes(32), CONTEXT)
        make().load()

        provider.promote_next()

        assert [["AWSCURRENT"]] == stages(secrets)
        assert bytes(32) == make().unwrap(wrapped, CONTEXT)

    @pytest.mark.parametrize("begun_with", ["nothing", "a key"])
    @pytest.mark.parametrize("calls", range(1, 14))
    def test_change_that_was_cut_short_is_finished(
        self, secrets: Any, rig: SandboxRig, make: Make, begun_with: str, calls: int
    ) -> None:
        """After any number of calls to AWS, what was wrapped opens and a repetition finishes."""
        if begun_with == "a key":
            make().ensure_key()
        provider = make()
        wrapped = None
        fault = ApiFault("secretsmanager:*", ApiFaultKind.UNREACHABLE, count=None, after=calls)
        rig.client.set_api_faults(fault)
        try:
            provider.prepare_next()
            wrapped = provider.wrap(bytes(32), CONTEXT)
            provider.promote_next()
        except KeyProviderUnavailable:
            pass
        rig.client.clear_api_faults()
        if wrapped is not None:
            assert bytes(32) == make().unwrap(wrapped, CONTEXT)

        again = make()
        again.prepare_next(wrapped or b"")
        if wrapped is not None:
            assert bytes(32) == again.unwrap(wrapped, CONTEXT)
        wrapped = again.wrap(bytes(32), CONTEXT)
        again.promote_next()

        assert [["AWSCURRENT"]] == stages(secrets)
        assert bytes(32) == make().unwrap(wrapped, CONTEXT)

    def test_lost_answers_change_nothing(
        self, secrets: Any, rig: SandboxRig, make: Make, wrapped: bytes
    ) -> None:
        """Each call takes effect, its answer is lost, and the SDK repeats it."""

        def patient() -> AwsSession:
            session = as_root(rig)()
            return AwsSession(
                session.region,
                endpoint_url=rig.info.endpoint_url,
                shared=session._session,
            )

        provider = make(connect=patient)
        provider.load()
        for call in ("PutSecretValue", "UpdateSecretVersionStage"):
            rig.client.set_api_faults(
                ApiFault(f"secretsmanager:{call}", ApiFaultKind.LOST, count=1)
            )
            if call == "PutSecretValue":
                provider.prepare_next()
            else:
                provider.promote_next()

        assert [["AWSCURRENT"]] == stages(secrets)
        with pytest.raises(WrongKey):
            make().unwrap(wrapped, CONTEXT)

    def test_foreign_pending_version_is_replaced(
        self, secrets: Any, make: Make, wrapped: bytes
    ) -> None:
        """It is not taken for the next key, and stops nobody, a change neither."""
        secrets.put_secret_value(
            SecretId=NAME, SecretString="hunter2", VersionStages=["AWSPENDING"]
        )

        assert bytes(32) == make().unwrap(wrapped, CONTEXT)
        provider = make()
        assert provider.prepare_next(wrapped)
        assert bytes(32) == provider.unwrap(wrapped, CONTEXT)
        provider.promote_next()
        assert [["AWSCURRENT"]] == stages(secrets)

    def test_secret_of_another_vault_is_not_taken(self, make: Make, wrapped: bytes) -> None:
        """A vault that moves here does not take the key of another host away."""
        with pytest.raises(Error, match=f"there is a vault key in {NAME} already"):
            make().require_vacant()

        assert bytes(32) == make().unwrap(wrapped, CONTEXT)
        make("sesguard/other").require_vacant()

    def test_another_host_is_locked_out_by_a_change(self, make: Make, wrapped: bytes) -> None:
        """Which is why each vault needs a secret of its own: said, not silent."""
        host, other = make(), make()
        other.load()
        host.prepare_next()
        host.promote_next()

        assert bytes(32) == other.unwrap(wrapped, CONTEXT)
        with pytest.raises(WrongKey):
            make().unwrap(wrapped, CONTEXT)


class TestAws:
    """What AWS answers besides."""

    @pytest.mark.parametrize(
        ("kind", "expected", "words"),
        [
            (ApiFaultKind.UNREACHABLE, KeyProviderUnavailable, "look at the network"),
            (ApiFaultKind.INTERNAL, KeyProviderUnavailable, "again in a minute"),
            (ApiFaultKind.THROTTLED, KeyProviderUnavailable, "again in a minute"),
            (ApiFaultKind.DENIED, KeyProviderDenied, f"on {NAME} to the AWS identity"),
            (ApiFaultKind.SKEWED, KeyProviderDenied, "set the clock of this host"),
        ],
    )
    @pytest.mark.parametrize("call", ["DescribeSecret", "GetSecretValue"])
    @pytest.mark.usefixtures("wrapped")
    def test_failures_are_told_apart(
        self,
        rig: SandboxRig,
        make: Make,
        kind: ApiFaultKind,
        expected: type[Error],
        words: str,
        call: str,
    ) -> None:
        """Each with what to do, and none is kept: the next load looks again."""
        provider = make()
        with outage(rig, f"secretsmanager:{call}", kind):
            text = failure(expected, provider.load)

        provider.load()

        assert f"secretsmanager:{call}" in text
        assert words in text

    def test_outage_after_the_load_is_not_noticed(
        self, rig: SandboxRig, make: Make, wrapped: bytes
    ) -> None:
        """The vault key is in memory."""
        provider = make()
        provider.load()

        with outage(rig):
            assert bytes(32) == provider.unwrap(wrapped, CONTEXT)
            assert bytes(32) == provider.unwrap(provider.wrap(bytes(32), CONTEXT), CONTEXT)

    def test_profile_that_is_not_there(self, make: Make) -> None:
        """It is found out when it is needed, not when the settings are read."""
        provider = make(connect=lambda: AwsSession("us-east-1", "no-such-profile"))

        assert "no-such-profile" in failure(KeyProviderUnavailable, provider.load)

    def test_every_read_names_its_stage(self, rig: SandboxRig, make: Make, wrapped: bytes) -> None:
        """A policy that asks for the stage is met."""
        condition = {"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}
        connect = as_user(
            rig,
            {"Action": "secretsmanager:GetSecretValue", "Condition": condition},
            {"Action": "secretsmanager:DescribeSecret"},
        )

        assert bytes(32) == make(connect=connect).unwrap(wrapped, CONTEXT)

    def test_connection_is_forgotten_after_the_load(
        self, rig: SandboxRig, make: Make, wrapped: bytes
    ) -> None:
        """Nothing of AWS stays behind in a daemon that forks: each load has its own session."""
        made: list[AwsSession] = []

        def connect() -> AwsSession:
            made.append(as_root(rig)())
            return made[-1]

        provider = make(connect=connect)
        provider.load()
        provider.unwrap(wrapped, CONTEXT)
        provider.prepare_next()
        provider.promote_next()
        count = len(made)
        provider.load()

        assert count == len(made)

"""A secret in Secrets Manager, through the real boto3 against the sandbox."""

from typing import Any

import pytest

from rigs.sandbox import SandboxRig
from sesguard.aws.errors import AwsMissing
from sesguard.aws.secrets_manager import CURRENT, PENDING, PREVIOUS, ManagedSecret
from sesguard.core.secret import Secret
from sesguard.errors import AwsDenied, AwsError, AwsPermanent
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.seed import admin_session

FIRST = "11111111-1111-1111-1111-111111111111"
TOKEN = "22222222-2222-2222-2222-222222222222"
ANOTHER = "33333333-3333-3333-3333-333333333333"


@pytest.fixture
def secret(rig: SandboxRig) -> ManagedSecret:
    """A secret whose current version is `FIRST`, with the value ``old``."""
    rig.aws("secretsmanager").create_secret(
        Name="mail/ses", SecretString="old", ClientRequestToken=FIRST
    )
    return ManagedSecret(admin_session(rig.sandbox), "mail/ses")


def value(secret: ManagedSecret, stage: str, version_id: str | None = None) -> str | None:
    """The value in the clear."""
    found = secret.read(stage=stage, version_id=version_id)
    return None if found is None else found.reveal()


def test_what_is_known_of_a_secret(secret: ManagedSecret) -> None:
    """Its versions and their stages, and that nothing rotates it."""
    facts = secret.describe()

    assert facts.arn.startswith("arn:aws:secretsmanager:us-east-1:")
    assert not facts.rotation_enabled
    assert {FIRST: (CURRENT,)} == facts.stages
    assert (FIRST, None) == (facts.version_in(CURRENT), facts.version_in(PENDING))


def test_an_arn_will_do(rig: SandboxRig, secret: ManagedSecret) -> None:
    """Secrets Manager hands its rotation function the ARN."""
    by_arn = ManagedSecret(admin_session(rig.sandbox), secret.describe().arn)

    assert secret.describe() == by_arn.describe()
    assert value(by_arn, CURRENT) == "old"


def test_a_whole_rotation(secret: ManagedSecret) -> None:
    """A pending version becomes current, and the one before is kept."""
    secret.put_pending(TOKEN, Secret("new"))
    pending = (value(secret, CURRENT), value(secret, PENDING, TOKEN))
    secret.move_current(to=TOKEN, away_from=FIRST)

    assert pending == ("old", "new")
    assert (value(secret, CURRENT), value(secret, PREVIOUS)) == ("new", "old")
    assert secret.describe().version_in(CURRENT) == TOKEN


def test_every_step_may_be_repeated(secret: ManagedSecret) -> None:
    """A retry of the function, or a lost answer, changes nothing."""
    for _ in range(2):
        secret.put_pending(TOKEN, Secret("new"))
    for _ in range(2):
        secret.move_current(to=TOKEN, away_from=FIRST)

    assert (value(secret, CURRENT), value(secret, PREVIOUS)) == ("new", "old")


def test_a_version_that_is_not_there(secret: ManagedSecret) -> None:
    """No stage, no version, or a version without that stage: there is no value."""
    assert value(secret, PENDING) is None
    assert value(secret, PENDING, TOKEN) is None
    assert value(secret, PENDING, FIRST) is None


def test_a_pending_version_without_a_value(rig: SandboxRig, secret: ManagedSecret) -> None:
    """So it looks when a rotation has begun: the version is there, and reading it gives nothing."""
    client = rig.aws("secretsmanager")
    with pytest.raises(client.exceptions.ResourceNotFoundException):  # there is no such function
        client.rotate_secret(
            SecretId="mail/ses",
            ClientRequestToken=TOKEN,
            RotationLambdaARN="arn:aws:lambda:us-east-1:123456789012:function:none",
            RotationRules={"AutomaticallyAfterDays": 30},
        )
    facts = secret.describe()

    assert facts.rotation_enabled
    assert TOKEN == facts.version_in(PENDING)
    assert value(secret, PENDING, TOKEN) is None


def test_another_value_for_a_version_is_refused(secret: ManagedSecret) -> None:
    """A version never changes its value, and the error does not tell either."""
    with pytest.raises(AwsPermanent) as caught:
        secret.put_pending(FIRST, Secret("hunter2"))

    assert caught.value.parameters["code"] == "ResourceExistsException"
    assert "hunter2" not in str(caught.value)


def test_current_is_not_taken_from_a_stranger(secret: ManagedSecret) -> None:
    """Two rotations at once: what the second one read is no longer true."""
    secret.put_pending(TOKEN, Secret("new"))
    secret.move_current(to=TOKEN, away_from=FIRST)
    secret.put_pending(ANOTHER, Secret("newer"))

    with pytest.raises(AwsPermanent):
        secret.move_current(to=ANOTHER, away_from=FIRST)
    with pytest.raises(AwsPermanent):
        secret.move_current(to=ANOTHER, away_from=None)
    assert value(secret, CURRENT) == "new"


def test_a_secret_that_is_not_there(rig: SandboxRig) -> None:
    """It is an error, not an empty answer."""
    nothing = ManagedSecret(admin_session(rig.sandbox), "nothing")

    with pytest.raises(AwsMissing):
        nothing.describe()
    with pytest.raises(AwsMissing):
        nothing.read(stage=CURRENT)
    with pytest.raises(AwsMissing):
        nothing.put_pending(TOKEN, Secret("x"))
    with pytest.raises(AwsMissing):
        nothing.move_current(to=TOKEN, away_from=FIRST)


@pytest.mark.parametrize("version_id", [None, FIRST])
def test_a_secret_about_to_be_deleted(
    rig: SandboxRig, secret: ManagedSecret, version_id: str | None
) -> None:
    """Its versions are there, so that nothing is read is an error."""
    rig.aws("secretsmanager").delete_secret(SecretId="mail/ses", RecoveryWindowInDays=7)

    with pytest.raises(AwsPermanent) as caught:
        secret.read(stage=CURRENT, version_id=version_id)
    assert not isinstance(caught.value, AwsMissing)


def test_bytes_are_not_a_value(rig: SandboxRig) -> None:
    """What is stored as bytes is not ours."""
    rig.aws("secretsmanager").create_secret(Name="bytes", SecretBinary=b"\x00\x01")

    with pytest.raises(AwsError, match="the value of bytes is not text"):
        ManagedSecret(admin_session(rig.sandbox), "bytes").read(stage=CURRENT)


def test_every_read_names_its_stage(rig: SandboxRig, secret: ManagedSecret) -> None:
    """Without a stage the service would choose."""
    session = admin_session(rig.sandbox)
    asked: list[Any] = []
    session.secretsmanager.meta.events.register(
        "provide-client-params.secrets-manager.GetSecretValue",
        lambda params, **_rest: asked.append(params),
    )
    for version_id in (None, FIRST):
        ManagedSecret(session, "mail/ses").read(stage=CURRENT, version_id=version_id)

    assert [CURRENT, CURRENT] == [params["VersionStage"] for params in asked]


def test_a_secret_is_made_without_a_version(rig: SandboxRig) -> None:
    """Once: one that is there is left as it is."""
    secret = ManagedSecret(admin_session(rig.sandbox), "new")
    for _ in range(2):
        secret.ensure_exists("ours")
    facts = secret.describe()

    assert {} == facts.stages
    assert secret.read(stage=CURRENT) is None
    assert "ours" == rig.aws("secretsmanager").describe_secret(SecretId="new")["Description"]


def test_the_first_version_is_current_and_pending(rig: SandboxRig) -> None:
    """A secret with versions is never without a current one."""
    secret = ManagedSecret(admin_session(rig.sandbox), "new")
    secret.ensure_exists("ours")
    secret.put_pending(TOKEN, Secret("first"))
    facts = secret.describe()

    assert (TOKEN, TOKEN) == (facts.version_in(CURRENT), facts.version_in(PENDING))


def test_a_value_that_is_current_at_once(secret: ManagedSecret) -> None:
    """The one before is kept; it may be repeated."""
    for _ in range(2):
        secret.put_current(TOKEN, Secret("new"))

    assert (value(secret, CURRENT), value(secret, PREVIOUS)) == ("new", "old")


def test_a_stage_is_taken_away(secret: ManagedSecret) -> None:
    """No stage leads to the version any more; taking it once more is an error."""
    secret.put_current(TOKEN, Secret("new"))
    secret.remove_stage(PREVIOUS, away_from=FIRST)

    assert value(secret, PREVIOUS) is None
    assert () == secret.describe().stages.get(FIRST, ())
    with pytest.raises(AwsPermanent):
        secret.remove_stage(PREVIOUS, away_from=FIRST)


def test_a_deletion_that_is_planned_is_known(rig: SandboxRig, secret: ManagedSecret) -> None:
    """Before anything is tried."""
    before = secret.describe().deletion_scheduled
    rig.aws("secretsmanager").delete_secret(SecretId="mail/ses", RecoveryWindowInDays=7)

    assert (False, True) == (before, secret.describe().deletion_scheduled)


def test_a_secret_that_cannot_be_made(rig: SandboxRig) -> None:
    """Any other refusal than that it is there is an error."""
    rig.client.set_api_faults(ApiFault("secretsmanager:CreateSecret", ApiFaultKind.SKEWED))

    with pytest.raises(AwsDenied):
        ManagedSecret(admin_session(rig.sandbox), "new").ensure_exists("ours")

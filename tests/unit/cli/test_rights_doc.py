"""
The rights at AWS that the reference pages name are those that the commands use.

Each command is run as an IAM user of its own; CloudTrail of the sandbox tells what it called.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.command_line import Cli
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.sandbox.seed import CONSOLE_POLICY, SeededKey

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference"
OPERATOR = "operator"

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """One sandbox for this file."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started: SandboxRig) -> SandboxRig:
    """The sandbox, reset."""
    started.client.reset()
    return started


@pytest.fixture
def operator(rig: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Access key of an administrator, whom the commands run as."""
    for name, value in rig.sandbox.environment().items():
        monkeypatch.setenv(name, value)
    iam = rig.aws("iam")
    iam.create_user(UserName=OPERATOR)
    key = iam.create_access_key(UserName=OPERATOR)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    return str(key["AccessKeyId"])


@pytest.fixture
def ready(cli: Cli, config: Path, host: Path, rig: SandboxRig, operator: str) -> SeededKey:
    """A host with a credential that has a configuration set, of a user with everything."""
    key, info, iam = rig.seed(), rig.info, rig.aws("iam")
    policy = iam.create_policy(PolicyName="send", PolicyDocument=json.dumps(CONSOLE_POLICY))
    iam.attach_user_policy(UserName=key.user_name, PolicyArn=policy["Policy"]["Arn"])
    iam.tag_user(UserName=key.user_name, Tags=[{"Key": "team", "Value": "mail"}])
    rig.aws("sesv2").create_configuration_set(ConfigurationSetName="shop")
    config.write_text(
        config.read_text().replace(
            'regions = ["us-east-1"]\n',
            f'regions = ["us-east-1"]\nhost = "{info.smtp_host}"\nport = {info.starttls_port}\n'
            f'ca_file = "{info.ca_file}"\ncanary_sender = "canary@example.com"\n'
            'configuration_set = "shop"\n',
        )
    )
    login = rig.login(key)
    done = cli("credential", "import", "--stdin", stdin=f"{login.user}:{login.password.reveal()}\n")
    assert 0 == done.code, done.err
    return key


def _called(rig: SandboxRig, access_key_id: str) -> set[str]:
    """Every call of a key, as a policy names it."""
    pages = (
        rig.aws("cloudtrail")
        .get_paginator("lookup_events")
        .paginate(
            LookupAttributes=[{"AttributeKey": "AccessKeyId", "AttributeValue": access_key_id}]
        )
    )
    return {
        f"{event['EventSource'].partition('.')[0]}:{event['EventName']}"
        for page in pages
        for event in page["Events"]
    }


def _policy(page: str) -> list[dict[str, Any]]:
    text = (REFERENCE / page).read_text()
    (block,) = re.findall(r"(?s)```json\n(.*?)```", text)
    document = json.loads(block)
    assert "2012-10-17" == document["Version"]
    return list(document["Statement"])


def _actions(page: str) -> set[str]:
    return {action for statement in _policy(page) for action in statement["Action"]}


def test_a_rotation_uses_the_rights_of_its_page(
    cli: Cli, rig: SandboxRig, ready: SeededKey, operator: str
) -> None:
    """All of them and no other, with the slot of the key before to be freed."""
    for _ in range(2):
        result = cli("rotate")
        assert 0 == result.code, result.err

    assert _actions("rotation.md") == _called(rig, operator)


def test_panic_uses_no_right_that_its_page_leaves_out(
    cli: Cli, rig: SandboxRig, ready: SeededKey, operator: str
) -> None:
    """For a user with inline and attached policies and tags, with every option that asks AWS."""
    result = cli("panic", "--yes", "--pause-account")
    assert 0 == result.code, result.err

    called = _called(rig, operator)
    # The new user is made with its tags, and with nothing to delete.
    spare = {"iam:TagUser", "iam:DeleteAccessKey", "cloudtrail:LookupEvents"}
    assert set() == called - _actions("panic.md")
    assert _actions("panic.md") - called <= spare


def test_what_makes_users_and_policies_is_tied_to_a_boundary() -> None:
    """Without it, who takes the host could give himself any right."""
    dangerous = {"iam:CreateUser", "iam:PutUserPolicy", "iam:AttachUserPolicy"}
    for statement in _policy("panic.md"):
        if dangerous & set(statement["Action"]):
            assert dangerous == set(statement["Action"])
            assert "iam:PermissionsBoundary" in statement["Condition"]["StringEquals"]

"""sesguard rotate, panic and credential issue, as commands, against the sandbox."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rigs.command_line import Cli
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.aws.iam import IamKeys
from sesguard.config.load import load_settings
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.secret import Secret
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.seed import SeededKey, admin_session
from sesguard.vault.opening import open_vault

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """One sandbox for this file."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started: SandboxRig, monkeypatch: pytest.MonkeyPatch) -> SandboxRig:
    """The sandbox, reset, and AWS's standard variables that lead to it."""
    started.client.reset()
    for name, value in started.sandbox.environment().items():
        monkeypatch.setenv(name, value)
    return started


@pytest.fixture
def key(rig: SandboxRig) -> SeededKey:
    """The key of an IAM user with a verified domain."""
    return rig.seed()


@pytest.fixture
def ready(cli: Cli, config: Path, host: Path, rig: SandboxRig, key: SeededKey) -> Path:
    """A host whose credential is that key; it has no MTA and no daemon."""
    info = rig.info
    config.write_text(
        config.read_text().replace(
            'regions = ["us-east-1"]\n',
            f'regions = ["us-east-1"]\nhost = "{info.smtp_host}"\nport = {info.starttls_port}\n'
            f'ca_file = "{info.ca_file}"\ncanary_sender = "canary@example.com"\n'
            f'iam_user = "{key.user_name}"\n',
        )
    )
    login = rig.login(key)
    done = cli("credential", "import", "--stdin", stdin=f"{login.user}:{login.password.reveal()}\n")
    assert 0 == done.code, done.err
    return host


def _age(config: Path, days: float, *, exposed: bool = False) -> None:
    """Make the CURRENT version so old."""

    def change(credential: Credential) -> Credential:
        version = credential.current()
        created = datetime.now(UTC) - timedelta(days=days)
        return credential.with_version(
            CredentialVersion(
                version.number,
                version.username,
                version.passwords,
                created.isoformat(),
                version.origin,
                exposed,
            )
        )

    settings = load_settings(config)
    open_vault(settings).update(next(iter(settings.credentials)), change)


def _status(cli: Cli) -> dict[str, Any]:
    result = cli("rotate", "status", "--json")
    (found,) = json.loads(result.out)["credentials"]
    assert isinstance(found, dict)
    return found


def test_dry_run_shows_every_call_and_changes_nothing(
    cli: Cli, ready: Path, rig: SandboxRig, key: SeededKey
) -> None:
    """Steps with their phase, AWS calls and file changes; AWS is as before."""
    result = cli("rotate", "--dry-run")

    assert 0 == result.code, result.err
    phases = [line.split()[1] for line in result.out.splitlines() if line[:2].strip().isdigit()]
    assert ["CREATE", "TEST", "DEPLOY", "DEPLOY", "FINISH"] == phases
    for call in ("iam:CreateAccessKey", "iam:UpdateAccessKey", "vault/vault"):
        assert call in result.out
    assert 1 == len(IamKeys(admin_session(rig.sandbox)).list_access_keys(key.user_name))


def test_rotate_gives_a_new_key(cli: Cli, ready: Path, key: SeededKey) -> None:
    """Version 2 is CURRENT, the old key is told, and the next plan frees its slot."""
    result = cli("rotate", "--send-test")

    assert 0 == result.code, result.err
    assert "version 2" in result.err
    status = _status(cli)
    assert 2 == status["current"]["number"]
    assert [key.access_key_id] == [version["username"] for version in status["replaced"]]
    assert "RETIRE" in cli("rotate", "--dry-run").out


def test_a_new_exposed_credential_is_due_and_if_due_rotates_it(cli: Cli, ready: Path) -> None:
    """What lay in plaintext is replaced by the first run of the timer, once."""
    assert _status(cli)["due"]
    assert 0 == cli("rotate", "--if-due").code
    assert 2 == _status(cli)["current"]["number"]
    assert "is not due before" in cli("rotate", "--if-due").err
    assert 2 == _status(cli)["current"]["number"]


def test_overdue_is_exit_1_in_status_and_in_the_metrics(
    cli: Cli, ready: Path, config: Path
) -> None:
    """A credential of 91 days is overdue; one of 82 is not due or due, but not overdue."""
    _age(config, 91.5)
    result = cli("rotate", "status", "--prometheus")
    assert 1 == result.code
    assert "91 days old" in result.err
    assert 'sesguard_credential_rotation_overdue{credential="ses"} 1' in result.out
    assert "sesguard_credential_age_seconds" in result.out
    assert "overdue since" in cli("rotate", "status").out

    _age(config, 82)
    assert 0 == cli("rotate", "status").code
    assert not _status(cli)["due"]


def test_a_failed_rotation_is_exit_3_and_nothing_is_changed(
    cli: Cli, ready: Path, rig: SandboxRig, key: SeededKey
) -> None:
    """AWS refuses a new key: the old one is CURRENT, and there is nothing to resume."""
    rig.client.set_api_faults(ApiFault("iam:CreateAccessKey", ApiFaultKind.DENIED, None))
    result = cli("rotate")

    assert 3 == result.code
    assert "put back" in result.err
    assert key.access_key_id == _status(cli)["current"]["username"]
    assert "nothing to resume" in cli("rotate", "--resume").err


def test_options_that_exclude_each_other(cli: Cli, ready: Path) -> None:
    """One job at a time."""
    assert 2 == cli("rotate", "--dry-run", "--if-due").code


def test_issue_makes_the_first_key(
    cli: Cli, config: Path, ready: Path, rig: SandboxRig, key: SeededKey
) -> None:
    """For a credential without a version; one that has a version is refused."""
    settings = load_settings(config)
    assert 1 == cli("credential", "issue").code
    open_vault(settings).remove(next(iter(settings.credentials)))
    result = cli("credential", "issue")

    assert 0 == result.code, result.err
    assert "first key" in result.err
    listed = IamKeys(admin_session(rig.sandbox)).list_access_keys(key.user_name)
    assert _status(cli)["current"]["username"] in {each.access_key_id for each in listed}


def test_panic_asks_first(cli: Cli, ready: Path, rig: SandboxRig, key: SeededKey) -> None:
    """Without a terminal and without --yes nothing is done."""
    assert 2 == cli("panic").code
    (only,) = IamKeys(admin_session(rig.sandbox)).list_access_keys(key.user_name)
    assert "Active" == only.status.value


def test_panic_warns_whoever_would_cut_himself_off(
    cli: Cli, ready: Path, key: SeededKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it asks, so that he can answer no and take another identity."""
    assert "calls AWS with" not in cli("panic").err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
    result = cli("panic")

    assert 2 == result.code
    assert f"this command calls AWS with {key.access_key_id} itself" in result.err


def test_panic_cuts_the_leak_and_recovers(
    cli: Cli, ready: Path, rig: SandboxRig, key: SeededKey
) -> None:
    """The old key is refused, a new user's key is CURRENT, the record names the next steps."""
    stolen = rig.login(key)
    result = cli("panic", "--yes", "--json")

    assert 0 == result.code, result.err
    document = json.loads(result.out)
    assert ("RECOVERED", key.access_key_id, True) == (
        document["state"],
        document["access_key_id"],
        document["recovered"],
    )
    record = json.loads(Path(document["record"]).read_text())
    assert record["evidence"]
    assert record["next_steps"]
    assert 0o600 == Path(document["record"]).stat().st_mode & 0o777
    current = _status(cli)["current"]
    assert current["username"] != key.access_key_id
    assert {"ses": current["number"]} == document["new_versions"]
    with pytest.raises(Exception, match="535"), rig.session(stolen):
        pass


def test_a_second_panic_does_not_burn_the_new_key(cli: Cli, ready: Path) -> None:
    """It says that the leak was cut, and how to name the new key if that leaked too."""
    assert 0 == cli("panic", "--yes").code
    before = _status(cli)["current"]
    result = cli("panic", "--yes")

    assert 1 == result.code
    assert f"sesguard panic --key {before['username']}" in result.err
    assert before == _status(cli)["current"]


def test_contain_only_holds_the_mail_until_panic_goes_on(cli: Cli, ready: Path) -> None:
    """Nothing is CURRENT, status says so with exit 1, and panic releases it."""
    assert 0 == cli("panic", "--yes", "--contain-only").code
    held = cli("rotate", "status")
    assert 1 == held.code
    assert "held" in held.err
    assert 1 == cli("rotate", "--if-due").code
    assert (
        'sesguard_credential_held{credential="ses"} 1'
        in cli("rotate", "status", "--prometheus").out
    )
    assert _status(cli)["held"]
    assert 1 == cli("rotate").code

    assert 0 == cli("panic", "--yes").code
    assert 2 == _status(cli)["current"]["number"]


def test_pausing_the_account_says_what_bounces(cli: Cli, ready: Path, rig: SandboxRig) -> None:
    """The help says it, and the account is resumed before mail is released."""
    assert "BOUNCES" in cli("panic", "--help").out
    assert 0 == cli("panic", "--yes", "--pause-account").code
    assert rig.client.status().sending_enabled


def test_no_secret_is_written_anywhere(
    cli: Cli, ready: Path, rig: SandboxRig, config: Path, key: SeededKey
) -> None:
    """Neither key's password is in a file of the state directory after rotate and panic."""
    secrets: list[Secret] = [rig.login(key).password]
    assert 0 == cli("rotate").code
    assert 0 == cli("panic", "--yes").code
    for version in open_vault(load_settings(config)).read().credentials["ses"].versions:
        secrets += version.passwords.values()
    assert 3 == len(set(map(Secret.reveal, secrets)))
    files = [path for path in ready.rglob("*") if path.is_file()]
    for secret in secrets:
        needle = secret.reveal().encode()
        assert [] == [path for path in files if needle in path.read_bytes()]

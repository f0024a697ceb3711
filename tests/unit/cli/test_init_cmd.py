"""sesguard init: settings, key and vault, made once and never overwritten."""

import stat
from pathlib import Path

import pytest

from rigs.command_line import Cli, run_on_a_terminal
from sesguard.config.load import load_settings
from sesguard.config.template import documented_keys


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_made(cli: Cli, config: Path, tmp_path: Path) -> None:
    """One command makes settings, key and vault, with the modes they need."""
    base = tmp_path / "base"
    result = cli(
        "init", "--region", "eu-west-1", "--region", "us-east-1", "--credential", "relay",
        "--sender-domain", "example.com", "--canary-sender", "canary@example.com",
        "--base-directory", base,
    )  # fmt: skip

    assert (0, "") == (result.code, result.out)
    settings = load_settings(config)
    relay = settings.credentials["relay"]
    assert ("eu-west-1", "us-east-1") == relay.regions
    assert ("example.com",) == relay.sender_domains
    assert "canary@example.com" == relay.canary_sender
    assert base / "vault" == settings.vault.directory
    assert [0o644, 0o600] == [_mode(config), _mode(base / "vault.key")]
    assert 0 == cli("credential", "check").code


def test_settings_file_explains_every_key(cli: Cli, config: Path, tmp_path: Path) -> None:
    """What was answered is set; every other key stands there as a comment."""
    cli(
        "init", "--region", "eu-west-1", "--credential", "relay",
        "--canary-sender", "c@example.com", "--base-directory", tmp_path / "base",
    )  # fmt: skip

    text = config.read_text()
    assigned = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [
        f'state_directory = "{tmp_path}/base"',
        "[credentials.relay]",
        'canary_sender = "c@example.com"',
        'regions = ["eu-west-1"]',
        "[vault]",
        f'directory = "{tmp_path}/base/vault"',
        "[vault.keyfile]",
        f'path = "{tmp_path}/base/vault.key"',
        "[daemon]",
        f'runtime_directory = "{tmp_path}/base/run"',
        "[relay]",
        f'spool_directory = "{tmp_path}/base/relay"',
    ] == assigned
    assert [] == [key.name for key in documented_keys() if key.name not in text]
    assert "canary_sender, not set" not in text


def test_again_changes_nothing(cli: Cli, host: Path, config: Path) -> None:
    """A second run says what is there and leaves every byte alone."""
    files = [path for path in (config, *host.rglob("*")) if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    result = cli("init", "--region", "us-west-2")

    assert 0 == result.code
    assert f"{config} is there already; it is left as it is" in result.err
    assert "is there already, generation 1, in order" in result.err
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_interrupted_run_is_finished(cli: Cli, host: Path) -> None:
    """Where only the settings file was written, the rest is made."""
    for path in sorted((host / "vault").iterdir()):
        path.unlink()
    (host / "vault.key").unlink()

    assert 0 == cli("init").code
    assert 0 == cli("credential", "check").code


def test_vault_without_its_key_is_not_replaced(cli: Cli, host: Path) -> None:
    """A lost key is an error, not a reason for a new vault."""
    (host / "vault.key").unlink()

    result = cli("init")

    assert 4 == result.code
    assert not (host / "vault.key").exists()


def test_region_is_needed_without_a_terminal(cli: Cli, config: Path) -> None:
    """Nothing is asked where there is no terminal."""
    result = cli("init")

    assert 2 == result.code
    assert "hint: add --region" in result.err
    assert not config.exists()


def test_settings_that_are_wrong_stay(cli: Cli, config: Path) -> None:
    """A settings file with a mistake is reported, with its line, and kept."""
    config.parent.mkdir()
    config.write_text('[credentials.ses]\nregion = ["us-east-1"]\n')

    result = cli("init", "--region", "us-east-1")

    assert 2 == result.code
    assert f"{config}, line " in result.err
    assert "region: unknown key" in result.err


@pytest.mark.parametrize(
    ("region", "note"),
    [
        ("me-south-1", "AWS documents no SES SMTP endpoint in this region"),
        ("xx-north-9", "may be newer than this release"),
    ],
)
def test_doubtful_region_is_a_warning(cli: Cli, tmp_path: Path, region: str, note: str) -> None:
    """A region that the table does not know is taken, with a warning."""
    result = cli("init", "--region", region, "--base-directory", tmp_path / "base")

    assert 0 == result.code
    assert f"sesguard: warning: {region}: " in result.err
    assert note in result.err


def test_value_that_needs_quoting(cli: Cli, config: Path, tmp_path: Path) -> None:
    """A value with quotes and backslashes arrives as it was given."""
    odd = 'a"b\\c@example.com'

    result = cli(
        "init", "--region", "us-east-1", "--canary-sender", odd, "--base-directory", tmp_path / "b"
    )

    assert 0 == result.code
    assert odd == load_settings(config).credentials["ses"].canary_sender


@pytest.mark.parametrize("name", ["Upper", "a.b", "", "x" * 64, "a b"])
def test_name_that_is_none(cli: Cli, config: Path, name: str) -> None:
    """A credential's name with other characters is refused before anything is written."""
    result = cli("init", "--region", "us-east-1", "--credential", name)

    assert 2 == result.code
    assert not config.exists()


def test_directory_of_the_settings_keeps_its_mode(cli: Cli, tmp_path: Path) -> None:
    """The directory that the settings file goes into is not touched when it exists."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)

    arguments = ("init", "--region", "us-east-1", "--base-directory", tmp_path / "base")
    result = cli("--config", shared / "s.toml", *arguments)

    assert 0 == result.code
    assert 0o1777 == _mode(shared)


def test_questions_on_a_terminal(config: Path, tmp_path: Path) -> None:
    """Without --region a terminal is asked; an empty answer leaves an option out."""
    run_on_a_terminal(
        "init",
        "--base-directory",
        str(tmp_path / "base"),
        dialogue=[
            ("AWS region that mail goes out through: ", "sa-east-1\n"),
            ("(empty: every sender)", "example.com\n"),
            ("(empty: none)", "\n"),
        ],
    )

    ses = load_settings(config).credentials["ses"]
    assert (("sa-east-1",), ("example.com",), None) == (
        ses.regions,
        ses.sender_domains,
        ses.canary_sender,
    )

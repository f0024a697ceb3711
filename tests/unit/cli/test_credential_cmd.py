"""sesguard credential list, check and reveal."""

import json
import os
from pathlib import Path

import pytest

from rigs.command_line import Cli, run_on_a_terminal

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"


@pytest.fixture
def imported(cli: Cli, host: Path) -> Path:
    """A host whose vault holds one credential."""
    done = cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n")
    assert 0 == done.code, done.err
    return host


def test_list_before_the_first_import(cli: Cli, host: Path) -> None:
    """A credential of the settings is listed before anything was imported."""
    result = cli("credential", "list")
    [summary] = json.loads(cli("credential", "list", "--json").out)["credentials"]

    assert 0 == result.code
    assert "not imported yet" in result.out
    assert ("ses", None, None) == (summary["id"], summary["current_version"], summary["age_days"])


def test_list(cli: Cli, imported: Path) -> None:
    """Key id, age and regions are shown, in a table and as JSON; the password is not."""
    table = cli("credential", "list")
    document = json.loads(cli("credential", "list", "--json").out)

    assert ["NAME", "VERSION", "KEY", "ID", "AGE", "EXPOSED", "REGIONS"] == (
        table.out.splitlines()[0].split()
    )
    assert ["ses", "1", KEY_ID, "0", "d", "yes:", "rotate", "it", "us-east-1"] == (
        table.out.splitlines()[1].split()
    )
    assert 1 == document["version"]
    [summary] = document["credentials"]
    assert summary.pop("created_at").endswith("Z")
    assert {
        "id": "ses",
        "current_version": 1,
        "username": KEY_ID,
        "age_days": 0,
        "exposed": True,
        "regions": ["us-east-1"],
        "origin": "imported from standard input (plain pair)",
        "labels": {"CURRENT": 1},
    } == summary
    assert PASSWORD not in table.out


def test_list_needs_the_vault(cli: Cli, host: Path) -> None:
    """Without a vault the list is an error with the command that makes one."""
    for path in sorted((host / "vault").iterdir()):
        path.unlink()

    result = cli("credential", "list")

    assert (4, "") == (result.code, result.out)
    assert "hint: run: sesguard init" in result.err


def test_check_in_order(cli: Cli, imported: Path) -> None:
    """A whole vault passes every check."""
    text = cli("credential", "check")
    document = json.loads(cli("credential", "check", "--json").out)

    assert 0 == text.code
    assert all(line.startswith("ok: ") for line in text.out.splitlines())
    assert any("ses version 1" in line for line in text.out.splitlines())
    assert (1, True) == (document["version"], document["ok"])
    assert {"path", "generation", "credential", "credential_version", "ok", "problem"} == set(
        document["checks"][0]
    )


def test_check_finds_damage_and_restores(cli: Cli, imported: Path) -> None:
    """A damaged vault is exit 1 with the way back, and that way leads back."""
    vault = imported / "vault" / "vault"
    vault.write_bytes(vault.read_bytes()[:-5] + b"xxxx\n")

    damaged = cli("credential", "check")
    as_json = json.loads(cli("credential", "check", "--json").out)
    restored = cli("credential", "check", "--restore-previous")

    assert 1 == damaged.code
    assert "FAILED: " in damaged.out
    assert "hint: run: sesguard credential check --restore-previous" in damaged.err
    assert as_json["ok"] is False
    assert 0 == restored.code
    assert "restored as generation" in restored.err
    assert PASSWORD not in damaged.out + damaged.err + restored.out + restored.err


def test_check_without_the_key_says_how_to_get_it(cli: Cli, imported: Path) -> None:
    """Where nothing opens for want of the key, an older generation is no way out."""
    (imported / "vault.key").unlink()

    result = cli("credential", "check")

    assert 1 == result.code
    assert "hint: put the key back from its backup" in result.err
    assert "--restore-previous" not in result.err


def test_restore_of_a_whole_vault_is_refused(cli: Cli, imported: Path) -> None:
    """There is nothing to put back while the vault is in order."""
    result = cli("credential", "check", "--restore-previous")

    assert 4 == result.code
    assert "nothing to restore" in result.err


def test_reveal_asks(cli: Cli, imported: Path) -> None:
    """Without a terminal and without --yes nothing is revealed or recorded."""
    result = cli("credential", "reveal", "ses")

    assert (2, "") == (result.code, result.out)
    assert "hint: add --yes" in result.err
    assert not (imported / "audit.log").exists()


def test_reveal(cli: Cli, imported: Path) -> None:
    """With --yes the password goes to standard output alone, and the act to the audit log."""
    result = cli("credential", "reveal", "ses", "--yes")

    assert (0, f"us-east-1 {KEY_ID} {PASSWORD}\n", "") == (result.code, result.out, result.err)
    log = imported / "audit.log"
    [line] = log.read_text().splitlines()
    entry = json.loads(line)
    assert ("reveal", "ses", 1, KEY_ID, os.getuid()) == (
        entry["act"],
        entry["credential"],
        entry["credential_version"],
        entry["username"],
        entry["uid"],
    )
    assert 0o600 == log.stat().st_mode & 0o777
    assert PASSWORD not in line


def test_audit_log_grows(cli: Cli, imported: Path) -> None:
    """Every reveal is a line of its own."""
    cli("credential", "reveal", "ses", "--yes")
    cli("credential", "reveal", "ses", "--yes")

    assert 2 == len((imported / "audit.log").read_text().splitlines())


def test_no_audit_no_reveal(cli: Cli, imported: Path, tmp_path: Path) -> None:
    """When the act cannot be recorded the password is not shown."""
    (imported / "audit.log").symlink_to(tmp_path / "elsewhere")

    result = cli("credential", "reveal", "ses", "--yes")

    assert (4, "") == (result.code, result.out)
    assert PASSWORD not in result.err
    assert not (tmp_path / "elsewhere").exists()


def test_reveal_of_nothing(cli: Cli, host: Path) -> None:
    """A credential that was not imported cannot be revealed."""
    result = cli("credential", "reveal", "ses", "--yes")

    assert 4 == result.code
    assert "hint: run: sesguard credential import" in result.err


@pytest.mark.parametrize(
    ("language", "answer", "question", "shown"),
    [
        ("en", "y", "Show the password of ses on this terminal? [y/N]", True),
        ("en", "YES", "Show the password", True),
        ("en", "n", "Show the password", False),
        ("en", "", "Show the password", False),
        ("en", "s", "Show the password", False),
        ("pt_BR", "s", "Mostrar a senha de ses neste terminal? [s/N]", True),
        ("pt_BR", "não", "Mostrar a senha", False),
    ],
)
def test_reveal_on_a_terminal(
    imported: Path, language: str, answer: str, question: str, shown: bool
) -> None:
    """A terminal is asked, in its language, and only a yes shows the password."""
    screen = run_on_a_terminal(
        "credential",
        "reveal",
        "ses",
        dialogue=[(question, f"{answer}\n")],
        environment={"LANGUAGE": language},
    )

    assert shown is (PASSWORD in screen)


def test_reveal_with_another_state_directory(cli: Cli, config: Path, imported: Path) -> None:
    """The audit log makes its directory where it is missing."""
    state = imported / "state"
    config.write_text(
        config.read_text().replace(
            f'state_directory = "{imported}"', f'state_directory = "{state}"'
        )
    )

    assert 0 == cli("credential", "reveal", "ses", "--yes").code
    assert (state / "audit.log").is_file()

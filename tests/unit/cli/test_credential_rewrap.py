"""sesguard credential rewrap, and what credential check says of the key."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rigs.command_line import Cli, run_on_a_terminal
from sesguard.config.load import load_settings
from sesguard.core.message import message
from sesguard.system.locks import exclusive_lock
from sesguard.vault.opening import open_vault
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.journal import Journal, PlannedEntry, RunState, open_journal

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def imported(cli: Cli, host: Path) -> Path:
    """A host whose vault holds one credential."""
    done = cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n")
    assert 0 == done.code, done.err
    return host


@pytest.fixture
def passphrase(config: Path, imported: Path) -> Path:
    """Settings with a passphrase in a file; the key is in the key file still."""
    secret = imported / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(f"{PASSPHRASE}\n")
    table = f'passphrase_file = "{secret}"\npath = "{imported / "key.passphrase"}"\n'
    config.write_text(f"{config.read_text()}\n[vault.passphrase]\n{table}")
    return secret


@contextmanager
def _journal(config: Path) -> Iterator[Journal]:
    settings = load_settings(config)
    sealer = VaultSealer(open_vault(settings).provider)
    with closing(open_journal(settings.state_directory, sealer)) as journal:
        yield journal


def _run(config: Path, state: RunState, workflow: str = "target", subject: str = "exim") -> int:
    with _journal(config) as journal:
        steps = [PlannedEntry(message("step"), b"what undo needs")]
        run = journal.start_run(workflow, subject, steps, "2026-01-01T00:00:00+00:00")
        journal.set_run_state(run.run_id, state)
        return run.run_id


def test_new_key_of_the_same_provider(cli: Cli, config: Path, imported: Path) -> None:
    """The key file is another one, all opens with it, and the settings file is as it was."""
    key, settings = imported / "vault.key", config.read_bytes()
    before = key.read_bytes()
    run = _run(config, RunState.DONE)

    result = cli("credential", "rewrap", "--to", "keyfile", "--yes")

    assert (0, "") == (result.code, result.out), result.err
    assert f"the key that was in {key} before is gone" in result.err
    assert "restart sesguardd" in result.err
    assert before != key.read_bytes()
    assert settings == config.read_bytes()
    assert PASSWORD in cli("credential", "reveal", "ses", "--yes").out
    assert 0 == cli("credential", "check").code
    with _journal(config) as journal:
        assert [b"what undo needs"] == [entry.step for entry in journal.entries(run)]


def test_another_provider_and_back(
    cli: Cli, config: Path, imported: Path, passphrase: Path
) -> None:
    """The settings name the new provider, the old key can be destroyed, and the way back works."""
    key, settings = imported / "vault.key", config.read_text()
    run = _run(config, RunState.DONE)

    there = cli("credential", "rewrap", "--to", "passphrase", "--yes")
    key.unlink()

    assert 0 == there.code, there.err
    assert f"the key in {key} is not needed any more" in there.err
    added = '[vault]\nkey_provider = "passphrase"\n'
    assert settings == config.read_text().replace(added, "[vault]\n")
    assert PASSWORD in cli("credential", "reveal", "ses", "--yes").out
    assert 0 == cli("credential", "check").code

    back = cli("credential", "rewrap", "--to", "keyfile", "--yes")
    passphrase.unlink()

    assert 0 == back.code, back.err
    assert PASSWORD in cli("credential", "reveal", "ses", "--yes").out
    with _journal(config) as journal:
        assert [b"what undo needs"] == [entry.step for entry in journal.entries(run)]
    assert not any(PASSPHRASE in text for text in (there.err, back.err))


def test_interrupted_before_the_settings(
    cli: Cli, config: Path, imported: Path, passphrase: Path
) -> None:
    """With the vault at the new provider and settings of the old one, the hint leads to the end."""
    old = config.read_bytes()
    assert 0 == cli("credential", "rewrap", "--to", "passphrase", "--yes").code
    config.write_bytes(old)

    stuck = cli("credential", "list")
    hint = re.search(r"hint: run: sesguard (credential rewrap --to \S+)", stuck.err)
    assert (4, True) == (stuck.code, hint is not None), stuck.err
    assert hint is not None
    finished = cli(*hint[1].split(), "--yes")

    assert 0 == finished.code, finished.err
    assert "moved to passphrase already" in finished.err
    assert 'key_provider = "passphrase"' in config.read_text()
    assert 0 == cli("credential", "check").code


def test_asks_first(cli: Cli, imported: Path) -> None:
    """Without a terminal and --yes nothing is done, and what would be done is said."""
    before = (imported / "vault.key").read_bytes()

    result = cli("credential", "rewrap", "--to", "keyfile")

    assert (2, "") == (result.code, result.out)
    assert "A new key is made there" in result.err
    assert "hint: add --yes" in result.err
    assert before == (imported / "vault.key").read_bytes()
    assert not (imported / "audit.log").exists()


def test_asks_on_a_terminal(config: Path, imported: Path) -> None:
    """A no leaves everything as it is."""
    before = (imported / "vault.key").read_bytes()

    screen = run_on_a_terminal(
        "credential",
        "rewrap",
        "--to",
        "keyfile",
        dialogue=[("Move the vault to a new key of keyfile? [y/N]", "n\n")],
    )

    assert "interrupted" in screen
    assert before == (imported / "vault.key").read_bytes()


def test_new_passphrase_is_typed_twice(cli: Cli, config: Path, passphrase: Path) -> None:
    """A passphrase that is set on a terminal is asked for once more; one that is there, once."""
    secret = f'passphrase_file = "{passphrase}"\n'
    config.write_text(config.read_text().replace(secret, ""))

    screen = run_on_a_terminal(
        "credential",
        "rewrap",
        "--to",
        "passphrase",
        "--yes",
        dialogue=[
            ("New passphrase of the vault key", f"{PASSPHRASE}\n"),
            ("The same again", f"{PASSPHRASE}\n"),
        ],
    )
    check = run_on_a_terminal(
        "credential", "check", dialogue=[("Passphrase of the vault key", f"{PASSPHRASE}\n")]
    )

    assert "the vault has a new key, of passphrase" in screen
    assert 1 == check.count("Passphrase of the vault key")
    assert "FAILED" not in check
    assert "key provider passphrase" in check
    assert PASSPHRASE not in screen + check


def test_two_different_new_passphrases_are_refused(config: Path, passphrase: Path) -> None:
    """A slip of the finger makes no key that nobody can open."""
    config.write_text(config.read_text().replace(f'passphrase_file = "{passphrase}"\n', ""))
    before = config.read_bytes()

    screen = run_on_a_terminal(
        "credential",
        "rewrap",
        "--to",
        "passphrase",
        "--yes",
        dialogue=[
            ("New passphrase of the vault key", f"{PASSPHRASE}\n"),
            ("The same again", f"{PASSPHRASE}!\n"),
        ],
    )

    assert "the two do not match" in screen
    assert before == config.read_bytes()
    assert not (passphrase.parent / "key.passphrase.next").exists()


def test_act_is_on_record(cli: Cli, imported: Path) -> None:
    """Who changed the key, from where to where, is in the audit log."""
    cli("credential", "rewrap", "--to", "keyfile", "--yes")

    entry = json.loads((imported / "audit.log").read_text())
    assert ("rewrap", "keyfile", "keyfile") == (
        entry["act"],
        entry["key_provider_before"],
        entry["key_provider"],
    )


@pytest.mark.parametrize(
    ("workflow", "subject", "way_out"),
    [
        ("target", "exim", "run: sesguard target apply exim"),
        ("rotation", "ses", "run: sesguard rotate --resume --credential ses"),
        ("retirement", "ses", "run: sesguard rotate --resume --credential ses"),
        ("containment", "20260101-ses", "run: sesguard panic"),
    ],
)
def test_unfinished_run_comes_first(
    cli: Cli, config: Path, imported: Path, workflow: str, subject: str, way_out: str
) -> None:
    """A run that is not finished is exit 1, with the way to finish it; nothing was done."""
    _run(config, RunState.RUNNING, workflow, subject)
    before = (imported / "vault.key").read_bytes()

    result = cli("credential", "rewrap", "--to", "keyfile", "--yes")

    assert (1, "") == (result.code, result.out)
    assert way_out in result.err
    assert before == (imported / "vault.key").read_bytes()


@pytest.mark.parametrize("lock", ["rotation.lock", "target.lock"])
def test_not_beside_another_change(cli: Cli, imported: Path, lock: str) -> None:
    """While another command changes something, nothing is begun."""
    before = (imported / "vault.key").read_bytes()

    with exclusive_lock(imported / lock):
        result = cli("credential", "rewrap", "--to", "keyfile", "--yes")

    assert 4 == result.code
    assert "hint: wait for it to end and try again" in result.err
    assert before == (imported / "vault.key").read_bytes()


def test_settings_that_cannot_be_changed(
    cli: Cli, config: Path, imported: Path, passphrase: Path
) -> None:
    """Where the settings file cannot follow, nothing is begun."""
    text = config.read_text()
    config.write_text(text.replace("[vault]\n", '[vault]\nkey_provider = """keyfile"""\n'))

    result = cli("credential", "rewrap", "--to", "passphrase", "--yes")

    assert 2 == result.code
    assert "cannot change vault.key_provider" in result.err
    assert not (imported / "key.passphrase").exists()


def test_lost_journal_entries_are_told(cli: Cli, config: Path, imported: Path) -> None:
    """What no key opens is not moved, and said."""
    _run(config, RunState.DONE)
    for path in [imported / "vault.key", *(imported / "vault").iterdir()]:
        path.unlink()
    assert 0 == cli("init").code

    result = cli("credential", "rewrap", "--to", "keyfile", "--yes")

    assert 0 == result.code
    assert "1 entry of the journal opens with no key" in result.err


def test_no_vault_no_key(cli: Cli, imported: Path) -> None:
    """Without a vault there is nothing to move."""
    for path in (imported / "vault").iterdir():
        path.unlink()

    result = cli("credential", "rewrap", "--to", "keyfile", "--yes")

    assert 4 == result.code
    assert "hint: run: sesguard init" in result.err
    assert not (imported / "vault.key.next").exists()


def test_check_says_where_the_key_is(cli: Cli, imported: Path) -> None:
    """The check names the key provider, where its key lies and what that is worth."""
    text = cli("credential", "check")
    document = json.loads(cli("credential", "check", "--json").out)

    key = str(imported / "vault.key")
    assert f"key provider keyfile, key in {key}" in text.err
    assert "- root on this host can use the key" in text.err
    provider = document["key_provider"]
    assert ("keyfile", key) == (provider["name"], provider["place"])
    assert provider["protects"]
    assert provider["does_not_protect"]

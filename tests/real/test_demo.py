"""``sesguard demo``: what a newcomer sees first must be true, with and without a real Exim."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from rigs.exim import EXIM, needs_exim
from sesguard.cli.demo_key import KEY_PROVIDERS
from sesguard.sandbox.php_mail import php_available

STEPS = [
    "sandbox", "plant", "init", "import", "daemon", "apply", "mail", "tripwire", "undo",
    "reapply", "rotate", "theft", "panic", "relay", "spoof",
]  # fmt: skip
NO_LOSS = {"lost": 0, "duplicated": 0, "bounced": 0}


def demo(*arguments: str, language: str = "C") -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "sesguard", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LANGUAGE": language, "LC_ALL": "C.UTF-8"},
    )


def assert_all_promises(report: dict[str, Any], mails: int) -> None:
    """No mail lost, no copy left, undone to the byte; the thief is cut off, and quickly."""
    assert 1 == report["version"]
    assert report["ok"]
    assert STEPS == [step["name"] for step in report["steps"]]
    assert all(step["ok"] for step in report["steps"])
    assert {"sent": mails, "delivered": mails, **NO_LOSS} == report["messages"]
    assert report["plaintext_copies_before"] >= 1
    assert 0 == report["plaintext_copies_after"]
    assert report["undo_identical"] is True
    rotation, panic = report["rotation"], report["panic"]
    apps = 2 if os.geteuid() == 0 and php_available() else 1
    sites = {"sent": 10 * apps, "delivered": 10 * apps, "lost": 0, "spoofed_accepted": 0}
    assert {**sites, "apps": apps} == report["relay"]
    assert {**NO_LOSS, "seconds": rotation["seconds"]} == rotation
    assert 0 == panic["thief_accepted_after"]
    assert 0 < panic["contained_seconds"] < panic["total_seconds"]
    assert sum(step["seconds"] for step in report["steps"]) < 60


@pytest.mark.real
@needs_exim
def test_demo_with_exim_keeps_every_promise() -> None:
    """50 mails by PHP through a real Exim, three copies found before and none after."""
    completed = demo("--json")

    assert 0 == completed.returncode, completed.stderr
    report = json.loads(completed.stdout)
    assert_all_promises(report, 50)
    assert 3 == report["plaintext_copies_before"]


@pytest.mark.real
@needs_exim
@pytest.mark.parametrize("name", [name for name in KEY_PROVIDERS if name != "keyfile"])
def test_demo_with_every_key_provider(name: str) -> None:
    """The whole story is the same wherever the vault key lies."""
    completed = demo("--json", "--mails", "5", "--key-provider", name)

    if "which this machine lacks" in completed.stderr:
        pytest.skip(f"left out: {completed.stderr.splitlines()[0]}")
    assert 0 == completed.returncode, completed.stderr
    report = json.loads(completed.stdout)
    assert name == report["key_provider"]
    assert_all_promises(report, 5)


@pytest.mark.real
@needs_exim
def test_demo_tells_the_story_in_portuguese() -> None:
    """The story speaks the user's language."""
    completed = demo("--mails", "2", language="pt_BR")

    assert 0 == completed.returncode, completed.stderr
    assert "A credencial vai para o cofre" in completed.stdout
    assert "$ sesguard target apply exim --yes" in completed.stdout


@pytest.mark.real
@needs_exim
def test_demo_without_exim_uses_our_own_client() -> None:
    """Where there is no Exim, the demo says so and keeps its promises with our own client."""
    hide = f'mount --bind /dev/null $(readlink -f {EXIM}) && exec "$@"'
    completed = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh",
         sys.executable, "-m", "sesguard", "demo", "--json", "--mails", "5"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if "unshare" in completed.stderr or "mount:" in completed.stderr:
        pytest.skip("left out: a mount namespace of our own is needed")

    assert 0 == completed.returncode, completed.stderr
    report = json.loads(completed.stdout)
    assert_all_promises(report, 5)
    assert any("Exim" in part for part in report["left_out"])
    assert any("queue" in part for part in report["left_out"])

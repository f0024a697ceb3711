"""What the scripts of tools/ promise, as far as it can be seen without changing this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(
    *command: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )


class TestStep:
    def test_a_good_step_is_one_line(self) -> None:
        """What a command prints is not shown when it succeeds."""
        done = run(TOOLS / "step.sh", "a step", "echo", "noise")

        assert 0 == done.returncode
        assert ["a", "step", "ok"] == done.stdout.split()[:3]
        assert "noise" not in done.stdout

    def test_a_bad_step_shows_all_of_it(self) -> None:
        """A failure shows both outputs of the command, and passes on its exit code."""
        done = run(TOOLS / "step.sh", "a step", "sh", "-c", "echo out; echo err >&2; exit 7")

        assert 7 == done.returncode
        assert "FAILED (exit 7)" in done.stdout
        assert ["out", "err"] == done.stdout.splitlines()[-2:]


class TestPython:
    def test_a_name_that_does_not_run_is_passed_over(self, tmp_path: Path) -> None:
        """A name on PATH that fails when it is called is not taken for a Python."""
        shim = tmp_path / "python3.13"
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
        (tmp_path / "python3.12").symlink_to("/bin/false")
        (tmp_path / "python3.11").symlink_to(sys.executable)

        found = run(
            TOOLS / "python.sh", environment={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": ""}
        )

        assert (0, "") == (found.returncode, found.stderr)
        assert os.access(found.stdout.strip(), os.X_OK)

    def test_a_wrong_choice_is_not_replaced_by_another(self) -> None:
        """A PYTHON that cannot be used is an error that names it."""
        refused = run(TOOLS / "python.sh", environment={"PYTHON": "/bin/false"})

        assert (2, "") == (refused.returncode, refused.stdout)
        assert "PYTHON=/bin/false" in refused.stderr

    def test_without_python_it_says_what_to_do(self, tmp_path: Path) -> None:
        """A machine without a Python that is new enough is told how to get one."""
        (tmp_path / "bash").symlink_to("/bin/bash")

        refused = run(TOOLS / "python.sh", environment={"PATH": str(tmp_path), "PYTHON": ""})

        assert 2 == refused.returncode
        assert "hint: " in refused.stderr


class TestTerminalPicture:
    @pytest.fixture
    def picture(self, tmp_path: Path) -> Path:
        """Where the picture goes; its directory is not there yet."""
        return tmp_path / "images" / "picture.svg"

    def draw(self, picture: Path, script: str) -> subprocess.CompletedProcess[str]:
        """Draw what a shell script prints."""
        tool = TOOLS / "terminal_picture.py"
        return run(sys.executable, tool, picture, "--title", "a title", "--", "sh", "-c", script)

    def test_the_command_sees_a_terminal(self, picture: Path) -> None:
        """The command prints as for a person: on a terminal, 100 columns wide, in colour."""
        script = r"test -t 1 && stty size && printf '\033[32mgreen\033[0m\n'"

        assert 0 == self.draw(picture, script).returncode

        drawn = picture.read_text(encoding="utf-8")
        assert "60&#160;100" in drawn
        assert "#7dc878" in drawn
        assert "\x1b" not in drawn

    def test_a_failed_command_leaves_the_old_picture(self, picture: Path) -> None:
        """Nothing is written when the command fails, and its exit code and output are passed on."""
        failed = self.draw(picture, "echo what went wrong; exit 3")

        assert 3 == failed.returncode
        assert "what went wrong" in failed.stderr
        assert not picture.exists()

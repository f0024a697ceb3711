"""The entry point: the one exception handler, exit codes, global options."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.command_line import Cli, run_on_a_terminal
from sesguard import errors
from sesguard.cli import main as main_module


@pytest.fixture
def boom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Add a command ``boom`` that runs one statement."""

    def make(statement: str) -> None:
        monkeypatch.delitem(sys.modules, "boom_cmd", raising=False)
        (tmp_path / "boom_cmd.py").write_text(
            "import click\nfrom sesguard.errors import *\n"
            f"@click.command()\ndef command():\n    {statement}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(main_module.COMMANDS, "boom", "boom_cmd")

    return make


def test_error_is_a_line_and_a_hint(cli: Cli, config: Path) -> None:
    """An error reads ``sesguard: what failed`` and then one hint, on standard error alone."""
    result = cli("status")

    assert result.out == ""
    assert result.err == (
        f"sesguard: there is no settings file {config}\n"
        "hint: run: sesguard init (or name another file with --config)\n"
    )
    assert result.code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frob"], "sesguard: no such command 'frob'\nhint: run: sesguard --help\n"),
        (
            ["status", "--frob"],
            "sesguard: no such option '--frob'\nhint: run: sesguard status --help\n",
        ),
        (
            ["credential", "reveal"],
            "sesguard: missing argument 'NAME'\nhint: run: sesguard credential reveal --help\n",
        ),
        (
            ["send"],
            "sesguard: missing option '--to'\nhint: run: sesguard send --help\n",
        ),
        (
            ["init", "--region", "Frankfurt"],
            (
                "sesguard: 'Frankfurt' is not an AWS region name\n"
                "hint: use a name such as us-east-1 or eu-central-1\n"
            ),
        ),
    ],
)
def test_usage_error_has_the_same_form(cli: Cli, arguments: list[str], expected: str) -> None:
    """A wrong command line is told in the same form, with exit code 2."""
    result = cli(*arguments)

    assert (2, "", expected) == (result.code, result.out, result.err)


def test_unexpected_error_shows_its_type_only(cli: Cli, boom: Callable[[str], None]) -> None:
    """The text of an exception that is not ours stays hidden: it may hold a secret."""
    boom("raise ValueError('BPsecretsecret')")

    result = cli("boom")

    assert result.err == (
        "sesguard: unexpected error: ValueError\n"
        "hint: run it again with --debug and report what it shows\n"
    )
    assert (4, "") == (result.code, result.out)


def test_debug_shows_the_traceback(cli: Cli, boom: Callable[[str], None]) -> None:
    """With --debug there is a traceback, for our errors and for others."""
    boom("raise ValueError('details')")
    unexpected = cli("--debug", "boom")
    boom("raise SystemFault('disk full')")
    ours = cli("--debug", "boom")

    assert "Traceback" in unexpected.err
    assert "details" in unexpected.err
    assert "Traceback" in ours.err
    assert ours.err.endswith("sesguard: disk full\n")


def _tree(root: type[errors.Error]) -> list[type[errors.Error]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


@pytest.mark.parametrize(
    "kind", [k for k in _tree(errors.Error) if k.__module__ == errors.__name__]
)
def test_exit_code_is_that_of_the_class(
    cli: Cli, boom: Callable[[str], None], kind: type[errors.Error]
) -> None:
    """Every error class ends the program with its own code."""
    boom(f"raise {kind.__name__}('no {{what}}', hint='get {{what}}', what='[bold]luck[/bold]')")

    result = cli("boom")

    assert kind.exit_code == result.code
    assert result.err == "sesguard: no [bold]luck[/bold]\nhint: get [bold]luck[/bold]\n"


@pytest.mark.parametrize("statement", ["raise KeyboardInterrupt", "raise click.Abort"])
def test_interrupt(cli: Cli, boom: Callable[[str], None], statement: str) -> None:
    """Ctrl-C ends the program with 130 and no traceback."""
    boom(statement)

    result = cli("boom")

    assert 130 == result.code
    assert result.err.strip() == "sesguard: interrupted"


def test_exit_code_of_a_command(cli: Cli, boom: Callable[[str], None]) -> None:
    """A command that ends itself keeps its exit code."""
    boom("click.get_current_context().exit(7)")

    assert 7 == cli("boom").code


def test_control_characters_are_shown_escaped(cli: Cli, boom: Callable[[str], None]) -> None:
    """What a peer said cannot drive the terminal."""
    boom("raise SystemFault('it said {text}', text='\\x1b[2J\\r\\x07')")

    assert cli("boom").err == "sesguard: it said \\x1b[2J\\x0d\\x07\n"


def test_reader_that_goes_away(program: Cli, config: Path) -> None:
    """A closed pipe ends the program quietly."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as stdout:
        completed = subprocess.run(
            [sys.executable, "-m", "sesguard", "--version"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=60,
        )

    assert (1, b"") == (completed.returncode, completed.stderr)


def test_help_lists_every_command(cli: Cli) -> None:
    """The first help page names every command, each with what it does."""
    result = cli("--help")

    assert 0 == result.code
    listed = [line.split() for line in result.out.splitlines() if line.startswith("  ")]
    for name in main_module.COMMANDS:
        assert [words for words in listed if words[0] == name and len(words) > 2], name


def test_no_command_shows_the_help(cli: Cli) -> None:
    """Without a command the help goes to standard error, with exit code 2."""
    result = cli()

    assert (2, "") == (result.code, result.out)
    assert result.err.startswith("Usage: sesguard")


def test_version(cli: Cli) -> None:
    """--version prints name and version."""
    assert (0, "sesguard, version 0.1.0\n") == (cli("--version").code, cli("--version").out)


def test_config_option_beats_the_variable(cli: Cli, config: Path, tmp_path: Path) -> None:
    """--config names the settings file, whatever SESGUARD_CONFIG says."""
    other = tmp_path / "other.toml"

    assert f"no settings file {other}" in cli("--config", other, "status").err
    assert f"no settings file {config}" in cli("status").err


def test_colour_on_a_terminal_only(config: Path) -> None:
    """A terminal gets colour; --no-color and NO_COLOR turn it off."""
    assert "\x1b[31m" in run_on_a_terminal("status")
    assert "\x1b[3" not in run_on_a_terminal("--no-color", "status")
    assert "\x1b[3" not in run_on_a_terminal("status", environment={"NO_COLOR": "1"})


def test_terminal_without_the_letters(program: Cli) -> None:
    """An encoding that lacks a letter shows it escaped instead of failing."""
    result = program(
        "status", environment={"PYTHONIOENCODING": "ascii", "SESGUARD_CONFIG": "/é", "LC_ALL": "C"}
    )

    assert "\\xe9" in result.err
    assert 2 == result.code


def test_a_crash_of_the_program_leaves_no_core_file() -> None:
    """Commands hold secrets in memory for a moment."""
    script = (
        "import atexit, resource, sys\n"
        "atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE)))\n"
        "sys.argv = ['sesguard', '--version']\n"
        "from sesguard.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "(0, 0)" == done.stdout.splitlines()[-1]

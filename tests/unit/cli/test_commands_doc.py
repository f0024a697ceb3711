"""docs/reference/commands.md is complete: it names every command and option, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from sesguard import errors
from sesguard.cli.main import EXIT_INTERRUPTED, sesguard

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "commands.md"


def _tree(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _tree(child, f"{path} {name}")


def _options(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }


def _sections() -> dict[str, str]:
    parts = re.split(r"^#+ `(sesguard[^`]*)`$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section() -> None:
    """Each command has a section of its own, and there are no others."""
    assert sorted(path for path, _ in _tree(sesguard, "sesguard")) == sorted(_sections())


def test_every_option_is_in_its_section() -> None:
    """Each option is in the table of its command, and nothing else is."""
    sections = _sections()
    for path, command in _tree(sesguard, "sesguard"):
        rows = [line for line in sections[path].splitlines() if line.startswith("| `-")]
        cells = [row.split(" | ")[0] for row in rows]
        documented = {name for cell in cells for name in re.findall(r"`(--?[a-z-]+)", cell)}
        assert _options(command) == documented - {"-h", "--help"}, path


def test_every_exit_code_is_in_the_table() -> None:
    """Each exit code of the error tree is explained."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.Error)}
    documented = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)

    assert codes | {0, EXIT_INTERRUPTED} == {int(code) for code in documented}

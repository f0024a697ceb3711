"""English and Brazilian Portuguese: complete, and chosen as gettext chooses."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from babel.messages.catalog import Catalog

from rigs.command_line import Cli
from sesguard.cli.i18n import translate, translate_message
from sesguard.core.message import message
from sesguard.errors import SystemFault, UsageError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """tools/messages.py as a module."""
    spec = importlib.util.spec_from_file_location("messages_tool", ROOT / "tools" / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def portuguese(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language of this process."""
    monkeypatch.setenv("LANGUAGE", "pt_BR")


def test_translation_is_complete(tool: ModuleType) -> None:
    """No text is missing, unused, fuzzy or without its fields, and the .mo is up to date."""
    assert [] == tool.check()


def test_click_words_are_clicks(tool: ModuleType) -> None:
    """Each word that we translate for click stands in click's source."""
    directory = Path(click.__file__).parent
    source = "\n".join(path.read_text() for path in sorted(directory.glob("*.py")))
    words = [
        word for entry in tool.CLICK for word in ([entry] if isinstance(entry, str) else entry)
    ]

    assert [] == [word for word in words if repr(word)[1:-1] not in source.replace('\\"', '"')]


@pytest.mark.parametrize(
    ("translation", "problem"),
    [
        ("não foi possível {act} {path}", "other fields"),
        ("não foi possível ler {path}.", "other full stop"),
        ("", "not translated"),
    ],
)
def test_wrong_translation_is_found(tool: ModuleType, translation: str, problem: str) -> None:
    """A translation that loses a field, changes the form or is empty is reported."""
    catalogue = Catalog(locale="pt_BR")
    catalogue.add("cannot read {path}", translation)
    found = tool.Found()
    found.texts[tool.Text("cannot read {path}")].add("x")

    [reported] = tool.compare(found, catalogue)
    assert reported.startswith(problem)


def test_missing_unused_and_fuzzy_are_found(tool: ModuleType) -> None:
    """What only one side has, and what nobody confirmed, is reported."""
    catalogue = Catalog(locale="pt_BR")
    catalogue.add("gone", "foi")
    catalogue.add("here", "aqui", flags=["fuzzy"])
    found = tool.Found()
    for text in ("here", "new"):
        found.texts[tool.Text(text)].add("x")

    assert ["fuzzy: 'here'", "missing: 'new'", "unused: 'gone'"] == tool.compare(found, catalogue)


def test_every_way_to_write_a_text_is_found(tool: ModuleType) -> None:
    """Calls of _, messages, errors of any depth, hints and worded parameters are all found."""
    texts = {(text.context, text.singular) for text in tool.extract().texts}

    assert (None, "Send one test message through the real path.") in texts
    assert (None, "{host} refused the login of {username}: {reply}") in texts
    assert (None, "check the address") in texts
    assert (None, "run: sesguard init (or name another file with --config)") in texts
    assert ("act", "read") in texts
    assert ("reason", "timed out") in texts


@pytest.mark.usefixtures("portuguese")
def test_error_is_translated_by_template() -> None:
    """The template is translated and filled in afterwards, the words in it by their context."""
    error = SystemFault("cannot {act} {path}: {reason}", act="read", path="/x/{y}", reason="read")

    assert "não foi possível ler /x/{y}: read" == translate(error).text


@pytest.mark.usefixtures("portuguese")
def test_error_inside_an_error_is_translated() -> None:
    """A cause that is an error or a message of ours is translated as well."""
    cause = UsageError("no AWS region was given")
    outer = SystemFault("cannot {act} {path}: {reason}", act="write", path="p", reason=cause)
    inner = SystemFault("{cause}", cause=message("check the address"))

    assert "não foi possível gravar p: nenhuma região da AWS foi informada" == translate(outer).text
    assert "confira o endereço" == translate(inner).text
    assert "confira o endereço" == translate_message(message("check the address"))


@pytest.mark.usefixtures("portuguese")
def test_text_that_nobody_translated_is_shown_in_english() -> None:
    """A text without a translation is shown as it is, and so is an empty parameter."""
    assert "unheard of: " == translate(SystemFault("unheard of: {x}", x="")).text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "pt_BR.UTF-8"}, "Uso:"),
        ({"LC_ALL": "pt_BR.UTF-8", "LANG": "en_US.UTF-8"}, "Uso:"),
        ({"LC_MESSAGES": "pt_BR"}, "Uso:"),
        ({"LANGUAGE": "pt_BR:en", "LANG": "en_US.UTF-8"}, "Uso:"),
        ({"LANG": "en_US.UTF-8"}, "Usage:"),
        ({"LANG": "C"}, "Usage:"),
        ({"LANG": "xx_XX"}, "Usage:"),
        ({}, "Usage:"),
    ],
)
def test_language_of_the_environment(cli: Cli, environment: dict[str, str], expected: str) -> None:
    """The variables of gettext choose, in its order."""
    assert cli("status", "--help", environment=environment).out.startswith(expected)


def test_error_form_in_portuguese(cli: Cli, config: Path) -> None:
    """The form of an error is the same in Portuguese."""
    result = cli("status", environment={"LANGUAGE": "pt_BR"})

    assert result.err == (
        f"sesguard: o arquivo de configuração {config} não existe\n"
        "dica: execute: sesguard init (ou informe outro arquivo com --config)\n"
    )
    assert 2 == result.code


def test_usage_error_in_portuguese(cli: Cli) -> None:
    """Click's own complaints are in Portuguese as well."""
    result = cli("status", "--frob", environment={"LANGUAGE": "pt_BR"})

    assert result.err == (
        "sesguard: opção inexistente '--frob'\ndica: execute: sesguard status --help\n"
    )


_DUMP = """
import click, contextlib, io, json, sys
from sesguard.cli.main import main, sesguard

def paths(command, path=()):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from paths(command.get_command(context, name), (*path, name))

pages = {}
for path in paths(sesguard):
    with contextlib.redirect_stdout(io.StringIO()) as page:
        assert main([*path, "--help"]) == 0
    pages[" ".join(path)] = page.getvalue()
json.dump(pages, sys.stdout)
"""
_SAME_IN_BOTH = re.compile(r"[a-z-]+|.*east-1\]|/etc/.*|--.*|-h, .*")


def test_help_has_no_line_in_english() -> None:
    """In Portuguese no line of any command's help is as it is in English."""
    english, portuguese = _all_help("en"), _all_help("pt_BR")

    assert english.keys() == portuguese.keys()
    assert {"", "send", "credential import", "target apply"} <= english.keys()
    for path, text in english.items():
        kept = set(_sentences(text)) & set(_sentences(portuguese[path]))
        assert set() == kept, path


def _all_help(language: str) -> dict[str, str]:
    """The help of every command, in a process of its own: the language is chosen at its start."""
    completed = subprocess.run(
        [sys.executable, "-c", _DUMP],
        capture_output=True,
        env={**os.environ, "LANGUAGE": language},
        timeout=60,
        check=True,
    )
    pages: dict[str, str] = json.loads(completed.stdout)
    return pages


def _sentences(text: str) -> Iterator[str]:
    """The descriptions in a help text: what is left of a line without names and values."""
    for line in text.splitlines():
        words = line.split("  ")[-1].strip()
        if re.search(r"[a-z]{3}", words) and not _SAME_IN_BOTH.fullmatch(words):
            yield words

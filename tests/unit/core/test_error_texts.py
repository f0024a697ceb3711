"""Every error that the source raises: its template, its hint and its parameters fit."""

import ast
import importlib
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest

import sesguard
from sesguard.errors import Error

SOURCE = Path(sesguard.__file__).parent
NAMES = ("Exim", "Debian", "Postfix", "PHP", "AWS", "LISTEN_FDS")
"""A message may begin with a name."""


@dataclass(frozen=True)
class Raised:
    """One place where an error is made."""

    place: str
    texts: list[ast.expr]
    """Template and hint, as written."""
    parameters: set[str | None]
    """None among them stands for parameters that are handed on."""

    def literals(self) -> list[str]:
        """The texts that stand there as such."""
        values = [text.value for text in self.texts if isinstance(text, ast.Constant)]
        return [str(value) for value in values if value is not None]


def _error_names() -> set[str]:
    for module in pkgutil.walk_packages([str(SOURCE)], "sesguard."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[Error]] = set()
    todo = [Error]
    while todo:
        kind = todo.pop()
        found.add(kind)
        todo += kind.__subclasses__()
    return {kind.__name__ for kind in found}


def _in_file(path: Path, names: set[str]) -> list[Raised]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[*_more, template]) if name in names:
                hints = [item.value for item in node.keywords if item.arg == "hint"]
                parameters = {item.arg for item in node.keywords} - {"hint"}
                place = f"{path.relative_to(SOURCE)}:{node.lineno}"
                found.append(Raised(place, [template, *hints], parameters))
    return found


ALL = [item for path in sorted(SOURCE.rglob("*.py")) for item in _in_file(path, _error_names())]


def _fields(template: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in Formatter().parse(template) if name}


def test_the_source_raises_errors_of_its_own() -> None:
    """The search finds them."""
    assert len(ALL) > 100


@pytest.mark.parametrize("raised", ALL, ids=lambda raised: raised.place)
def test_each_field_of_a_text_has_its_parameter(raised: Raised) -> None:
    """Parameters are named; more of them than fields is fine, for whoever reads the error."""
    wanted = {name for text in raised.literals() for name in _fields(text)}
    assert None in raised.parameters or wanted <= raised.parameters


@pytest.mark.parametrize("raised", ALL, ids=lambda raised: raised.place)
def test_texts_are_literal_lower_case_and_without_a_full_stop(raised: Raised) -> None:
    """So that translators see them, and that they read well after ``sesguard:``."""
    assert not any(isinstance(text, ast.JoinedStr) for text in raised.texts)
    for text in raised.literals():
        assert not text.endswith(".")
        assert text.startswith(NAMES) or not re.match(r"[A-Z][a-z]", text)

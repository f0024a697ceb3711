"""The Protocols of `sesguard.core.interfaces`, and that `core` stands on nothing but itself."""

import ast
import sys
from pathlib import Path
from typing import Protocol

import pytest

import sesguard.core
from sesguard.core import interfaces
from sesguard.core.interfaces import CredentialSource, RawSender, Sealer

FILES = sorted(Path(sesguard.core.__file__ or "").parent.rglob("*.py"))


def test_what_is_handed_in_is_a_protocol() -> None:
    """No layer has to inherit from another's class."""
    assert {CredentialSource, RawSender, Sealer} == {
        value
        for value in vars(interfaces).values()
        if isinstance(value, type) and Protocol in value.__bases__
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_core_imports_the_standard_library_itself_and_errors_only(path: Path) -> None:
    """And of the standard library nothing that reads files, clocks or the network."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    ours = {name for name in names if name.startswith("sesguard")}
    assert all(name.startswith(("sesguard.core", "sesguard.errors")) for name in ours)
    others = {name.partition(".")[0] for name in names - ours}
    assert others <= sys.stdlib_module_names
    assert others.isdisjoint({"os", "io", "time", "datetime", "socket", "random", "secrets"})

"""The exception tree: exit codes, templates, and the drawing in its module docstring."""

import copy
import inspect
import pickle
import re

import pytest

from sesguard import errors
from sesguard.errors import Error, SystemFault

CLASSES: list[type[Error]] = [
    thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, Error)
]


def _drawn() -> dict[str, tuple[str, int]]:
    """Parent and exit code of each class in the drawing; the root's parent is Exception."""
    drawn: dict[str, tuple[str, int]] = {}
    above = ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+) +exit (\d+)", line)
        if match:
            depth = len(match[1]) // 4
            above[depth + 1 :] = [match[2]]
            drawn[match[2]] = (above[depth], int(match[3]))
    return drawn


def test_the_drawing_is_the_tree() -> None:
    """The docstring draws every class with its parent and its exit code, and no other."""
    real = {thing.__name__: (thing.__mro__[1].__name__, thing.exit_code) for thing in CLASSES}

    assert real == _drawn()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_exit_code_is_documented(kind: type[Error]) -> None:
    """Every class ends the program with one of the documented codes, and says what it means."""
    assert kind.exit_code in {1, 2, 3, 4, 75}
    assert kind.__doc__


def test_error_text_fills_the_template() -> None:
    """The English text has the parameters in it, and the template stays for the translation."""
    error = SystemFault("cannot read {path}: {reason}", path="/x", reason="gone")

    assert "cannot read /x: gone" == str(error)
    assert "cannot read {path}: {reason}" == error.template
    assert {"path": "/x", "reason": "gone"} == error.parameters


@pytest.mark.parametrize("value", ["{path}", "{", "}", "{0}", "{path.__class__}", "%s"])
def test_error_parameters_are_not_templates(value: str) -> None:
    """Braces in a parameter, which may come from a hostile file, are printed as they are."""
    error = SystemFault("bad line {line}", hint="mend {line}", line=value)

    assert f"bad line {value}" == str(error)
    assert f"mend {value}" == error.hint


def test_error_template_without_parameters_is_plain_text() -> None:
    """A text without parameters may hold braces."""
    assert "expected {" == str(Error("expected {"))


def test_error_hint_is_optional() -> None:
    """No hint is None, and a hint is filled in like the message."""
    assert Error("no").hint is None
    assert "run: chmod 600 /x" == Error("no", hint="run: chmod 600 {path}", path="/x").hint


def test_error_survives_copy_and_pickle() -> None:
    """An error that crosses a process or is copied keeps its text and its hint."""
    error = SystemFault("cannot read {path}", hint="look at {path}", path="/x")

    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(error), error.hint) == (str(twin), twin.hint)

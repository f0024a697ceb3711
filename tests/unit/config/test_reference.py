"""docs/reference/settings.md and exit-codes.md say what the code says."""

import ast
import inspect
from pathlib import Path

import msgspec
import pytest

from sesguard import errors
from sesguard.config import schema
from sesguard.config.load import parse_settings

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def documented_fields() -> list[tuple[str, str, str]]:
    """Class, field and the docstring under the field, for every settings class."""
    found = []
    for node in ast.parse(inspect.getsource(schema)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = ""
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                    text = " ".join(str(following.value.value).split())
                found.append((node.name, statement.target.id, text))
    return found


@pytest.mark.parametrize(("owner", "field", "text"), documented_fields())
def test_every_setting_is_in_the_reference(owner: str, field: str, text: str) -> None:
    """Each key is a row of the reference, with the words of its docstring."""
    kind = getattr(schema, owner).__annotations__[field]
    if (owner, field) == ("Settings", "path") or "Settings" in str(kind):
        return
    page = (DOCS / "settings.md").read_text()

    assert f"| `{field}` |" in page
    assert text
    assert text.replace("``", "`") in page


def test_example_in_the_reference_is_valid() -> None:
    """The TOML in the reference parses."""
    page = (DOCS / "settings.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]

    settings = parse_settings(example.encode(), Path("/x.toml"))

    assert ["ses"] == list(settings.credentials)
    assert isinstance(settings, msgspec.Struct)


def test_every_exit_code_is_in_the_reference() -> None:
    """The codes of the exception tree, and no others, are documented."""
    page = (DOCS / "exit-codes.md").read_text()
    classes = [
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, errors.Error)
    ]

    for code in {0, 130, *(item.exit_code for item in classes)}:
        assert f"| {code} |" in page

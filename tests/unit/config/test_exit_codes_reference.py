"""docs/reference/exit-codes.md says what the code says."""

from pathlib import Path

from sesguard import errors

DOCS = Path(__file__).parents[3] / "docs" / "reference"


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

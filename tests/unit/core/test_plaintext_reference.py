"""docs/formats/plaintext-sources.md says what the parsers do."""

import re
from pathlib import Path

import pytest

from sesguard.core.plaintext.detect import find_credentials
from sesguard.core.plaintext.plain import MAX_DISTANCE
from unit.core.generated import HOST, PASSWORD, USER
from unit.core.test_plaintext_vectors import FILES, read_vector

PAGE = (Path(__file__).parents[3] / "docs" / "formats" / "plaintext-sources.md").read_text("utf-8")
EXAMPLES = re.findall(r"^([\w. ]+):\n\n```\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("kind", "example"), EXAMPLES, ids=[kind for kind, _text in EXAMPLES])
def test_every_example_of_the_page_is_found_as_what_it_is_called(kind: str, example: str) -> None:
    """With real values in place of the words."""
    values = {"USER": USER, "PASSWORD": PASSWORD, "HOST": HOST}
    text = re.sub(r"(?<![A-Z_])(?:USER|PASSWORD|HOST)(?![A-Z_])", lambda m: values[m[0]], example)
    found = find_credentials(text)
    assert {kind} == {item.kind for item in found}
    assert {(USER, PASSWORD)} == {(item.username, item.password.reveal()) for item in found}


def test_every_kind_has_an_example() -> None:
    """The kinds that the vector files have."""
    kinds = {item.kind for path in FILES for item in read_vector(path).expected}
    assert kinds == {kind for kind, _text in EXAMPLES}


def test_the_limit_of_the_page_is_the_one_of_the_code() -> None:
    """How far behind a user its password may stand."""
    assert f"at most {MAX_DISTANCE} characters behind it" in PAGE

"""docs/reference/settings.md and the settings template say what the schema says."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from sesguard.config.load import parse_settings
from sesguard.config.schema import AppSettings, CredentialSettings, Settings
from sesguard.config.template import (
    EXAMPLE_REGION,
    Key,
    _in_words,
    documented_keys,
    settings_template,
)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
KEYS = documented_keys()


def row(key: Key) -> str:
    """The row that the page has for a key."""
    if key.required:
        default = "required"
    else:
        default = "not set" if key.default is None else f"`{key.default}`"
    return f"| `{key.name}` | {key.kind} | {default} | {key.meaning} |"


def sections(page: str) -> dict[str, str]:
    """The page by the table that its headings name."""
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    named = zip(parts[1::2], parts[2::2], strict=True)
    return {heading.strip("`[]").replace("Top of the file", ""): body for heading, body in named}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.table}.{key.name}")
def test_the_page_has_every_key_with_type_default_and_meaning(key: Key) -> None:
    """In the section of its table, in the words of the schema."""
    assert row(key) in sections(PAGE.read_text("utf-8"))[key.table].splitlines()


def test_the_page_has_no_other_key() -> None:
    """A key that is gone is gone from the page too."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert sorted(row(key) for key in KEYS) == sorted(rows)


def test_the_example_of_the_page_is_a_valid_settings_file() -> None:
    """What people copy works."""
    example = PAGE.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    assert parse_settings(example.encode(), Path("/x")).credentials


def test_every_key_has_a_meaning_and_a_type() -> None:
    """No field of the schema is without a docstring."""
    assert all(key.meaning and key.kind for key in KEYS)
    assert len({(key.table, key.name) for key in KEYS}) == len(KEYS)


def test_the_template_as_it_is_gives_the_defaults() -> None:
    """Nothing in it is in force."""
    assert {} == tomllib.loads(settings_template())
    content = settings_template().encode()
    assert Settings(path=Path("/x")) == parse_settings(content, Path("/x"))


def test_the_template_with_every_line_taken_in_gives_the_defaults_as_well() -> None:
    """The value beside each key is its default; the credential is an example."""
    text = re.sub(r"^#(?=[a-z\[])", "", settings_template(), flags=re.MULTILINE)
    expected = Settings(
        path=Path("/x"),
        credentials={"ses": CredentialSettings(regions=(EXAMPLE_REGION,))},
        apps={"shop": AppSettings()},
    )
    assert expected == parse_settings(text.encode(), Path("/x"))


def test_the_template_mentions_every_key() -> None:
    """Also those that are not set."""
    for key in KEYS:
        mark = rf"^# {key.name}, not set:" if key.default is None else rf"^#{key.name} = "
        assert re.search(mark, settings_template(), re.MULTILINE), key


def test_the_lines_of_the_template_fit_a_terminal() -> None:
    """80 columns."""
    assert max(map(len, settings_template().splitlines())) <= 80


def test_a_type_without_words_is_noticed() -> None:
    """A new kind of setting needs words in the template module first."""
    with pytest.raises(TypeError, match="the settings have no words for"):
        _in_words(msgspec.inspect.type_info(bytes))

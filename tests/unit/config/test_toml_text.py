"""Lines of keys against a generator of TOML: tests of `sesguard.config.toml_text`."""

import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.config.toml_text import Place, key_lines, read_toml
from sesguard.errors import SettingsError

SCALARS = ["1", "1.5", "-2e7", "true", "1979-05-27T07:32:00.5Z", '"x"', "''", '"[{,=\\"#"', "'#]'"]
LONG = ['"""\na = 1\n\\"""b"""', "'''\n[t]\n'''", '""""x"""""', "''''''"]


class Writer:
    """Writes TOML at random and remembers where each key went."""

    def __init__(self, rand: random.Random) -> None:
        self.rand = rand
        self.text = ""
        self.lines: dict[Place, int] = {}

    def write(self, text: str) -> None:
        """Append."""
        self.text += text

    def note(self, place: Place) -> None:
        """The next token is the one of `place`."""
        self.lines.setdefault(place, self.text.count("\n") + 1)

    def document(self) -> None:
        """Some keys at the top, then tables with keys of their own."""
        self.keys((), self.rand.randrange(3))
        for number in range(self.rand.randrange(4)):
            self.write(self.rand.choice(["", "\n", "# [not] = a table\n"]) + "[")
            place = self.key((), f"t{number}")
            self.write("]" + self.rand.choice(["", " # c"]) + "\n")
            self.keys(place, self.rand.randrange(4))

    def keys(self, table: Place, count: int) -> None:
        """Assignments, a line each."""
        for number in range(count):
            place = self.key(table, f"k{number}")
            self.write(self.rand.choice(["=", " = "]))
            self.value(place, 2)
            self.write(self.rand.choice(["\n", " # a = 1\n", "\r\n", "\n\n"]))

    def key(self, table: Place, first: str) -> Place:
        """A key, perhaps dotted, perhaps quoted."""
        place = table
        for part in [first, "a.b", "c d"][: self.rand.choice([1, 1, 2, 3])]:
            if place != table:
                self.write(self.rand.choice([".", " . "]))
            place = (*place, part)
            self.note(place)
            bare = part if part.isalnum() else f'"{part}"'
            self.write(self.rand.choice([bare, f'"{part}"', f"'{part}'"]))
        return place

    def value(self, place: Place, depth: int) -> None:
        """A scalar, an array or an inline table."""
        kind = self.rand.choice(["scalar", "long", "array", "table"]) if depth else "scalar"
        if kind == "array":
            self.array(place, depth)
        elif kind == "table":
            self.write("{ ")
            for number in range(self.rand.randrange(3)):
                self.write(", " if number else "")
                self.note((*place, f"i{number}"))
                self.write(f"i{number} = ")
                self.value((*place, f"i{number}"), 0)
            self.write(" }")
        else:
            self.write(self.rand.choice(SCALARS if kind == "scalar" else LONG))

    def array(self, place: Place, depth: int) -> None:
        """Elements on one line or on several."""
        self.write("[")
        for index in range(self.rand.randrange(4)):
            self.write(self.rand.choice(["", "\n  ", " # c ]\n"]))
            self.note((*place, index))
            self.value((*place, index), depth - 1)
            self.write(self.rand.choice([",", "\n,"]))
        self.write(self.rand.choice(["]", "\n]"]))


@given(seed=st.integers(0, 2**32))
def test_every_key_and_element_has_the_line_it_was_written_at(seed: int) -> None:
    """Whatever stands in strings and comments around it."""
    writer = Writer(random.Random(seed))
    writer.document()
    tomllib.loads(writer.text)
    assert writer.lines == key_lines(writer.text)


def test_elements_of_an_array_of_tables_are_counted() -> None:
    """Each with its own keys."""
    text = "[[a]]\nb = 1\n[[a]]\n[a.c]\nd = 1\n[[e]]\nb = 1\n"
    lines = {(): 0, ("a",): 1, ("a", 0, "b"): 2, ("a", "c"): 4, ("a", "c", "d"): 5, ("e",): 6}
    found = key_lines(text)
    assert {k: v for k, v in lines.items() if k} | {("e", 0, "b"): 7} == found


def test_a_document_is_read_with_its_text() -> None:
    """The text is what positions are looked up in."""
    assert ("a = 1\n", {"a": 1}) == read_toml(b"a = 1\n", Path("/x"))


@given(content=st.one_of(st.binary(max_size=60), st.text("[]{}=.,\"'#\n a1", max_size=60)))
def test_any_bytes_are_read_or_refused_with_a_line(content: bytes | str) -> None:
    """And what is read has lines for its keys."""
    data = content if isinstance(content, bytes) else content.encode()
    try:
        text, document = read_toml(data, Path("/x"))
    except SettingsError as error:
        text, document = "", {}
        line = error.parameters["line"]
    else:
        line = 1
    assert line in range(1, data.count(b"\n") + 2)
    assert {(key,) for key in document} <= set(key_lines(text))


@pytest.mark.parametrize("text", ["", "\n", "# c", "   "])
def test_a_text_without_keys_has_no_lines(text: str) -> None:
    """Nothing is there to be named."""
    assert {} == key_lines(text)

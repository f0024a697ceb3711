"""
Keeps the translation of the command line complete.

    extract    print every text that needs a translation
    update     bring the .po up to date: adds what is new, drops what is gone
    compile    make the .mo
    check      fail when a text is missing, fuzzy, unused or unlike its original, or the .mo is old

What needs a translation is found in the syntax trees of src/:

    _("..."), N_("..."), ngettext("...", "...")
    message("...") and Message("...") of sesguard.core.message
    every text within ProviderDescription(...)
    the first argument and the hint of every class in the tree of sesguard.errors; a literal text
    given as a parameter of one of these is a word of ours, with the parameter's name as context

and in the tables below, for what does not stand in the source in this way.
"""

import ast
import io
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Final

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po

from sesguard.core.endpoints import region_note

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src"
PO_FILE: Final = SOURCE / "sesguard/cli/locale/pt_BR/LC_MESSAGES/sesguard.po"
MO_FILE: Final = PO_FILE.with_suffix(".mo")

CLICK: Final[tuple[str | tuple[str, str], ...]] = (
    "Usage:",
    "Options",
    "Commands",
    "Show this message and exit.",
    "default: {default}",
    "env var: {var}",
    "required",
    "%(prog)s, version %(version)s",
    "Missing command.",
    "Missing argument",
    "Missing option",
    "Missing parameter",
    "Missing {param_type}",
    "Missing parameter: {param_name}",
    "No such option {name!r}.",
    "No such command {name!r}.",
    "Option {name!r} does not take a value.",
    "Invalid value: {message}",
    "Invalid value for {param_hint}: {message}",
    "{value!r} is not a valid {number_type}.",
    "{value} is not in the range {range}.",
    "{name} {filename!r} does not exist.",
    "{name} {filename!r} is a file.",
    "{name} {filename!r} is a directory.",
    "Choose from:\n\t{choices}",
    "file",
    "directory",
    "path",
    "Error: {message}",
    "Error: invalid input",
    ("Did you mean {possibility}?", "(Did you mean one of: {possibilities}?)"),
    ("{value!r} is not {choice}.", "{value!r} is not one of {choices}."),
    ("Got unexpected extra argument ({args})", "Got unexpected extra arguments ({args})"),
    ("Option {name!r} requires an argument.", "Option {name!r} requires {nargs} arguments."),
)
"""Words of click that our commands can show. It takes them from our domain: see cli/i18n.py."""

PARAMETER_WORDS: Final = {"act": ("read", "write", "make", "remove", "check", "clean up")}
"""Words that a function of ours hands on as a parameter."""

NOTES: Final = tuple(filter(None, map(region_note, ("me-south-1", "xx-unknown-1"))))
"""Texts that a function of core gives back."""

_FUNCTIONS: Final = {"_", "N_", "message", "Message"}
_DESCRIPTION: Final = "ProviderDescription"
_ERROR_ROOT: Final = "Error"
_LETTER: Final = re.compile(r"[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Text:
    """One text to translate; the key of a catalogue entry."""

    singular: str
    plural: str | None = None
    context: str | None = None

    @property
    def id(self) -> str | tuple[str, str]:
        """As Babel wants it."""
        return self.singular if self.plural is None else (self.singular, self.plural)


@dataclass(slots=True)
class Found:
    """Every text with the files it is in, and what could not be read."""

    texts: dict[Text, set[str]] = field(default_factory=lambda: defaultdict(set))
    mistakes: list[str] = field(default_factory=list)


def extract() -> Found:
    """Find every text that needs a translation."""
    found = Found()
    trees = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    errors = _error_classes(trees.values())
    for path, tree in trees.items():
        place = str(path.relative_to(ROOT))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) == _DESCRIPTION:
                _read_description(found, place, node)
            elif isinstance(node, ast.Call):
                _read_call(found, place, node, errors)
    for word in CLICK:
        found.texts[Text(*word) if isinstance(word, tuple) else Text(word)].add("click")
    for name, words in PARAMETER_WORDS.items():
        for word in words:
            found.texts[Text(word, context=name)].add("sesguard")
    for note in NOTES:
        found.texts[Text(note)].add("sesguard")
    return found


def _error_classes(trees: Iterable[ast.Module]) -> set[str]:
    """Names of `sesguard.errors.Error` and of every class that descends from it, anywhere."""
    bases: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    known = {_ERROR_ROOT}
    while new := {name for name, parents in bases.items() if parents & known} - known:
        known |= new
    return known


def _read_call(found: Found, place: str, call: ast.Call, errors: set[str]) -> None:
    name = _called(call)
    if name == "ngettext" and len(call.args) >= 2:
        for singular, plural in zip(_texts(call.args[0]), _texts(call.args[1]), strict=True):
            found.texts[Text(singular, plural)].add(place)
        return
    if name not in _FUNCTIONS | errors or not call.args:
        return
    if isinstance(call.args[0], ast.JoinedStr):
        found.mistakes.append(f"{place}:{call.lineno}: an f-string cannot be translated")
    for text in _texts(call.args[0]):
        _add(found, place, Text(text))
    for keyword in call.keywords:
        context = None if keyword.arg == "hint" else keyword.arg
        for text in _texts(keyword.value):
            _add(found, place, Text(text, context=context))


def _read_description(found: Found, place: str, call: ast.Call) -> None:
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            _add(found, place, Text(node.value))


def _add(found: Found, place: str, text: Text) -> None:
    if _LETTER.search(re.sub(r"\{[^}]*\}", "", text.singular)):
        found.texts[text].add(place)


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def _texts(node: ast.expr) -> Iterator[str]:
    """The literal texts that an expression may be: ``"a"``, ``"a" if x else "b"``, ``x or "a"``."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from _texts(body)
            yield from _texts(other)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _texts(value)


def read_catalogue() -> Catalog:
    """The .po file."""
    with PO_FILE.open("rb") as stream:
        return read_po(stream, locale="pt_BR", domain="sesguard")


def update() -> None:
    """Add what is new to the .po and drop what is gone."""
    template = Catalog(domain="sesguard")
    for text, places in extract().texts.items():
        template.add(text.id, locations=[(p, 0) for p in sorted(places)], context=text.context)
    catalogue = read_catalogue()
    catalogue.update(template, no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    with PO_FILE.open("wb") as stream:
        write_po(stream, catalogue, width=100, sort_output=True, include_lineno=False)


def compile_catalogue() -> None:
    """Make the .mo from the .po."""
    with MO_FILE.open("wb") as stream:
        write_mo(stream, read_catalogue())


def check() -> list[str]:
    """Everything that is wrong with the catalogue, one line each."""
    catalogue = read_catalogue()
    problems = compare(extract(), catalogue)
    if _strings(catalogue) != _strings(_read_compiled()):
        problems.append(f"{MO_FILE.name} is not up to date: run tools/messages.py compile")
    return problems


def compare(found: Found, catalogue: Catalog) -> list[str]:
    """What the catalogue lacks, has too much, or says in another form than the source."""
    entries = {(m.context, m.id): m for m in catalogue if m.id}
    wanted = {(text.context, text.id) for text in found.texts}
    problems = list(found.mistakes)
    problems += [f"missing: {key[1]!r}" for key in wanted - entries.keys()]
    problems += [f"unused: {key[1]!r}" for key in entries.keys() - wanted]
    for message in entries.values():
        if message.fuzzy:
            problems.append(f"fuzzy: {message.id!r}")
        for reason in _differences(_forms(message.id), _forms(message.string)):
            problems.append(f"{reason}: {message.id!r}")
    return sorted(problems)


def _forms(text: str | Sequence[str] | None) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text or ())


def _differences(originals: tuple[str, ...], translations: tuple[str, ...]) -> Iterator[str]:
    if not all(translations) or len(translations) != len(originals):
        yield "not translated"
        return
    for left, right in zip(originals, translations, strict=True):
        if _fields(left) != _fields(right):
            yield "other fields"
        if left.endswith(".") != right.endswith("."):
            yield "other full stop at the end"


def _fields(text: str) -> set[str]:
    parsed = Formatter().parse(text)
    named = {f"{name}!{conversion}:{spec}" for _, name, spec, conversion in parsed if name}
    return named | set(re.findall(r"%\(\w+\)s", text))


def _strings(catalogue: Catalog) -> dict[object, tuple[str, ...]]:
    translated = [m for m in catalogue if m.id and all(_forms(m.string))]
    return {(_context(m), _forms(m.id)): _forms(m.string) for m in translated}


def _context(message: Message) -> str | None:
    # Babel's reader of .mo files leaves the context undecoded.
    context: object = message.context
    return context.decode() if isinstance(context, bytes) else message.context


def _read_compiled() -> Catalog:
    return read_mo(io.BytesIO(MO_FILE.read_bytes()))


def main(arguments: list[str]) -> int:
    """Run one command."""
    match arguments:
        case ["extract"]:
            for text in sorted(extract().texts, key=lambda text: text.singular):
                print(text.singular)
        case ["update"]:
            update()
        case ["compile"]:
            compile_catalogue()
        case ["check"]:
            problems = check()
            print("\n".join(problems) or "translation complete")
            return 1 if problems else 0
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""
Reading the settings file.

Every mistake is a `SettingsError` that names the file, the line and the key: a TOML error, an
unknown key (with the nearest known one), a wrong type or a value out of range.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sesguard.config.schema import Settings
from sesguard.config.toml_text import Place, error_at, key_lines, read_toml
from sesguard.core.endpoints import require_region
from sesguard.errors import CredentialError, SettingsError
from sesguard.system.files import read_if_exists

DEFAULT_PATH: Final = Path("/etc/sesguard/sesguard.toml")
VARIABLE: Final = "SESGUARD_CONFIG"

_MAX_BYTES: Final = 1024 * 1024
_PROBLEM: Final = re.compile(
    r"(?P<reason>.*?)(?: - at (?P<name>`key` in )?`\$\.?(?P<place>[^`]*)`)?"
)
_STEP: Final = re.compile(r"[^.\[\]]+|\[(?P<index>[^\]]*)\]")
_FIELD: Final = re.compile(
    r"Object (?P<what>contains unknown|missing required) field `(?P<key>.+)`"
)
_WORDS: Final = {
    "object": "table",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
}


def settings_path(option: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The settings file to use: the command-line option, else the variable, else the default."""
    return option or Path(environment.get(VARIABLE) or DEFAULT_PATH)


def load_settings(path: Path) -> Settings:
    """
    Read and check a settings file.

    Raises:
        SettingsError: Not there, or wrong in any way.
    """
    state = read_if_exists(path, max_bytes=_MAX_BYTES)
    if state is None:
        raise SettingsError(
            "there is no settings file {path}",
            hint="run: sesguard init (or name another file with --config)",
            path=path,
        )
    return parse_settings(state.content, path)


def parse_settings(content: bytes, path: Path) -> Settings:
    """
    Check the text of a settings file.

    Raises:
        SettingsError: With file, line and key.
    """
    text, document = read_toml(content, path)
    if "path" in document:
        raise _error(path, text, ("path",), "unknown key", None)
    try:
        settings = _convert(document)
    except msgspec.ValidationError as error:
        raise _explain(path, text, document, str(error)) from None
    for name, credential in settings.credentials.items():
        for index, region in enumerate(credential.regions):
            try:
                require_region(region)
            except CredentialError as error:
                place = ("credentials", name, "regions", index)
                raise _error(path, text, place, str(error), error.hint) from None
    return msgspec.structs.replace(settings, path=path)


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise ValueError("expected an absolute path")
        return Path(value)
    raise ValueError(f"expected a {'path' if kind is Path else kind.__name__}")


def _explain(path: Path, text: str, document: dict[str, Any], message: str) -> SettingsError:
    problem = _PROBLEM.fullmatch(message)
    assert problem is not None  # the expression matches any text
    reason = problem["reason"]
    place = _place(document, problem, message)
    field = _FIELD.fullmatch(reason)
    if field is None:
        return _error(path, text, place, _in_plain_words(reason), None)
    place = (*place, field["key"])
    if field["what"] == "missing required":
        return _error(path, text, place, "this key is required", None)
    near = difflib.get_close_matches(field["key"], _known_keys(), n=1)
    return _error(path, text, place, "unknown key", f"did you mean {near[0]}?" if near else None)


def _place(document: dict[str, Any], problem: re.Match[str], message: str) -> Place:
    """The place that msgspec means; it writes ``[...]`` for the key of a table of any names."""
    place: list[str | int] = []
    for step in _STEP.finditer(problem["place"] or ""):
        if step["index"] == "...":
            place.append(_culprit(document, str(place[0]), message))
        else:
            place.append(step[0] if step["index"] is None else int(step["index"]))
    if problem["name"]:
        place.append(_culprit(document, str(place[0]), message))
    return tuple(place)


def _culprit(document: dict[str, Any], table: str, message: str) -> str:
    """The entry of a table that gives `message` when it is alone."""
    entries = document[table].items()
    return next(
        str(name) for name, value in entries if _complaint({table: {name: value}}) == message
    )


def _complaint(document: dict[str, Any]) -> str | None:
    try:
        _convert(document)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _convert(document: dict[str, Any]) -> Settings:
    return msgspec.convert(document, Settings, strict=True, dec_hook=_decode)


def _in_plain_words(reason: str) -> str:
    if "matching regex" in reason:
        return "expected a name of lower-case letters, digits, - and _, at most 63"
    reason = re.sub(r"`(\w+)(?: \| null)?`", lambda m: _WORDS.get(m[1], m[1]), reason)
    return reason[:1].lower() + reason[1:]


def _known_keys() -> set[str]:
    keys: set[str] = set()
    todo: list[type] = [Settings]
    while todo:
        struct = todo.pop()
        for item in msgspec.structs.fields(struct):
            keys.add(item.name)
            kinds = (item.type, *getattr(item.type, "__args__", ()))
            todo.extend(k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct))
    return keys


def _error(path: Path, text: str, place: Place, reason: str, hint: str | None) -> SettingsError:
    lines = key_lines(text)
    known = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return error_at(path, lines[known] if known else 1, key.lstrip("."), reason, hint)

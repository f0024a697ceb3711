"""
Reading the settings file.

Every mistake is a `SettingsError` that names the file, the line and the key: a TOML error, an
unknown key (with the nearest known one), a wrong type or a value out of range.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sesguard.config.schema import Settings
from sesguard.core.endpoints import require_region
from sesguard.errors import CredentialError, SettingsError
from sesguard.system.files import read_if_exists

DEFAULT_PATH: Final = Path("/etc/sesguard/sesguard.toml")
VARIABLE: Final = "SESGUARD_CONFIG"

_MAX_BYTES: Final = 1024 * 1024
_WHERE: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>[^`]+)`")


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
    try:
        text = content.decode("utf-8")
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            "{path} is not valid TOML: {reason}",
            hint="correct the line; strings need quotes",
            path=path,
            reason=error,
        ) from error
    if "path" in document:
        raise _error(path, text, "path", "unknown key", None)
    try:
        settings = msgspec.convert(document, Settings, strict=True, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explain(path, text, document, str(error)) from None
    for name, credential in settings.credentials.items():
        for region in credential.regions:
            try:
                require_region(region)
            except CredentialError as error:
                raise _error(
                    path, text, f"credentials.{name}.regions", str(error), error.hint
                ) from None
    return msgspec.structs.replace(settings, path=path)


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise ValueError("expected an absolute path")
        return Path(value)
    raise ValueError(f"expected a {kind.__name__}")


def _explain(path: Path, text: str, document: dict[str, Any], message: str) -> SettingsError:
    where = _WHERE.search(message)
    key = where["path"] if where else ""
    reason = message[: where.start()] if where else message
    unknown = _UNKNOWN.match(reason)
    if unknown is None:
        return _error(path, text, key or "(top level)", reason[:1].lower() + reason[1:], None)
    table = key.replace("[...]", "")
    full_key = f"{table}.{unknown['key']}" if table else unknown["key"]
    near = difflib.get_close_matches(unknown["key"], _known_keys(), n=1)
    return _error(path, text, full_key, "unknown key", f"did you mean {near[0]}?" if near else None)


def _known_keys() -> set[str]:
    keys: set[str] = set()
    todo: list[type] = [Settings]
    while todo:
        struct = todo.pop()
        for item in msgspec.structs.fields(struct):
            if item.name != "path" or struct is not Settings:
                keys.add(item.name)
        todo.extend(
            kind
            for item in msgspec.structs.fields(struct)
            for kind in (item.type, *getattr(item.type, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        )
    return keys


def _error(path: Path, text: str, key: str, reason: str, hint: str | None) -> SettingsError:
    return SettingsError(
        "{path}, line {line}: {key}: {reason}",
        hint=hint or "see docs/reference/settings.md",
        path=path,
        line=_line_of(text, key),
        key=key,
        reason=reason,
    )


def _line_of(text: str, key: str) -> int:
    """
    Find the line of a dotted key; the line of its table when the key itself is written otherwise.

    TOML readers do not report positions, so this looks for the table's header and then for the key.
    """
    table, _, name = re.sub(r"\[[^]]*\]", "", key).rpartition(".")
    header = 0
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if heading:
            current = heading[1].replace('"', "").replace("'", "")
            if current in (table, f"{table}.{name}".lstrip(".")):
                header = number
        assigned = re.match(r"\s*[\"']?([A-Za-z0-9_.-]+)[\"']?\s*=", line)
        if assigned and f"{current}.{assigned[1]}".strip(".") == f"{table}.{name}".strip("."):
            return number
    return header or 1

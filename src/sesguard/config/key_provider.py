"""
Changing ``vault.key_provider`` in the settings file, and not a byte besides.

TOML has many ways to write one key: in a table, dotted, in an inline table. Instead of a writer
that knows all of them there is a short list of edits, each made where it could fit; the first one
counts that gives the old document with the new value. So a wrong guess (the text of a comment, a
line of a long string) is never written.

The file keeps its owner and mode, and is replaced in one durable step.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sesguard.config.toml_text import read_toml
from sesguard.errors import SettingsError
from sesguard.system.files import read_file, write_atomic

_MAX_BYTES: Final = 1024 * 1024
_NAME: Final = r"""["']?{}["']?"""
_VAULT: Final = _NAME.format("vault")
_KEY: Final = _NAME.format("key_provider")
_VALUE: Final = re.compile(rf"""(?P<before>{_KEY}[ \t]*=[ \t]*)(?:"[^"\n]*"|'[^'\n]*')""")
_TABLE: Final = re.compile(rf"^[ \t]*\[[ \t]*{_VAULT}[ \t]*\][^\n]*\n?", re.MULTILINE)
_INLINE: Final = re.compile(rf"{_VAULT}[ \t]*=[ \t]*\{{")
_DOTTED: Final = re.compile(rf"^[ \t]*{_VAULT}[ \t]*\.", re.MULTILINE)


def with_key_provider(content: bytes, path: Path, name: str) -> bytes:
    """
    The text of a settings file with another key provider.

    Args:
        content: The text.
        path: Where it comes from, for messages.
        name: The key provider, a word of ASCII letters and digits.

    Raises:
        SettingsError: Not TOML, or written in a way that this cannot change.
    """
    text, document = read_toml(content, path)
    vault = document.get("vault", {})
    if vault.get("key_provider") == name:
        return content
    wanted = {**document, "vault": {**vault, "key_provider": name}}
    for edited in _edits(text, f'key_provider = "{name}"', name):
        if _document(edited, path) == wanted:
            return edited.encode()
    raise SettingsError(
        "{path}: cannot change vault.key_provider, as it is written there",
        hint='write key_provider = "{provider}" into the table vault of that file by hand',
        path=path,
        provider=name,
    )


def set_key_provider(path: Path, name: str) -> None:
    """
    Change the key provider in a settings file; nothing is written where it is that one already.

    Raises:
        SettingsError: As `with_key_provider`.
        SystemFault: The file cannot be read or written; it is as it was.
    """
    state = read_file(path, max_bytes=_MAX_BYTES)
    content = with_key_provider(state.content, path, name)
    if content != state.content:
        write_atomic(path, content, mode=state.mode, uid=state.uid, gid=state.gid)


def _edits(text: str, assignment: str, name: str) -> Iterator[str]:
    """Every text that could be it, the likeliest first."""
    newline = "\r\n" if "\r\n" in text else "\n"
    for value in _VALUE.finditer(text):
        yield _replaced(text, value.end("before"), value.end(), f'"{name}"')
    for table in _TABLE.finditer(text):
        # A header in the last line may lack its end.
        before = "" if table[0].endswith("\n") else newline
        yield _replaced(text, table.end(), table.end(), before + assignment + newline)
    for inline in _INLINE.finditer(text):
        yield _replaced(text, inline.end(), inline.end(), f" {assignment},")
        yield _replaced(text, inline.end(), inline.end(), f" {assignment} ")
    for dotted in _DOTTED.finditer(text):
        yield _replaced(text, dotted.start(), dotted.start(), f"vault.{assignment}{newline}")
    before = "" if not text or text.endswith("\n") else newline
    yield f"{text}{before}{newline}[vault]{newline}{assignment}{newline}"


def _replaced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _document(text: str, path: Path) -> dict[str, Any] | None:
    try:
        return read_toml(text.encode(), path)[1]
    except SettingsError:
        return None

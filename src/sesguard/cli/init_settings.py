"""
The settings file that ``sesguard init`` writes: the commented template with the answers in it.

Promises: an answer stands where the template explains its key, and everything else stays a comment,
so that the file shows every key there is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.config.template import settings_template

Values = Mapping[str, str | Sequence[str]]
"""Key to value, within one table."""

_EXAMPLE_TABLE: Final = "credentials.ses"
_HEADER: Final = re.compile(r"#\[(?P<table>[^]]+)\]")
_DEFAULT: Final = re.compile(r"#(?P<key>\w+) = ")
_UNSET: Final = re.compile(r"# (?P<key>\w+), not set:")


@dataclass(frozen=True, slots=True)
class Answers:
    """What goes into the settings file."""

    credential: str
    regions: Sequence[str]
    sender_domains: Sequence[str]
    canary_sender: str | None
    base_directory: Path | None
    """Everything is kept below it; None: where the template says."""

    def tables(self) -> dict[str, Values]:
        """Table to the values that are set in it; the top of the file is the table ``""``."""
        credential: dict[str, str | Sequence[str]] = {"regions": self.regions}
        if self.sender_domains:
            credential["sender_domains"] = self.sender_domains
        if self.canary_sender is not None:
            credential["canary_sender"] = self.canary_sender
        base = self.base_directory
        if base is None:
            return {_EXAMPLE_TABLE: credential}
        return {
            "": {"state_directory": str(base)},
            _EXAMPLE_TABLE: credential,
            "vault": {"directory": str(base / "vault")},
            "vault.keyfile": {"path": str(base / "vault.key")},
            "daemon": {"runtime_directory": str(base / "run")},
            "relay": {"spool_directory": str(base / "relay")},
        }


def settings_text(answers: Answers) -> str:
    """Fill the template in."""
    template = settings_template()
    tables = answers.tables()
    values = tables.get("", {})
    lines: list[str] = []
    for line in template.splitlines():
        header, default, unset = _HEADER.fullmatch(line), _DEFAULT.match(line), _UNSET.match(line)
        if header:
            values = tables.get(header["table"], {})
            lines += _header(line, header["table"], values, answers.credential, template)
        elif default and default["key"] in values:
            lines.append(_assignment(default["key"], values))
        elif unset and unset["key"] in values:
            lines.append(line.replace(", not set:", ":", 1))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _header(line: str, table: str, values: Values, credential: str, template: str) -> list[str]:
    """A table's first lines: its name, and the values whose keys have no default to replace."""
    if not values:
        return [line]
    name = f"credentials.{credential}" if table == _EXAMPLE_TABLE else table
    bare = [key for key in values if f"\n#{key} = " not in template]
    return [f"[{name}]", *(_assignment(key, values) for key in bare)]


def _assignment(key: str, values: Values) -> str:
    # What JSON writes of strings and lists of strings is TOML as well.
    return f"{key} = {json.dumps(values[key], ensure_ascii=False)}"

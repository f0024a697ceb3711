"""
The settings explained: every key with its type, default and meaning, read from the schema.

One source for the commented settings file of ``sesguard init`` and for docs/reference/settings.md:
the classes of `sesguard.config.schema` and the docstrings under their fields.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec.inspect import (
    BoolType,
    CustomType,
    DictType,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

from sesguard.config.schema import AppSettings, CredentialSettings, Settings

EXAMPLE_REGION: Final = "us-east-1"

_WIDTH: Final = 78
_EXAMPLES: Final = {
    CredentialSettings: CredentialSettings(regions=(EXAMPLE_REGION,)),
    AppSettings: AppSettings(),
}
_HEAD: Final = """\
# Settings of sesguard. A line that starts with "#" and a letter or bracket is
# a setting with its default: take the "#" away to change it. Lines that start
# with "# " explain.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the settings file."""

    table: str
    """Header of its table without brackets; empty for the top."""
    name: str
    kind: str
    """Type and limits, in words."""
    default: str | None
    """As it is written in TOML; None when it is not set."""
    required: bool
    meaning: str


def documented_keys() -> list[Key]:
    """Every key, in the order of the schema."""
    info = type_info(Settings)
    assert isinstance(info, StructType)
    return list(_keys("", info, Settings()))


def settings_template() -> str:
    """A settings file in which every key stands with its default, as a comment."""
    lines = [_HEAD]
    table = ""
    for key in documented_keys():
        if key.table != table:
            table = key.table
            lines.append(f"\n#[{_example_header(table)}]")
        note = key.meaning if key.default is not None else f"{key.name}, not set: {key.meaning}"
        lines += textwrap.wrap(
            note.replace("`", ""), _WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        if key.default is not None:
            lines.append(f"#{key.name} = {key.default}")
    return "\n".join(lines) + "\n"


def _example_header(table: str) -> str:
    return table.replace("credentials.NAME", "credentials.ses").replace("apps.NAME", "apps.shop")


def _keys(table: str, struct: StructType, defaults: object) -> Iterator[Key]:
    meanings = _meanings(struct.cls)
    inner: list[tuple[str, StructType, object]] = []
    for field in struct.fields:
        name, kind = field.name, field.type
        value = getattr(defaults, name)
        below = f"{table}.{name}".lstrip(".")
        if isinstance(kind, StructType):
            inner.append((below, kind, value))
        elif isinstance(kind, DictType) and isinstance(kind.value_type, StructType):
            inner.append((f"{below}.NAME", kind.value_type, _EXAMPLES[kind.value_type.cls]))
        elif struct.cls is not Settings or name != "path":
            default = None if value is None else _toml(value)
            yield Key(table, name, _in_words(kind), default, field.required, meanings[name])
    for header, kind, value in inner:
        yield from _keys(header, kind, value)


def _meanings(struct: type) -> dict[str, str]:
    """The docstrings under the fields of a class, with the code marks of Markdown."""
    (node,) = ast.parse(inspect.getsource(struct)).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[field.target.id] = " ".join(meaning.split()).replace("``", "`")
    return found


def _in_words(kind: Type) -> str:
    match kind:
        case UnionType(types=types):
            return next(_in_words(item) for item in types if not isinstance(item, NoneType))
        case BoolType():
            return "true or false"
        case IntType(ge=least, le=most):
            return f"integer, {least} to {most}"
        case FloatType(gt=least, le=most):
            return f"number above {least:g}, at most {most:g}"
        case LiteralType(values=values):
            return "one of " + ", ".join(f"`{_toml(value)}`" for value in values)
        case StrType(pattern=pattern):
            return "string" if pattern is None else "name of a credential"
        case CustomType():
            return "absolute path"
        case VarTupleType(item_type=item, min_length=least):
            noun, comma, limits = _in_words(item).partition(",")
            return f"list of {noun}s{comma}{limits}" + (f", at least {least}" if least else "")
    raise TypeError(f"the settings have no words for {kind}")


def _toml(value: object) -> str:
    """A default as TOML: what JSON writes of strings, numbers and lists of them is TOML as well."""
    return json.dumps(msgspec.to_builtins(value, enc_hook=_plain))


def _plain(value: object) -> str:
    assert isinstance(value, Path)
    return str(value)

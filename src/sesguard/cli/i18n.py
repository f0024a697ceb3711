"""
The language of the command line: English, and Brazilian Portuguese from a gettext catalogue.

The language is that of LANGUAGE, LC_ALL, LC_MESSAGES or LANG, the first that is set, as gettext(3)
has it. Importing this module makes our catalogue the default domain of the process, which gives
click's own words (``Usage:``, ``Options``) our translation as well. A command takes ``_`` from
here, so the domain is set before any help text is read.

Errors and messages are translated by template: the message id is the English template, and its
parameters are filled in afterwards. A parameter that is itself a word of ours (``cannot {act}
{path}``) is looked up with its name as message context.

``tools/messages.py`` keeps ``locale/pt_BR/LC_MESSAGES/sesguard.po`` and ``.mo`` complete.
"""

import gettext
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sesguard.core.message import Message
from sesguard.errors import Error, fill

DOMAIN: Final = "sesguard"
LOCALE_DIRECTORY: Final = Path(__file__).parent / "locale"

gettext.bindtextdomain(DOMAIN, str(LOCALE_DIRECTORY))
gettext.textdomain(DOMAIN)

_ = gettext.gettext
ngettext = gettext.ngettext


def N_(text: str) -> str:  # noqa: N802 - the name that gettext's tools know
    """Mark a text for translation where it stands; it is translated where it is used."""
    return text


@dataclass(frozen=True, slots=True)
class ErrorText:
    """An error in the user's language."""

    text: str
    hint: str | None


def translate(error: Error) -> ErrorText:
    """Put an error into the user's language."""
    parameters = _parameters(error.parameters)
    hint = error.hint_template
    return ErrorText(
        fill(_(error.template), parameters),
        None if hint is None else fill(_(hint), parameters),
    )


def translate_message(message: Message) -> str:
    """Put a `sesguard.core.message.Message` into the user's language."""
    return fill(_(message.template), _parameters(message.parameters))


def _parameters(parameters: Mapping[str, object]) -> dict[str, object]:
    return {name: _parameter(name, value) for name, value in parameters.items()}


def _parameter(name: str, value: object) -> object:
    match value:
        case Error():
            return translate(value).text
        case Message():
            return translate_message(value)
        case str():
            return gettext.pgettext(name, value)
        case _:
            return value

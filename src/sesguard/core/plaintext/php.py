r"""
PHP: constants, PHPMailer properties, configuration arrays, variables.

    define('WPMS_SMTP_PASS', '...');  const SMTP_PASS = '...';      php define
    $mail->Password = '...';                                        phpmailer
    $config['smtp_pass'] = '...';  'password' => '...',             php config
    $passwordSmtp = '...';  public string $SMTPPass = '...';        php variable

Both kinds of string literal are read with their escapes; blanks inside the quotes, as PHPMailer
examples have them, do not count. Which settings belong together: see
`sesguard.core.plaintext.pairing`; the properties of one object do.

Known faults: a value put together by ``.`` or by interpolation is not found. A line that starts
with a comment mark is skipped, but code within ``/* ... */`` whose lines have no mark is not.
"""

import re
from collections.abc import Iterator
from typing import Final

from sesguard.core.plaintext.endpoint import with_endpoint
from sesguard.core.plaintext.interface import FoundCredential
from sesguard.core.plaintext.pairing import Setting, pair, setting
from sesguard.core.plaintext.position import LineCounter, is_comment, line_before

_VALUE: Final = (
    r"(?:'(?P<single>(?:[^'\\\n]|\\.){1,256})'|\"(?P<double>(?:[^\"\\\n]|\\.){1,256})\""
    r"|(?P<number>[0-9]{1,5})(?![0-9.]))"
)
_FORMS: Final = tuple(
    (kind, re.compile(pattern + _VALUE))
    for kind, pattern in (
        (
            "php define",
            (
                r"\b(?:define\s*\(\s*(?P<quote>['\"])(?P<name>\w{1,64})(?P=quote)\s*,"
                r"|const\s+(?P<constant>\w{1,64})\s*=)\s*"
            ),
        ),
        ("phpmailer", r"->\s*(?P<name>Host|Port|Username|Password)\s*=\s*"),
        (
            "php config",
            r"(?P<quote>['\"])(?P<name>[\w.-]{1,64})(?P=quote)\s*(?:=>|\]\s*=(?!=))\s*",
        ),
        ("php variable", r"\$(?P<name>\w{1,64})\s*=(?!=)\s*"),
    )
)
_OBJECT: Final = re.compile(r"[\w$>-]{1,128}\s{0,16}\Z")
_SINGLE_ESCAPE: Final = re.compile(r"\\([\\'])")
_DOUBLE_ESCAPE: Final = re.compile(r"\\(?:([\\$\"])|([0-7]{1,3})|x([0-9A-Fa-f]{1,2}))")
_COMMENT_MARKS: Final = ("//", "#", "*", "/*")
_SHORTEST: Final = 20


class PhpParser:
    """PHP source."""

    name: Final = "php"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        if "AKIA" not in text:
            return
        found = [item for kind, form in _FORMS for item in pair(_settings(text, form), kind)]
        yield from with_endpoint(sorted(found, key=lambda item: item.line), text)


def _settings(text: str, form: re.Pattern[str]) -> Iterator[Setting]:
    counter = LineCounter(text)
    for match in form.finditer(text):
        groups = match.groupdict()
        name = groups["name"] or groups.get("constant") or ""
        kind = match.lastgroup or ""
        if len(match[kind]) < _SHORTEST and "port" not in name.lower():
            continue
        if is_comment(text, match.start(), _COMMENT_MARKS):
            continue
        line = counter.line_at(match.start(kind))
        item = setting(name, _decoded(kind, match[kind]), line, _object(text, match))
        if item is not None:
            yield item


def _object(text: str, match: re.Match[str]) -> str:
    """The object that a property belongs to: ``$mail``, ``$this->mailer``."""
    if not match[0].startswith("->"):
        return ""
    found = _OBJECT.search(line_before(text, match.start())[-128:])
    return found[0].strip() if found else ""


def _decoded(kind: str, value: str) -> str:
    if kind == "single":
        return _SINGLE_ESCAPE.sub(r"\1", value).strip()
    return _DOUBLE_ESCAPE.sub(_character, value).strip()


def _character(match: re.Match[str]) -> str:
    same, octal, hexadecimal = match.groups()
    return same or chr(int(octal, 8) & 0xFF if octal else int(hexadecimal, 16))

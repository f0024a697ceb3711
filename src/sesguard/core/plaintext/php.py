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
from sesguard.core.plaintext.position import LineCounter, is_comment

_OBJECT: Final = r"\$\w{1,64}(?:\s*->\s*\w{1,64}|\[['\"]?\w{0,64}['\"]?\]){0,4}"
_PROPERTY: Final = r"(?:Host|Port|Username|Password)\b"
_NAME: Final = r"(?P<name>[A-Za-z_][\w.-]{0,63})(?:(?P<port>(?<=[Pp][Oo][Rr][Tt]))|)"
_VALUE: Final = (
    r"(?:'(?P<single>(?:[^'\\\n]|\\.){20,256})'|\"(?P<double>(?:[^\"\\\n]|\\.){20,256})\""
    r"|(?(port)['\"]?(?P<number>[0-9]{1,5})(?![0-9.])|(?!)))"
)
_FORMS: Final = tuple(
    (kind, re.compile(pattern + _VALUE))
    for kind, pattern in (
        ("php define", rf"\bdefine\s*\(\s*(?P<quote>['\"]){_NAME}(?P=quote)\s*,\s*"),
        ("php define", rf"\bconst\s+{_NAME}\s*=\s*"),
        ("phpmailer", rf"(?P<object>{_OBJECT})\s*->\s*(?={_PROPERTY}){_NAME}\s*=\s*"),
        ("php config", rf"(?P<quote>['\"]){_NAME}(?P=quote)\s*(?:=>|\]\s*=(?!=))\s*"),
        ("php variable", rf"\${_NAME}\s*=(?!=)\s*"),
    )
)
_SINGLE_ESCAPE: Final = re.compile(r"\\([\\'])")
_DOUBLE_ESCAPE: Final = re.compile(r"\\(?:([\\$\"])|([0-7]{1,3})|x([0-9A-Fa-f]{1,2}))")
_COMMENT_MARKS: Final = ("//", "#", "*", "/*")


class PhpParser:
    """PHP source."""

    name: Final = "php"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        found = [item for kind, form in _FORMS for item in pair(_settings(text, form), kind)]
        yield from with_endpoint(sorted(found, key=lambda item: item.line), text)


def _settings(text: str, form: re.Pattern[str]) -> Iterator[Setting]:
    counter = LineCounter(text)
    for match in form.finditer(text):
        groups = match.groupdict()
        group = match.lastgroup or ""
        line = counter.line_at(match.start(group))
        value = _decoded(group, groups[group])
        item = setting(groups["name"], value, line, groups.get("object", ""))
        if item is not None and not is_comment(text, match.start(), _COMMENT_MARKS):
            yield item


def _decoded(group: str, value: str) -> str:
    if group == "single":
        return _SINGLE_ESCAPE.sub(r"\1", value).strip()
    return _DOUBLE_ESCAPE.sub(_character, value).strip()


def _character(match: re.Match[str]) -> str:
    same, octal, hexadecimal = match.groups()
    return same or chr(int(octal, 8) & 0xFF if octal else int(hexadecimal, 16))

"""
msmtp and sSMTP: programs that stand in for sendmail and keep the credential in their settings.

msmtp (msmtprc): ``account NAME`` and ``defaults`` start a section of ``host``, ``port``, ``user``
and ``password`` lines, whose value may stand in double quotes. sSMTP (ssmtp.conf): ``mailhub``,
``AuthUser`` and ``AuthPass``, in any case, with ``=`` or blanks.

``passwordeval`` runs a program; what that prints is not ours to find.
"""

import re
from collections.abc import Iterator
from typing import Final

from sesguard.core.plaintext.endpoint import with_endpoint
from sesguard.core.plaintext.interface import FoundCredential, present
from sesguard.core.plaintext.pairing import Setting, pair, setting
from sesguard.core.plaintext.position import LineCounter

_MSMTP: Final = re.compile(
    r"^[ \t]*(?:(?P<section>account|defaults)\b[ \t]*(?P<account>[^\s:]{0,64})"
    r"|(?P<name>host|port|user|password)[ \t]+\"?(?P<value>[^\s\"]{1,256})\"?[ \t\r]*$)",
    re.MULTILINE,
)
_SSMTP: Final = re.compile(
    r"^[ \t]*(?P<name>mailhub|AuthUser|AuthPass)[ \t]*[= \t][ \t]*(?P<value>[^\s=]{1,256})",
    re.MULTILINE | re.IGNORECASE,
)


class MsmtpParser:
    """msmtprc."""

    name: Final = "msmtp"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        if "AKIA" in text:
            yield from with_endpoint(pair(_msmtp(text), "msmtp"), text)


class SsmtpParser:
    """ssmtp.conf."""

    name: Final = "ssmtp"

    def find(self, text: str) -> Iterator[FoundCredential]:
        """See the module docstring."""
        if "AKIA" in text:
            yield from with_endpoint(pair(_ssmtp(text), "ssmtp"), text)


def _msmtp(text: str) -> Iterator[Setting]:
    counter = LineCounter(text)
    account = ""
    for match in _MSMTP.finditer(text):
        if match["section"]:
            account = match["account"]
            continue
        line = counter.line_at(match.start("value"))
        yield from present(setting(match["name"], match["value"], line, account))


def _ssmtp(text: str) -> Iterator[Setting]:
    counter = LineCounter(text)
    for match in _SSMTP.finditer(text):
        line = counter.line_at(match.start("value"))
        yield from present(setting(match["name"], match["value"], line))

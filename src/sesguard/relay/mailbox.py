"""
The syntax of one address in an SMTP command.

What is accepted, and what is made of it, is said in `sesguard.relay.commands`. Domains outside of
ASCII are accepted only as one would type them: letters, digits and marks in their normal form
(NFKC). A full-width ``@`` or dot, or an invisible character, would make one domain look like
another to the rules of an app and to the upstream.

Sources: RFC 5321, 4.1.2, 4.1.3 and 4.5.3.1; RFC 6531, 3.3.
"""

import ipaddress
import re
import unicodedata
from typing import Final

MAX_LOCAL_BYTES: Final = 64
MAX_DOMAIN_BYTES: Final = 255
MAX_ADDRESS_BYTES: Final = 254
"""A path has 256 octets with its angle brackets."""

_BEYOND: Final = "\x80-\U0010ffff"
_ATOM: Final = rf"A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_BEYOND}-"
_WORD: Final = rf"A-Za-z0-9_{_BEYOND}"
_LABEL: Final = rf"[{_WORD}](?:[{_WORD}-]{{0,61}}[{_WORD}])?"

_UNQUOTED: Final = re.compile(rf"[{_ATOM}.]+")
_NEEDS_NO_QUOTES: Final = re.compile(rf"[{_ATOM}]+(?:\.[{_ATOM}]+)*")
# Printable, without quote, backslash and angle brackets; the first two may stand after a backslash.
_QUOTED: Final = re.compile(rf'"((?:[ !#-;=?-\[\]-~{_BEYOND}]|\\[ -;=?-~])*)"')
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_TO_BE_QUOTED: Final = re.compile(r'["\\]')
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PLAIN: Final = re.compile(
    rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*"
)
_PLAIN_LABELS: Final = 63
"""Up to this length no domain can have a label that is too long."""


class MailboxFault(Exception):
    """The address is malformed; the text says how, and holds nothing of it."""


def read_mailbox(raw: bytes) -> str:
    """
    Check an address, such as ``user@example.com``.

    Args:
        raw: What stood between the angle brackets.

    Returns:
        The address, with no more quoting than it needs.

    Raises:
        MailboxFault: It is malformed.
    """
    if len(raw) <= _PLAIN_LABELS and _PLAIN.fullmatch(raw):
        return raw.decode("ascii")
    if len(raw) > MAX_ADDRESS_BYTES:
        raise MailboxFault("the address is longer than 254 octets")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MailboxFault("the address is not UTF-8") from None
    if text.startswith("@"):
        raise MailboxFault("source routes are not taken")
    local, at, domain = text.rpartition("@")
    if not at:
        raise MailboxFault("the address needs a domain")
    return f"{_read_local(local)}@{_read_domain(domain)}"


def _read_local(local: str) -> str:
    if len(local.encode()) > MAX_LOCAL_BYTES:
        raise MailboxFault("the local part of the address is longer than 64 octets")
    # Not printable: control and format characters, and each space but that of ASCII.
    if not local.isprintable():
        raise MailboxFault("the address has a control character or an invisible one")
    if _UNQUOTED.fullmatch(local):
        return local
    quoted = _QUOTED.fullmatch(local)
    if quoted is None:
        raise MailboxFault("the local part of the address is malformed")
    bare = _QUOTED_PAIR.sub(r"\1", quoted[1])
    if _NEEDS_NO_QUOTES.fullmatch(bare):
        return bare
    return '"' + _TO_BE_QUOTED.sub(r"\\\g<0>", bare) + '"'


def _read_domain(domain: str) -> str:
    if domain.startswith("[") and domain.endswith("]"):
        _check_literal(domain[1:-1])
    elif (
        not _DOMAIN.fullmatch(domain)
        or len(domain.encode()) > MAX_DOMAIN_BYTES
        or not (domain.isascii() or _is_plainly_written(domain))
    ):
        raise MailboxFault("the domain of the address is malformed")
    return domain


def _check_literal(literal: str) -> None:
    """Check an address literal; a zone, such as ``%eth0``, has no meaning to others."""
    try:
        if literal[:5].upper() == "IPV6:" and "%" not in literal:
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise MailboxFault("the address literal is malformed") from None


def _is_plainly_written(domain: str) -> bool:
    return unicodedata.is_normalized("NFKC", domain) and all(
        char.isascii() or char.isalnum() or unicodedata.category(char).startswith("M")
        for char in domain
    )

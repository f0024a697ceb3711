"""
The commands of a client, from bytes to checked values; no I/O, no state but that of the line.

Promises
    An address or parameter that is accepted can be written into a command as it is: it holds no
    control character, no ``<`` or ``>``, no space outside of quotes, and nothing but ASCII unless
    the client said SMTPUTF8. Such an address has one ``@`` outside of quotes, and the part after
    the last ``@`` is the domain.
    A line ends with CRLF and with nothing else.
    Every input takes time linear in its length.

Accepts what clients send though the grammar does not know it: spaces after ``FROM:`` and ``TO:``,
lower case, dots anywhere in the local part (``a..b@``), underscores in domains. Does not accept
addresses without angle brackets or domain, and source routes: nothing that sends mail today uses
them, and programs differ in how they read them. A local part in quotes that needs none loses them
(RFC 5321, 4.1.2), so that no rule is got round by quoting.

What is raised is `CommandFault` with the reply, and nothing else; no text holds what the client
sent.

Limits
    4096 octets a line with its CRLF. Addresses: RFC 5321, 4.5.3.1.

Sources: RFC 5321; RFC 3030 (BDAT); RFC 3461 (DSN); RFC 4616 and 4954 (AUTH); RFC 6152 (BODY);
RFC 6531 (SMTPUTF8); RFC 1870 (SIZE).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sesguard.core.envelope import Notify, Recipient
from sesguard.core.secret import Secret
from sesguard.relay.mailbox import MailboxFault, read_mailbox
from sesguard.relay.model import Reason, Refusal

MAX_LINE_BYTES: Final = 4096
MAX_AUTH_LINE_BYTES: Final = 12288
"""RFC 4954, 4."""

_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})"
_FROM: Final = re.compile(rb"FROM: *<([^<>]*)>(?: +(.*))?", re.IGNORECASE | re.DOTALL)
_TO: Final = re.compile(rb"TO: *<([^<>]*)>(?: +(.*))?", re.IGNORECASE | re.DOTALL)
_BDAT: Final = re.compile(rb"(\d{1,18})( +LAST)?", re.IGNORECASE)
_AUTH: Final = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: +([!-~]+))?")
_BARE: Final = re.compile(rb"[\r\n\0]")


def _values(**patterns: str) -> dict[bytes, re.Pattern[bytes]]:
    """Parameters by name, with what may follow the name."""
    return {
        name.encode(): re.compile(pattern.encode(), re.IGNORECASE)
        for name, pattern in patterns.items()
    }


_MAIL_PARAMETERS: Final = _values(
    SIZE=r"=\d{1,20}",
    BODY=r"=(?:7BIT|8BITMIME)",
    SMTPUTF8="",
    # A server that offers DSN has to take it; a bounce of ours has the header only all the same.
    RET="=(?:FULL|HDRS)",
    ENVID=f"={_XTEXT}{{1,100}}",
    # A server that offers AUTH has to take it (RFC 4954, 5); it says nothing to us.
    AUTH=f"={_XTEXT}{{1,500}}",
)
_RCPT_PARAMETERS: Final = _values(
    NOTIFY="=(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*)",
    ORCPT=f"=[A-Z0-9-]{{1,40}};{_XTEXT}{{1,500}}",
)


class CommandFault(Exception):
    """A command that is not taken, with the reply to it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def _fault(code: int, status: str, text: str) -> CommandFault:
    return CommandFault(Refusal(Reason.SYNTAX, code, status, text))


@dataclass(frozen=True, slots=True)
class MailCommand:
    """What MAIL said."""

    sender: str
    """Empty for a bounce."""
    size: int | None = None
    """Octets that the client says the message has; None: it did not say."""
    eight_bit: bool = False
    """BODY=8BITMIME."""
    utf8: bool = False
    """SMTPUTF8."""
    envelope_id: str = ""
    """ENVID as it was given; empty: not given."""


class CommandLines:
    """
    Cuts what comes in into command lines.

    `limit` may be changed between lines: `MAX_AUTH_LINE_BYTES` while a client logs in.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._sought = 0
        """Octets of the buffer in which no CRLF begins."""
        self._skipping = False
        """Whether what comes up to the next CRLF belongs to a line that was refused already."""

    def feed(self, data: bytes) -> None:
        """Take the next piece, of any length."""
        self._buffer += data

    def next(self) -> bytes | None:
        """
        Give the next complete line without its CRLF, or None.

        Raises:
            CommandFault: The line is too long, or has a CR, LF or NUL in it. It is thrown away, to
                the next CRLF; a client that ends its lines with LF hears the fault with each of
                them and is to be let go after a few.
        """
        while (end := self._buffer.find(b"\r\n", self._sought)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            self._sought = 0
            if self._skipping:
                self._skipping = False
            elif end + 2 > self.limit:
                raise _fault(500, "5.5.2", "the line is too long")
            elif _BARE.search(line):
                raise _fault(500, "5.5.2", "a CR, LF or NUL in a command; lines end with CRLF")
            else:
                return line
        self._check_unfinished()
        return None

    def take_rest(self) -> bytes:
        """Give what has come after the last line, and forget it."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._sought = 0
        return rest

    def _check_unfinished(self) -> None:
        """Refuse a line that cannot become good any more, before its end has come."""
        buffer = self._buffer
        is_broken = buffer.find(b"\n", self._sought) >= 0
        self._sought = max(0, len(buffer) - 1)
        if is_broken or len(buffer) > self.limit:
            # The last octet may be half of the CRLF that ends the line.
            del buffer[: -1 if buffer.endswith(b"\r") else None]
            self._sought = 0
            self._skipping = True
            text = "lines end with CRLF" if is_broken else "the line is too long"
            raise _fault(500, "5.5.2", text)


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into the verb, in upper case, and its argument without spaces around it."""
    verb, _, argument = line.partition(b" ")
    return verb.upper(), argument.strip(b" \t")


def parse_mail(argument: bytes) -> MailCommand:
    """
    Read what follows MAIL: ``FROM:<address>`` and parameters.

    Raises:
        CommandFault: 501 5.1.7 for the address, 501 5.5.4 for syntax, 553 5.6.7 for an address
            outside of ASCII without SMTPUTF8, 555 5.5.4 for an unknown parameter.
    """
    match = _FROM.fullmatch(argument)
    if match is None:
        raise _no_path(argument, b"FROM:", "5.1.7", "MAIL FROM:<user@example.com>")
    path, words = match.groups()
    if not words:
        return MailCommand(_address(path, "5.1.7", utf8=False) if path else "")
    given = _parameters(words, _MAIL_PARAMETERS)
    utf8 = b"SMTPUTF8" in given
    size = given.get(b"SIZE")
    return MailCommand(
        _address(path, "5.1.7", utf8=utf8) if path else "",
        int(size) if size is not None else None,
        given.get(b"BODY", b"").upper() == b"8BITMIME",
        utf8,
        given.get(b"ENVID", b"").decode("ascii"),
    )


def parse_rcpt(argument: bytes, utf8: bool) -> Recipient:
    """
    Read what follows RCPT: ``TO:<address>`` and parameters.

    Args:
        argument: As `split_command` gave it.
        utf8: Whether MAIL said SMTPUTF8.

    Raises:
        CommandFault: As for `parse_mail`, with 501 5.1.3 for the address; 550 5.1.1 for
            ``<postmaster>`` without a domain, as no mailbox is here.
    """
    match = _TO.fullmatch(argument)
    if match is None:
        raise _no_path(argument, b"TO:", "5.1.3", "RCPT TO:<user@example.com>")
    path, words = match.groups()
    if path.lower() == b"postmaster":
        raise CommandFault(
            Refusal(
                Reason.RECIPIENT, 550, "5.1.1", "no mailbox is here, that of postmaster neither"
            )
        )
    address = _address(path, "5.1.3", utf8=utf8)
    if not words:
        return Recipient(address)
    given = _parameters(words, _RCPT_PARAMETERS)
    notify = given.get(b"NOTIFY", b"").decode("ascii").upper()
    return Recipient(
        address,
        frozenset(Notify(word) for word in notify.split(",") if word),
        given.get(b"ORCPT", b"").decode("ascii"),
    )


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """
    Read what follows BDAT: the size of the chunk, and whether it is the last.

    Raises:
        CommandFault: Malformed. Where the chunk ends is not known then: the session must close, or
            the text of the message would be read as commands.
    """
    match = _BDAT.fullmatch(argument)
    if match is None:
        raise _fault(501, "5.5.4", "say BDAT size, or BDAT size LAST")
    return int(match[1]), match[2] is not None


def parse_auth(argument: bytes) -> tuple[str, bytes | None]:
    """
    Read what follows AUTH: the mechanism, in upper case, and the initial response.

    Returns:
        The response is still in base64, ``=`` for an empty one; None: there is none.

    Raises:
        CommandFault: Malformed.
    """
    match = _AUTH.fullmatch(argument)
    if match is None:
        raise _fault(501, "5.5.4", "say AUTH mechanism, perhaps with a response in base64")
    return match[1].decode("ascii").upper(), match[2]


def decode_plain(response: bytes) -> tuple[str, Secret]:
    """
    Read the response of PLAIN (RFC 4616), out of its base64.

    Returns:
        User name and token.

    Raises:
        CommandFault: Malformed, or to act as somebody else is asked for.
    """
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise _fault(501, "5.5.2", "the response of PLAIN has three parts")
    identity, username, token = (_utf8(part) for part in parts)
    if not username or not token or not username.isprintable():
        raise _fault(501, "5.5.2", "user name or token are empty or malformed")
    if identity not in ("", username):
        raise CommandFault(
            Refusal(Reason.BAD_TOKEN, 535, "5.7.8", "nobody may act as somebody else here")
        )
    return username, Secret(token)


def _utf8(part: bytes) -> str | None:
    # The error would carry the token, also as the context of another one.
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _address(path: bytes, status: str, *, utf8: bool) -> str:
    if not utf8 and not path.isascii():
        raise _fault(553, "5.6.7", "the address is not ASCII and MAIL did not say SMTPUTF8")
    try:
        return read_mailbox(path)
    except MailboxFault as fault:
        raise _fault(501, status, str(fault)) from None


def _parameters(words: bytes, known: Mapping[bytes, re.Pattern[bytes]]) -> dict[bytes, bytes]:
    """Read ``NAME=value`` words; a word without a value has an empty one."""
    given: dict[bytes, bytes] = {}
    for word in words.split():
        name = word.partition(b"=")[0]
        value, name = word[len(name) :], name.upper()
        pattern = known.get(name)
        if pattern is None:
            raise _fault(555, "5.5.4", "a parameter is not known here")
        if name in given or not pattern.fullmatch(value):
            raise _fault(501, "5.5.4", f"{name.decode()} is malformed or given twice")
        given[name] = value[1:]
    return given


def _no_path(argument: bytes, keyword: bytes, status: str, example: str) -> CommandFault:
    """Say what is wrong with a command in which no path was found."""
    if not argument.upper().startswith(keyword):
        return _fault(501, "5.5.4", f"say {example}")
    return _fault(501, status, f"the address stands in angle brackets: {example}")

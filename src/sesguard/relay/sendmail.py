"""
``sesguard-sendmail``: what apps that run ``/usr/sbin/sendmail`` run instead.

    sesguard-sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT...] < message
    sesguard-sendmail -bs < smtp-commands

Takes a message on standard input and gives it to the relay, which knows the app by the uid of this
process. Options of sendmail that mean nothing here are taken and ignored; none of them reads or
writes a file, whatever an app lets a stranger put on the command line.

Promises
    Exit 0 only when the relay has answered 250 to the whole message, for all its recipients. A
    message goes to all or to none: when one recipient is refused, nothing is sent.
    Memory does not grow with the message.

Exit codes (sysexits), with one line on standard error
    64 usage · 65 the message is broken or too large · 67 a recipient does not exist · 69 refused
    for another reason · 74 the input cannot be read · 75 the relay is not there, or says try again
    later: nothing is kept here, so the caller must · 77 the policy forbids it

Environment: ``SESGUARD_RELAY_SOCKET``, a path or ``HOST:PORT``, is used instead of
``/run/sesguard/relay.sock`` and ``127.0.0.1:2525``. The settings are not read: users of the web may
not read them. Imports little, so that it starts fast.
"""

import binascii
import getopt
import os
import pwd
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from sesguard.relay.addresses import AddressFault, recipients
from sesguard.relay.sendmail_text import Head, TextFault, Wire, pieces, read_head

ADDRESSES: Final = ("/run/sesguard/relay.sock", "127.0.0.1:2525")
"""Where the relay is; the first that answers is used."""

_OPTIONS: Final = "A:B:b:C:D:d:e:F:f:Gh:iL:mN:nO:o:p:R:r:tUV:vX:x"
_NOTIFY: Final = frozenset(("NEVER", "SUCCESS", "FAILURE", "DELAY"))
_CONNECT_TIMEOUT_S: Final = 10.0
_REPLY_TIMEOUT_S: Final = 600.0
_MAX_REPLY_LINE: Final = 4096
_QUEUE_HINT: Final = "The queue belongs to the relay. See it with: sesguard queue list"

_OK, _USAGE, _DATA, _NO_USER, _UNAVAILABLE, _IO, _TEMPORARY, _DENIED = 0, 64, 65, 67, 69, 74, 75, 77

_EXIT_CODES: Final = (
    (re.compile(r"4"), _TEMPORARY),
    (re.compile(r"(\d+ 5\.7\.|53[0458] )"), _DENIED),
    (re.compile(r"\d+ 5\.1\."), _NO_USER),
    (re.compile(r"(\d+ 5\.(6|3\.4|4\.6)|552 )"), _DATA),
)


class _Failure(Exception):
    """The program ends with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Options:
    """The command line."""

    def __init__(self, recipients: Sequence[str]) -> None:
        self.recipients = recipients
        self.mode = "m"
        """``m`` send, ``s`` speak SMTP, ``p`` print the queue."""
        self.from_header = False
        self.ignores_dots = False
        self.sender: str | None = None
        self.name = ""
        self.notify = ""
        self.returned = ""
        self.envelope_id = ""

    def take(self, name: str, value: str) -> None:
        """Take one option; those that mean nothing here are ignored."""
        match name:
            case "-b":
                self.mode = _mode(value)
            case "-t":
                self.from_header = True
            case "-i" | "-o" if value in ("", "i"):
                self.ignores_dots = True
            case "-f" | "-r":
                self.sender = value.removeprefix("<").removesuffix(">")
            case "-F":
                self.name = value
            case "-N":
                self.notify = _notify(value)
            case "-R" if value.upper() in ("FULL", "HDRS"):
                self.returned = value.upper()
            case "-V":
                self.envelope_id = re.sub(r"[^!-*,-<>-~]", _xtext, value)


def run() -> NoReturn:
    """Run the program; the console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """
    Do what the command line says, with file descriptors 0, 1 and 2.

    Returns:
        The exit code.
    """
    configured = os.environ.get("SESGUARD_RELAY_SOCKET")
    addresses = (configured,) if configured else ADDRESSES
    try:
        options = _read_options(arguments)
        if options.mode == "p":
            os.write(1, f"{_QUEUE_HINT}\n".encode())
        elif options.mode == "s":
            _speak(connect(addresses))
        else:
            _send(options, addresses)
    except _Failure as failure:
        os.write(2, f"sesguard-sendmail: {failure}\n".encode(errors="backslashreplace"))
        return failure.code
    return _OK


def connect(addresses: Sequence[str]) -> socket.socket:
    """
    Connect to the first address that answers.

    A Unix socket that is there and does not answer is the end: while the relay is down anybody may
    listen on its TCP port, and must not get the mail.

    Raises:
        Exception: None does; the program would end with 75.
    """
    reason: OSError | None = None
    for address in addresses:
        try:
            connection = _open(address)
        except OSError as error:
            reason = reason or error
            if os.path.lexists(address):
                break
        except ValueError:
            raise _Failure(_USAGE, f"{address} is not a path and not HOST:PORT") from None
        else:
            connection.settimeout(_REPLY_TIMEOUT_S)
            return connection
    raise _Failure(_TEMPORARY, f"the relay cannot be reached: {reason}")


def _open(address: str) -> socket.socket:
    if not address.startswith("/"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _read_options(arguments: Sequence[str]) -> _Options:
    # The value of -q may be missing, which getopt does not know.
    given = [argument for argument in arguments if not argument.startswith("-q")]
    try:
        found, rest = getopt.getopt(given, _OPTIONS)
    except getopt.GetoptError as error:
        raise _Failure(_USAGE, f"{error.msg}; run it as: sesguard-sendmail -t < message") from None
    options = _Options(rest)
    for name, value in found:
        options.take(name, value)
    return options


def _mode(value: str) -> str:
    if value not in ("m", "s", "p"):
        raise _Failure(_USAGE, f"-b{value} is not supported")
    return value


def _notify(value: str) -> str:
    words = {word.strip() for word in value.upper().split(",")}
    if not words <= _NOTIFY or ("NEVER" in words and len(words) > 1):
        raise _Failure(_USAGE, "-N takes never, or some of success, failure and delay")
    return ",".join(sorted(words))


def _xtext(match: re.Match[str]) -> str:
    """A character as RFC 3461, 4 writes it."""
    return "".join(f"+{octet:02X}" for octet in os.fsencode(match[0]))


# One message.


def _send(options: _Options, addresses: Sequence[str]) -> None:
    text = pieces(_read, ends_at_dot=not options.ignores_dots)
    try:
        head, body = read_head(text)
        to = _recipients(options, head)
    except (AddressFault, TextFault) as fault:
        raise _Failure(_DATA, str(fault)) from None
    sender = options.sender
    if sender is None:
        sender = f"{_user()}@{_domain()}"
    elif sender:
        sender = _qualified(sender)
    _complete(head, options, sender)
    with connect(addresses) as connection:
        _Dialogue(connection).send(options, sender, to, _whole(head, body, text))


def _whole(head: Head, body: bytes, text: Iterator[bytes]) -> Iterator[bytes]:
    yield head.text()
    yield body
    yield from text


def _recipients(options: _Options, head: Head) -> list[str]:
    fields = [os.fsencode(argument) for argument in options.recipients]
    if options.from_header:
        fields += head.values(b"to", b"cc", b"bcc")
    found = dict.fromkeys(_qualified(one) for field in fields for one in recipients(field))
    if not found and options.from_header:
        raise _Failure(_DATA, "the header names no recipient in To, Cc or Bcc")
    if not found:
        raise _Failure(_USAGE, "no recipients; name them, or use -t to take them from the header")
    return list(found)


def _complete(head: Head, options: _Options, sender: str) -> None:
    """Add what a message must have and this one lacks."""
    now = time.gmtime()
    address = sender or f"{_user()}@{_domain()}"
    name = options.name or _full_name()
    head.add("From", f"{_phrase(name)} <{address}>" if name else address)
    head.add("Date", time.strftime("%a, %d %b %Y %H:%M:%S +0000", now))
    unique = f"{time.strftime('%Y%m%d%H%M%S', now)}.{os.urandom(8).hex()}"
    head.add("Message-ID", f"<{unique}@{_domain()}>")


def _phrase(name: str) -> str:
    """A display name that no reader takes for anything else."""
    plain = os.fsencode(name)
    if re.fullmatch(rb"[\w .'-]+", plain):
        return name
    return f"=?utf-8?B?{binascii.b2a_base64(plain[:40], newline=False).decode()}?="


def _qualified(address: str) -> str:
    if re.search(r"[\x00-\x20\x7f<>]", address):
        raise _Failure(_USAGE, "an address has characters that no address has")
    return address if "@" in address else f"{address}@{_domain()}"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _full_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0].strip()
    except KeyError:
        return ""


def _domain() -> str:
    """The domain of local users, as Debian names it, or the host's name."""
    try:
        with open("/etc/mailname", encoding="ascii") as file:
            name = file.readline().strip()
    except (OSError, ValueError):
        name = ""
    return name or socket.gethostname()


def _read(count: int) -> bytes:
    try:
        return os.read(0, count)
    except OSError as error:
        raise _Failure(_IO, f"the message cannot be read: {error}") from None


class _Dialogue:
    """The client's side of one SMTP session."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("rb")

    def send(
        self, options: _Options, sender: str, to: Sequence[str], text: Iterator[bytes]
    ) -> None:
        """Send one message, or nothing of it."""
        try:
            self._expect("2")
            offered = self._command(f"EHLO {socket.gethostname()}").upper()
            mail, rcpt = _parameters(options, offered, (sender, *to))
            self._command(f"MAIL FROM:<{sender}>{mail}")
            for recipient in to:
                self._command(f"RCPT TO:<{recipient}>{rcpt}")
            self._command("DATA", "3")
            self._send_text(text)
            self._expect("2")
            self._write(b"QUIT\r\n")
        except OSError as error:
            raise _Failure(_TEMPORARY, f"the relay does not answer: {error}") from None

    def _send_text(self, text: Iterator[bytes]) -> None:
        wire = Wire()
        for piece in text:
            self._write(wire.encode(piece))
        self._write(wire.end())

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The relay has said why it hangs up, unless it fell over.
            self._expect("never")

    def _command(self, line: str, wanted: str = "2") -> str:
        self._write(os.fsencode(line) + b"\r\n")
        return self._expect(wanted)

    def _expect(self, wanted: str) -> str:
        """Read a reply that begins with `wanted`, and give its lines."""
        lines: list[str] = []
        while True:
            line = self._replies.readline(_MAX_REPLY_LINE).decode("ascii", "backslashreplace")
            if not line:
                raise _Failure(_TEMPORARY, "the relay hung up")
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                break
        if not lines[-1].startswith(wanted):
            raise _Failure(_exit_code(lines[-1]), f"the relay said: {lines[-1]}")
        return "\n".join(lines)


def _parameters(options: _Options, offered: str, addresses: Sequence[str]) -> tuple[str, str]:
    """What goes behind the addresses of MAIL and RCPT."""
    mail = rcpt = ""
    if "8BITMIME" in offered:
        mail += " BODY=8BITMIME"
    if "SMTPUTF8" in offered and not all(address.isascii() for address in addresses):
        mail += " SMTPUTF8"
    if re.search(r"^250.DSN\b", offered, re.MULTILINE):
        mail += f" RET={options.returned}" if options.returned else ""
        mail += f" ENVID={options.envelope_id}" if options.envelope_id else ""
        rcpt += f" NOTIFY={options.notify}" if options.notify else ""
    return mail, rcpt


def _exit_code(reply: str) -> int:
    return next((code for rule, code in _EXIT_CODES if rule.match(reply)), _UNAVAILABLE)


# SMTP on standard input and output.


def _speak(connection: socket.socket) -> None:
    """Copy both ways until the relay hangs up."""
    sources = [0, connection.fileno()]
    try:
        while connection.fileno() in sources:
            for source in select.select(sources, [], [])[0]:
                data = os.read(source, 65536)
                if not data:
                    sources.remove(source)
                    if source == 0:
                        connection.shutdown(socket.SHUT_WR)
                elif source == 0:
                    connection.sendall(data)
                else:
                    os.write(1, data)
    except OSError as error:
        raise _Failure(_TEMPORARY, f"the session broke off: {error}") from None

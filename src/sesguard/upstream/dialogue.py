"""
smtplib, with replies that are bounded in time and size.

smtplib applies its timeout to every read and joins a multi-line reply of any length, so a peer that
sends one byte now and then holds its caller for ever. Here a whole reply has one deadline and a
limit of `MAX_REPLY_BYTES`. A peer that sends more than the one reply that is due is cut off: before
TLS that is an attempt to inject replies into the secured session (CVE-2011-0411).
"""

import smtplib
import socket
import ssl
import time
from typing import Final

from sesguard.core.endpoints import Endpoint

MAX_REPLY_BYTES: Final = 64 * 1024


class _BoundedReplies:
    """Replaces `smtplib.SMTP.getreply`."""

    sock: socket.socket | None
    reply_timeout_s: float
    """Time for the peer to send one whole reply."""

    def getreply(self) -> tuple[int, bytes]:
        """
        Read one reply.

        Returns:
            Code and text, lines joined by a newline.

        Raises:
            OSError: The reply was not complete in time, or the connection broke.
            smtplib.SMTPServerDisconnected: The peer closed the connection.
            smtplib.SMTPResponseException: Code -1: not a reply, too long, or more than one.
        """
        try:
            lines = self._read_lines()
            _require_one_reply(lines)
        except BaseException:
            self.close()
            raise
        return int(lines[0][:3]), b"\n".join(line[4:].strip() for line in lines)

    def close(self) -> None:
        """Close the connection; smtplib has it."""
        super().close()  # type: ignore[misc]

    def _read_lines(self) -> list[bytes]:
        deadline = time.monotonic() + self.reply_timeout_s
        data = bytearray()
        while not _is_complete(data):
            if len(data) > MAX_REPLY_BYTES:
                raise smtplib.SMTPResponseException(-1, b"the reply does not end")
            chunk = self._receive(deadline)
            if not chunk:
                raise smtplib.SMTPServerDisconnected("connection closed by the peer")
            data += chunk
        return bytes(data).splitlines()

    def _receive(self, deadline: float) -> bytes:
        assert self.sock is not None
        previous = self.sock.gettimeout()
        self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            return self.sock.recv(4096)
        finally:
            self.sock.settimeout(previous)


class StarttlsClient(_BoundedReplies, smtplib.SMTP):
    """A session that begins in the clear and must be secured by `starttls`."""

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, source: tuple[str, int] | None
    ) -> None:
        self.reply_timeout_s = timeout_s
        super().__init__(
            endpoint.host, endpoint.port, _ehlo_name(), timeout=timeout_s, source_address=source
        )
        _send_at_once(self.sock)


class WrappedClient(_BoundedReplies, smtplib.SMTP_SSL):
    """A session that begins with TLS."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        source: tuple[str, int] | None,
        context: ssl.SSLContext,
    ) -> None:
        self.reply_timeout_s = timeout_s
        super().__init__(
            endpoint.host,
            endpoint.port,
            _ehlo_name(),
            timeout=timeout_s,
            source_address=source,
            context=context,
        )
        _send_at_once(self.sock)


def _send_at_once(connection: socket.socket | None) -> None:
    """Without this a command waits for the acknowledgement of the one before: 40 ms a session."""
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _ehlo_name() -> str:
    """Our name for EHLO; without one smtplib waits for the DNS to find it."""
    return socket.gethostname() or "localhost"


def _is_complete(data: bytearray) -> bool:
    """Whether the last whole line ends a reply: a code and no hyphen after it."""
    if not data.endswith(b"\n"):
        return False
    last = data[:-1].rpartition(b"\n")[2]
    return last[3:4] != b"-"


def _require_one_reply(lines: list[bytes]) -> None:
    code = lines[0][:3]
    well_formed = code.isdigit() and all(line[:3] == code for line in lines)
    if not well_formed or any(line[3:4] != b"-" for line in lines[:-1]):
        raise smtplib.SMTPResponseException(-1, b"not one SMTP reply")

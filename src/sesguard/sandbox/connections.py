"""
The log of SMTP connections: who came, from where, how protected, and what was tried.

This is the witness of the tests that nothing is ever sent in the clear or without AUTH: an attempt
is written down when its command arrives, whatever it is answered. Passwords never come here.

Bounded: the newest `MAX_CONNECTIONS` are kept.
"""

import threading
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Final

from sesguard.sandbox.model import AuthAttempt, SmtpConnection

MAX_CONNECTIONS: Final = 50_000
_MAX_USER_LENGTH: Final = 128


class ConnectionEntry:
    """The entry of one open connection; its methods are called as things happen."""

    def __init__(self, opened: SmtpConnection) -> None:
        self._state = opened

    def snapshot(self) -> SmtpConnection:
        """The entry as it is now."""
        return self._state

    def tls_started(self, version: str) -> None:
        """TLS of that version is in place."""
        self._state = replace(self._state, tls_version=version)

    def tls_broken_off(self) -> None:
        """A handshake after STARTTLS failed."""
        self._state = replace(self._state, tls_failed=True)

    def auth_command(self, *, tls: bool) -> None:
        """An AUTH command arrived."""
        if not tls:
            self._state = replace(self._state, auth_without_tls=True)

    def auth_answered(self, mechanism: str, user: str, reply: str, *, tls: bool) -> None:
        """An AUTH exchange came to its end."""
        attempt = AuthAttempt(mechanism, user[:_MAX_USER_LENGTH], reply, tls)
        self._state = replace(self._state, auth=(*self._state.auth, attempt))

    def mail_command(self, *, tls: bool, authenticated: bool) -> None:
        """A MAIL command arrived."""
        self._state = replace(
            self._state,
            mail_without_tls=self._state.mail_without_tls or not tls,
            mail_without_auth=self._state.mail_without_auth or not authenticated,
        )

    def message_answered(self, *, accepted: bool) -> None:
        """A message was accepted or refused at the end of DATA."""
        counter = "messages" if accepted else "refused"
        self._state = replace(self._state, **{counter: getattr(self._state, counter) + 1})

    def closed(self) -> None:
        """The connection is gone."""
        self._state = replace(self._state, closed_at=datetime.now(UTC))


class ConnectionLog:
    """All entries, oldest first."""

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._lock = threading.Lock()
        self._entries: deque[ConnectionEntry] = deque(maxlen=max_connections)
        self._ids = count(1)

    def open(self, source_address: str, *, tls_wrapper: bool) -> ConnectionEntry:
        """Begin an entry."""
        entry = ConnectionEntry(
            SmtpConnection(
                id=next(self._ids),
                opened_at=datetime.now(UTC),
                closed_at=None,
                source_address=source_address,
                tls_wrapper=tls_wrapper,
                tls_version=None,
                tls_failed=False,
                auth=(),
                auth_without_tls=False,
                mail_without_tls=False,
                mail_without_auth=False,
                messages=0,
                refused=0,
            )
        )
        with self._lock:
            self._entries.append(entry)
        return entry

    def list_connections(self) -> list[SmtpConnection]:
        """Every entry as it is now."""
        with self._lock:
            return [entry.snapshot() for entry in self._entries]

    def clear(self) -> None:
        """Forget every entry."""
        with self._lock:
            self._entries.clear()

    def count(self) -> int:
        """Entries in the log."""
        with self._lock:
            return len(self._entries)

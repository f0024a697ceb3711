"""
The messages that were accepted, oldest first.

Bounded: beyond `MAX_MESSAGES` messages or `MAX_BYTES` of content the oldest are forgotten, and the
status counts them, so that a test can see that its numbers are not complete.
"""

import threading
from collections import OrderedDict
from typing import Final

from sesguard.sandbox.model import ReceivedMessage

MAX_MESSAGES: Final = 50_000
MAX_BYTES: Final = 512 * 1024 * 1024


class Inbox:
    """Stores messages with their bytes."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._messages: OrderedDict[str, tuple[ReceivedMessage, bytes]] = OrderedDict()
        self._bytes = 0
        self._dropped = 0

    def add(self, message: ReceivedMessage, content: bytes) -> None:
        """Store a message, and forget old ones when there is no room."""
        with self._lock:
            self._messages[message.id] = (message, content)
            self._bytes += len(content)
            while len(self._messages) > self._max_messages or (
                self._bytes > self._max_bytes and len(self._messages) > 1
            ):
                _, (_, forgotten) = self._messages.popitem(last=False)
                self._bytes -= len(forgotten)
                self._dropped += 1

    def list_messages(self) -> list[ReceivedMessage]:
        """Every message, oldest first."""
        with self._lock:
            return [message for message, _ in self._messages.values()]

    def read_content(self, message_id: str) -> bytes | None:
        """The bytes of a message as SES would deliver them, or None when there is no such id."""
        with self._lock:
            found = self._messages.get(message_id)
        return None if found is None else found[1]

    def clear(self) -> None:
        """Forget every message."""
        with self._lock:
            self._messages.clear()
            self._bytes = self._dropped = 0

    def count(self) -> int:
        """Messages stored."""
        with self._lock:
            return len(self._messages)

    def count_dropped(self) -> int:
        """Messages forgotten for want of room."""
        with self._lock:
            return self._dropped

"""
How much more the queue takes, of all apps together and of each.

What each app has in the queue is kept by triggers (`sesguard.relay.spool_table`), so this costs one
look-up for each app of a transaction, however full the queue is.
"""

import sqlite3
from enum import Enum


class Shortage(Enum):
    """Why there is no room for a message."""

    QUEUE = "the queue is full"
    """Or its disk."""
    APP = "the app has all of the queue that one app may have"


class Room:
    """
    What is left of the queue during one transaction.

    Args:
        connection: In that transaction.
        left: Bytes for all.
        share: The most of one app.
    """

    def __init__(self, connection: sqlite3.Connection, left: int, share: int) -> None:
        self._connection = connection
        self._left = left
        self._share = share
        self._left_of: dict[str, int] = {}

    def take(self, app: str, size: int) -> Shortage | None:
        """Note that an app's `size` bytes are stored; or else say why they cannot be."""
        if size > self._left:
            return Shortage.QUEUE
        if app not in self._left_of:
            self._left_of[app] = self._share - self._used_by(app)
        if size > self._left_of[app]:
            return Shortage.APP
        self._left -= size
        self._left_of[app] -= size
        return None

    def _used_by(self, app: str) -> int:
        row = self._connection.execute("SELECT bytes FROM shares WHERE app = ?", (app,)).fetchone()
        used: int = 0 if row is None else row[0]
        return used

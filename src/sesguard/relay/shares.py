"""
Who holds how many of the relay's connections.

One holder, which is a uid of this host or an app that logged in from elsewhere, has at most half of
them. Callers for whom no app was found and who have not logged in are strangers: all of them
together have at most an eighth, and one holder at most half of that. All strangers from elsewhere
are one holder.

Promises
    Strangers never take the last connection, unless there is but one.
    Each step takes the same time, however many connections there are.
"""

from typing import Final

Holder = int | str | None
"""A uid; the name of an app that logged in from elsewhere; None: from elsewhere, and unknown."""

_STRANGERS_ARE: Final = 8
"""One in so many may be one."""


class Shares:
    """Of the connections of one process."""

    def __init__(self) -> None:
        self._all = _Counts()
        self._strangers = _Counts()

    def take(self, holder: Holder, most: int, *, is_stranger: bool) -> "Place | None":
        """
        Take a place for a connection.

        Args:
            holder: Whose connection it is.
            most: Connections that there may be in all.
            is_stranger: Whether no app was found for it.

        Returns:
            None: there is none for this holder.
        """
        if not self._all.has_room(holder, most):
            return None
        if is_stranger and not self._strangers.has_room(holder, max(1, most // _STRANGERS_ARE)):
            return None
        return Place(self._all, self._strangers, holder, is_stranger=is_stranger)


class Place:
    """
    That of one connection, until it is given back; made by `Shares.take`.

    Args:
        everybody: Counts all connections.
        strangers: Counts those of strangers.
        holder: Whose connection it is.
        is_stranger: Whether no app was found for it.
    """

    __slots__ = ("_all", "_holder", "_is_held", "_strangers", "is_stranger")

    def __init__(
        self, everybody: "_Counts", strangers: "_Counts", holder: Holder, *, is_stranger: bool
    ) -> None:
        self._all = everybody
        self._strangers = strangers
        self._holder = holder
        self._is_held = True
        self.is_stranger = is_stranger
        """Whether no app is known for it yet."""
        everybody.add(holder)
        if is_stranger:
            strangers.add(holder)

    def log_in(self, app: str, most: int) -> bool:
        """
        The client has logged in as `app`: it is no stranger any more.

        Args:
            app: Its name.
            most: Connections that there may be in all.

        Returns:
            False: it came from elsewhere, and the app holds all that it may. Nothing has changed.
        """
        holder = self._holder
        if holder is None and self._all.has_half(app, most):
            return False
        if self.is_stranger:
            self.is_stranger = False
            self._strangers.remove(holder)
        if holder is None:
            self._all.remove(None)
            self._all.add(app)
            self._holder = app
        return True

    def give_back(self) -> None:
        """The connection is over; a second time does nothing."""
        if not self._is_held:
            return
        self._is_held = False
        self._all.remove(self._holder)
        if self.is_stranger:
            self._strangers.remove(self._holder)


class _Counts:
    """Connections in all and by holder."""

    __slots__ = ("_by_holder", "_total")

    def __init__(self) -> None:
        self._total = 0
        self._by_holder: dict[Holder, int] = {}

    def has_room(self, holder: Holder, most: int) -> bool:
        """Whether there may be one more, of this holder."""
        return self._total < most and not self.has_half(holder, most)

    def has_half(self, holder: Holder, most: int) -> bool:
        """Whether the holder has half of them."""
        return self._by_holder.get(holder, 0) >= (most + 1) // 2

    def add(self, holder: Holder) -> None:
        """Count one."""
        self._total += 1
        self._by_holder[holder] = self._by_holder.get(holder, 0) + 1

    def remove(self, holder: Holder) -> None:
        """Count one no more."""
        self._total -= 1
        left = self._by_holder[holder] - 1
        if left:
            self._by_holder[holder] = left
        else:
            del self._by_holder[holder]

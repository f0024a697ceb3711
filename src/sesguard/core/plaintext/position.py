"""
Where in a text something stands: line numbers, logical lines, comments.

Looking back from a position stops after `REACH` characters, so that a file of one endless line
costs no more than another.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

REACH: Final = 1024


class LineCounter:
    """Line numbers of offsets; quick when they are asked for in ascending order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._line = 1

    def line_at(self, offset: int) -> int:
        """The line of a character, from 1."""
        if offset < self._offset:
            self._offset, self._line = 0, 1
        self._line += self._text.count("\n", self._offset, offset)
        self._offset = offset
        return self._line


class Traced:
    """Text put together from pieces, each of which knows its line in the file."""

    def __init__(self, pieces: Iterable[tuple[str, int]]) -> None:
        self.pieces = tuple(pieces)
        self.text = "".join(text for text, _line in self.pieces)

    def line_at(self, offset: int) -> int:
        """The line that the character at `offset` came from."""
        starts = [0, *accumulate(len(text) for text, _line in self.pieces)]
        return self.pieces[bisect_right(starts, offset, hi=len(self.pieces)) - 1][1]


def line_before(text: str, offset: int) -> str:
    """What stands before `offset` in its line."""
    return text[max(0, offset - REACH) : offset].rpartition("\n")[2]


def is_comment(text: str, offset: int, marks: tuple[str, ...] = ("#",)) -> bool:
    """Whether the line of `offset` starts with a comment mark."""
    return line_before(text, offset).lstrip().startswith(marks)


def logical_prefix(text: str, offset: int) -> str:
    """
    What stands before `offset` in its logical line, as Postfix maps and lsearch files have them.

    A line that starts with white space goes on with the line before it; blank lines and comments in
    between do not count. When there is more than white space in the physical line, only that is
    given.
    """
    lines = text[max(0, offset - REACH) : offset].split("\n")
    prefix = lines.pop()
    if not prefix or not prefix.isspace():
        return prefix
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return (lines[-1].rstrip() if lines else "") + prefix

"""
What each worker last said of itself, where the others can read it.

An anonymous shared memory map, made before the workers are forked; nothing of it is on a disk. Each
worker writes its own place only. A reader that comes in the middle of a write, or after a worker
was killed in one, notices by the checksum and keeps what it read before.
"""

import mmap
import struct
import zlib
from typing import Final

PLACE_BYTES: Final = 1024 * 1024
"""Room for the numbers of as many apps as have their own (`sesguard.relay.metrics.MOST_APPS`)."""

_HEAD: Final = struct.Struct("<II")
"""Length and CRC-32 of what follows."""


class Board:
    """
    Places for `workers` texts.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(-1, workers * PLACE_BYTES)
        self._last: dict[int, bytes] = {}

    def write(self, worker: int, text: bytes) -> None:
        """Put a text in the worker's place; one that is too long is left out."""
        if len(text) > PLACE_BYTES - _HEAD.size:
            return
        start = worker * PLACE_BYTES
        self._memory[start + _HEAD.size : start + _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, start, len(text), zlib.crc32(text))

    def read_all(self) -> list[bytes]:
        """The last whole text of each worker that has written one."""
        for worker in range(self._workers):
            text = self.read(worker)
            if text is not None:
                self._last[worker] = text
        return list(self._last.values())

    def read(self, worker: int) -> bytes | None:
        """What is in the worker's place; None: nothing, or no whole text."""
        start = worker * PLACE_BYTES
        length, checksum = _HEAD.unpack_from(self._memory, start)
        if not 0 < length <= PLACE_BYTES - _HEAD.size:
            return None
        text = self._memory[start + _HEAD.size : start + _HEAD.size + length]
        return text if zlib.crc32(text) == checksum else None

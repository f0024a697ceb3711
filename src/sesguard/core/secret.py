"""
A value that must not be shown.

Promises: `repr`, `str`, `format`, `%`-formatting, logging, the `repr` of what holds it, tracebacks
with local variables show ``<secret>``, never the value; pickling, copying (so also
`dataclasses.asdict` of what holds it), encoding as JSON, hashing and iterating fail; equality takes
constant time (`hmac.compare_digest`); only `reveal()` gives the value.

Known fault: CPython cannot wipe a ``str``. The value stays in the memory of the process until the
allocator reuses it, which is why the daemon is not dumpable (`sesguard.system.privileges`).
"""

import hmac
from typing import Final, Never, final

REDACTED: Final = "<secret>"


@final
class Secret:
    """Holds one secret text; see the module docstring for what it promises."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Give the value in the clear. Call it at the last moment and do not keep the result."""
        return self.__value

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encoded(self.__value), _encoded(other.__value))

    def __hash__(self) -> Never:
        # A hash table compares by early exit and its order may leak into logs.
        raise TypeError("a Secret cannot be hashed")

    def __reduce_ex__(self, _protocol: object) -> Never:
        raise TypeError("a Secret cannot be pickled or copied")

    def __getstate__(self) -> Never:
        raise TypeError("a Secret cannot be pickled or copied")

    def __bool__(self) -> bool:
        return bool(self.__value)


def _encoded(value: str) -> bytes:
    # "surrogatepass" never fails; the exception would carry the value.
    return value.encode("utf-8", "surrogatepass")

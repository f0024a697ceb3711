"""What the server and a protocol agree on: a dialogue reads requests and gives answers, no I/O."""

from dataclasses import dataclass
from typing import Final, Protocol

from sesguard.system.peers import Peer


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send, and whether to close afterwards."""

    data: bytes
    close: bool

    def __repr__(self) -> str:
        # The data holds a secret in the clear.
        return f"Answer(<{len(self.data)} bytes>, close={self.close})"


CLOSE: Final = Answer(b"", close=True)
"""The refusal: close without one byte."""


class Dialogue(Protocol):
    """One protocol, shared by all connections; it keeps nothing between two calls."""

    protocol: str
    """Its name, for the events."""
    keeps_open: bool
    """Whether a client may ask again on the same connection."""

    def answer(self, received: bytearray, peer: Peer) -> Answer | None:
        """
        Answer the first request in `received`.

        Args:
            received: What came so far. A request that is answered without closing is taken off.
            peer: Who asks.

        Returns:
            None while the request is not complete. A request that grows over the protocol's limit
            is answered, by closing, so `received` stays bounded.
        """
        ...

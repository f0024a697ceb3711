"""
What the relay and the sending side agree on.

A `Carrier` takes messages on: the pool of SMTP sessions, or the SES API. `Carrier.begin` gives a
`Transfer`, into which one message is written while it is still being received, and everything that
becomes of it is told to a `TransferListener`. All calls are made on one event loop and none waits.

The message is handed over in *wire form*: as DATA carries it, with CRLF line ends only, without NUL
or a CR or LF on its own, a dot before each line that begins with one, and without the final line
``.``; what is written to one `Transfer` ends with CRLF when it is finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sesguard.core.envelope import Envelope
from sesguard.upstream.replies import Reply


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a message."""

    reply: Reply
    """The upstream's reply to the message, or the one that stands for what kept it from going."""
    refused: Mapping[str, Reply] = field(default_factory=dict)
    """Recipients that the upstream refused, with its reply to each."""
    uncertain: bool = False
    """The whole message was sent and the answer was lost: it may have been taken (RFC 1047)."""
    host: str | None = None
    """The upstream it was tried at last; None when none was reached."""
    credential_id: str | None = None
    credential_version: int | None = None


class TransferListener(Protocol):
    """Told what happens to one transfer."""

    def transfer_done(self, result: Result) -> None:
        """
        Take the result; called once, never from within `begin`, and not after `abort`.

        It may come before `finish`: the message is lost for this transfer then, and what is still
        written to it is thrown away.
        """
        ...

    def pause_transfer(self) -> None:
        """Stop writing for now: what was written has not gone out yet."""
        ...

    def resume_transfer(self) -> None:
        """Go on writing."""
        ...


class Transfer(Protocol):
    """One message on its way."""

    def write(self, data: bytes) -> None:
        """Take the next piece, of any length, in wire form."""
        ...

    def finish(self) -> None:
        """The message is complete; only from here on may it be delivered."""
        ...

    def abort(self) -> None:
        """Give up before `finish`: nothing of the message is delivered."""
        ...


class Carrier(Protocol):
    """Takes messages on."""

    def begin(
        self,
        envelope: Envelope,
        listener: TransferListener,
        *,
        credential_id: str | None = None,
        partial: bool = False,
        app: str = "",
    ) -> Transfer:
        """
        Begin to send a message. It raises nothing: what goes wrong is a `Result`.

        Args:
            envelope: From whom, to whom.
            listener: Told of the result, and when to pause.
            credential_id: The credential to use; None: the one that the settings name for the
                sender's domain.
            partial: Whether the message is sent to the other recipients when the upstream refuses
                some of them. Otherwise it goes to all or to none, and the first refusal is the
                reply.
            app: Whose message it is. Where there is too little of what all share, such as sessions
                upstream, each app has its turn, and none can keep the others waiting.
        """
        ...

    async def close(self, *, timeout_s: float) -> None:
        """Begin nothing more, let transfers that were finished end within `timeout_s`, and stop."""
        ...

"""
The SMTP envelope: whom a message is from and whom it goes to (RFC 5321, 2.3.1).

It is what MAIL and RCPT said, and has nothing to do with the header of the message. Addresses are
kept as they were given, without angle brackets and with no more quoting than they need; they have
been checked by whoever made the envelope, so that they can be written into a command.
"""

from dataclasses import dataclass
from enum import StrEnum


class Notify(StrEnum):
    """When the sender wants to hear of a recipient (RFC 3461, 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient."""

    address: str
    notify: frozenset[Notify] = frozenset()
    """Empty: nothing was said, so failures are told (RFC 3461, 4.1)."""
    original: str = ""
    """ORCPT as it was given, such as ``rfc822;user@example.com``; empty: not given."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Sender, recipients and what MAIL said about the message."""

    sender: str
    """The envelope sender; empty for a bounce."""
    recipients: tuple[Recipient, ...]
    eight_bit: bool = False
    """BODY=8BITMIME (RFC 6152)."""
    utf8: bool = False
    """SMTPUTF8 (RFC 6531)."""
    envelope_id: str = ""
    """ENVID as it was given; empty: not given."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The recipients' addresses, in order."""
        return tuple(recipient.address for recipient in self.recipients)

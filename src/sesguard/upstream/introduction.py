"""
What is said before the text of a message, and what the upstream answers: MAIL, RCPT and DATA.

No input or output: `say` gives the next commands, `hear` takes each reply. With PIPELINING
(RFC 2920) they are said together; DATA only where one refused recipient does not end the whole,
because a message that was begun by DATA can be given up by ending the connection only.
"""

from typing import Final

from sesguard.core.envelope import Envelope
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.wire import Offer, envelope_commands

_NO_RECIPIENTS: Final = Reply(554, "5.5.1 no recipients", Outcome.PERMANENT)


class Introduction:
    """
    The dialogue of one message up to its text.

    Args:
        envelope: From whom, to whom.
        offer: What the upstream understands.
        size: Octets of the message; None: not known yet.
        partial: Whether a refused recipient leaves the others.
    """

    __slots__ = (
        "_commands",
        "_heard",
        "_partial",
        "_pipelining",
        "_recipients",
        "_said",
        "_taken",
        "mail_taken",
        "refusal",
        "refused",
    )

    def __init__(
        self, envelope: Envelope, offer: Offer, size: int | None, *, partial: bool
    ) -> None:
        plan = envelope_commands(envelope, offer, size)
        self._commands = plan.commands
        self._recipients = plan.recipients
        self._partial = partial
        self._pipelining = offer.pipelining
        self._said = 0
        self._heard = 0
        self._taken = 0
        self.mail_taken = False
        self.refused = plan.refused
        """Recipients that were refused so far."""
        self.refusal = plan.refusal
        """Why the message does not go at all."""
        if self.refusal is None and self.refused and not (partial and self._recipients):
            self.refusal = next(iter(self.refused.values()))
        elif self.refusal is None and not self._recipients:
            self.refusal = _NO_RECIPIENTS

    @property
    def due(self) -> int:
        """How many replies have yet to come to what was said."""
        return self._said - self._heard

    @property
    def data_said(self) -> bool:
        """Whether DATA was said."""
        return self._said == len(self._commands)

    def say(self) -> bytes:
        """The next commands, for one write."""
        start, last = self._said, len(self._commands) - 1
        if not self._pipelining or start == last:
            self._said = start + 1
        elif self._partial or len(self._recipients) == 1:
            self._said = last + 1
        else:
            self._said = last
        return b"".join(self._commands[start : self._said])

    def is_data_reply_next(self) -> bool:
        """Whether the next reply is the one to DATA."""
        return self._heard == len(self._recipients) + 1

    def hear_taken(self) -> None:
        """The next reply is 2xx."""
        if self._heard == 0:
            self.mail_taken = True
        else:
            self._taken += 1
        self._heard += 1
        self._judge_recipients()

    def hear_refused(self, reply: Reply) -> None:
        """The next reply is another one."""
        if 0 < self._heard <= len(self._recipients):
            recipient = self._recipients[self._heard - 1]
            self.refused = {**self.refused, recipient: reply}
        if self.refusal is None and not (
            self._partial and 0 < self._heard <= len(self._recipients)
        ):
            self.refusal = reply
        self._heard += 1
        self._judge_recipients()

    def _judge_recipients(self) -> None:
        if self._heard == len(self._recipients) + 1 and not self._taken and self.refusal is None:
            self.refusal = next(iter(self.refused.values()))

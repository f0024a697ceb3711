"""
The decision behind every answer, the same for all protocols.

`LookupDesk` takes a question, chooses the credential, reads its CURRENT version from the
`CredentialSource` (each time anew, so that a rotation needs no reload), and reports exactly one
event for each question. Whatever goes wrong becomes a `Refused`; nothing else is raised on purpose.
"""

from collections.abc import Callable, Sequence

from sesguard.core.interfaces import CredentialSource
from sesguard.core.routing import (
    RoutingRule,
    choose_rule,
    is_our_host,
    rule_named,
    sender_domain,
    smtp_password,
)
from sesguard.errors import CredentialError, Error
from sesguard.lookup.model import (
    EventSink,
    Grant,
    LookupEvent,
    Outcome,
    Question,
    Reason,
    Refused,
)
from sesguard.system.peers import Peer


class LookupDesk:
    """
    Decides lookups of one protocol.

    Args:
        protocol: Its name, for the events.
        source: Where the credential comes from.
        rules: Which credential is for which host and sender.
        require_tls: Whether a question that says "no TLS" is refused.
        sink: Takes the events.
    """

    def __init__(
        self,
        protocol: str,
        source: CredentialSource,
        rules: Sequence[RoutingRule],
        *,
        require_tls: bool,
        sink: EventSink,
    ) -> None:
        self.protocol = protocol
        self._source = source
        self._rules = tuple(rules)
        self._require_tls = require_tls
        self._sink = sink

    def update(self, rules: Sequence[RoutingRule], *, require_tls: bool) -> None:
        """Use other rules from the next question on."""
        self._rules = tuple(rules)
        self._require_tls = require_tls

    def is_our_host(self, host: str) -> bool:
        """Whether a session with `host` must be authenticated by one of our credentials."""
        return is_our_host(self._rules, host)

    def is_our_sender(self, sender: str) -> bool:
        """Whether a rule names the domain of `sender`."""
        domain = sender_domain(sender)
        return any(rule.names_sender(domain) for rule in self._rules)

    def reveal_answer(
        self, question: Question, peer: Peer, reveal: Callable[[Grant], bytes]
    ) -> bytes:
        """
        Answer a question in the clear.

        Args:
            question: What the MTA asks.
            peer: Who asks; its uid was checked before.
            reveal: Writes the grant down in the protocol's form.

        Raises:
            Refused: There is no answer. The event has been reported.
        """
        try:
            grant = self._grant(question)
            answer = reveal(grant)
        except Error as error:
            refusal = _refusal(error)
            self.report(refusal, peer, question)
            raise refusal from error
        self._sink(
            LookupEvent(
                Outcome.GRANTED,
                self.protocol,
                peer,
                host=question.host,
                sender=question.sender,
                message_id=question.message_id,
                cipher=question.cipher,
                credential_id=grant.credential_id,
                version=grant.version.number,
            )
        )
        return answer

    def report(self, refusal: Refused, peer: Peer, question: Question) -> None:
        """Report a refusal."""
        self._sink(
            LookupEvent(
                Outcome.REFUSED,
                self.protocol,
                peer,
                refusal.reason,
                str(refusal),
                host=question.host,
                sender=question.sender,
                message_id=question.message_id,
                cipher=question.cipher,
                credential_id=question.credential,
            )
        )

    def _grant(self, question: Question) -> Grant:
        if self._require_tls and question.cipher == "":
            raise Refused(Reason.NO_TLS, "the session with the host has no TLS")
        if question.credential is not None:
            rule = rule_named(self._rules, question.credential)
        else:
            rule = choose_rule(self._rules, question.host, question.sender)
        version = self._source.current(rule.credential_id)
        password = smtp_password(version, rule, question.host)
        return Grant(rule.credential_id, version, password)


def _refusal(error: Error) -> Refused:
    if isinstance(error, Refused):
        return error
    known = isinstance(error, CredentialError)
    return Refused(Reason.NO_CREDENTIAL if known else Reason.VAULT, "{reason}", reason=error)

"""
One message: from MAIL to its reply.

The envelope is judged command by command. The text comes in through a stream that has already
proved its line ends. Its header is kept back until it is complete, judged, and rewritten; then a
transfer is opened, at the upstream or in the queue, and everything goes on into it as it comes.

Promises
    A message that breaks a rule is answered after its true end, and nothing of it has gone on.
    What was begun and is not finished, because the client went away or the text turned out bad, is
    aborted: a transfer is finished once, or never.
    One event is reported for each message whose text was begun, and for each refused command.

Raises nothing of its own.
"""

from typing import Final, Protocol, TypeVar

from sesguard.core.envelope import Envelope, Recipient
from sesguard.errors import CredentialError
from sesguard.relay.commands import MailCommand
from sesguard.relay.events import Fate, RelayEvent
from sesguard.relay.header import MAX_HEADER_BYTES, HeaderFault, read_header
from sesguard.relay.model import App, Caller, DeliveryMode, PolicyMode, Reason, Refusal
from sesguard.relay.policy import judge_authors, judge_recipient, judge_sender, judge_size
from sesguard.relay.replies import is_kept, lmtp_replies, smtp_reply
from sesguard.relay.routes import Route
from sesguard.relay.service import Relay
from sesguard.relay.spool import Origin
from sesguard.upstream.interface import Result, Transfer
from sesguard.upstream.replies import Outcome, Reply

_FORGIVABLE: Final = frozenset({Reason.SENDER, Reason.AUTHOR, Reason.RECIPIENT, Reason.RATE})
"""Rules that ``learn`` and ``hold`` do not enforce: those that are the app's alone."""
_NOT_FOUND: Final = 3
"""What `bytes.find` and the length of the end of a header make of nothing."""
_HEADER_TOO_LONG: Final = Refusal(Reason.HEADER, 552, "5.3.4", "the header is longer than 256 KiB")

RefusalT = TypeVar("RefusalT", Refusal, Refusal | None)


class Client(Protocol):
    """The session, as its message sees it."""

    caller: Caller
    login: str | None
    """App that a token named."""
    is_lmtp: bool

    def answer(self, reply: bytes) -> None:
        """Take the reply to the whole message; nothing more comes."""
        ...

    def pause(self) -> None:
        """Read nothing for now."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Transaction:
    """
    One message of one app; a `TransferListener`.

    Args:
        relay: What all sessions share.
        client: Whose message it is.
        app: As it was identified at MAIL.
        command: The MAIL command.
    """

    def __init__(self, relay: Relay, client: Client, app: App, command: MailCommand) -> None:
        self._relay = relay
        self._client: Client | None = client
        self._caller = client.caller
        self._login = client.login
        self._is_lmtp = client.is_lmtp
        self._app = app
        self._command = command
        self._recipients: list[Recipient] = []
        self._noted: tuple[Reason, ...] = ()
        self._held: Refusal | None = None
        self._refusal: Refusal | None = None
        self._header: bytearray | None = bytearray()
        """What came of the header; None once it is complete."""
        self._transfer: Transfer | None = None
        self._result: Result | None = None
        self._finished = False
        self._is_counted = False
        """Whether the rates have counted it."""
        self._size = 0

    # The envelope.

    def check_sender(self) -> Refusal | None:
        """Judge what MAIL said."""
        command = self._command
        refusal = self._unless_forgiven(judge_sender(self._app, command.sender))
        if refusal is None and command.size is not None:
            refusal = judge_size(self._app, command.size)
        return self._refused(refusal)

    def add_recipient(self, recipient: Recipient) -> Refusal | None:
        """Judge what RCPT said, and add the recipient if it may be."""
        known = self._relay.refused_recipients
        refusal = known.find(self._app.name, self._command.sender, recipient.address)
        if refusal is None:
            count = len(self._recipients) + 1
            refusal = self._unless_forgiven(judge_recipient(self._app, recipient.address, count))
        if refusal is None:
            self._recipients.append(recipient)
        return self._refused(refusal)

    @property
    def has_recipients(self) -> bool:
        """Whether there is anybody to send it to."""
        return bool(self._recipients)

    @property
    def utf8(self) -> bool:
        """Whether MAIL said SMTPUTF8."""
        return self._command.utf8

    @property
    def max_message_bytes(self) -> int:
        """The size of the largest message that the app may send."""
        return self._app.max_message_bytes

    # The text.

    def take(self, text: bytes) -> None:
        """Take the next piece, in wire form."""
        if self._refusal is not None:
            return
        if self._header is None:
            if self._transfer is not None and self._result is None:
                self._transfer.write(text)
            return
        start = max(0, len(self._header) - 3)
        self._header += text
        end = 2 if self._header.startswith(b"\r\n") else self._header.find(b"\r\n\r\n", start) + 4
        if end != _NOT_FOUND:
            self._end_header(bytes(self._header[:end]), bytes(self._header[end:]))
        elif len(self._header) > MAX_HEADER_BYTES:
            self.refuse(_HEADER_TOO_LONG)

    def refuse(self, refusal: Refusal) -> None:
        """Let nothing of the message go on; the client hears it at the end of the text."""
        if self._refusal is None:
            self._refusal = refusal
            self._header = None
            self._abort()

    def finish(self, size: int) -> None:
        """The whole text is there; it had so many octets."""
        self._size = size
        if self._header is not None:
            # A header without an empty line after it is that of a message without a body.
            self._end_header(bytes(self._header) + b"\r\n", b"")
        # An app that was suspended meanwhile sends nothing more, whatever it has begun.
        again = self._relay.identities.app_for(self._caller, self._login)
        if isinstance(again, Refusal):
            self.refuse(again)
        if self._refusal is not None:
            line = self._refused(self._refusal).line()
            # In LMTP each recipient has a reply of its own.
            self._answer(line * len(self._recipients) if self._is_lmtp else line)
        elif self._result is not None:
            self._answer_result(self._result)
        elif self._transfer is not None:
            self._finished = True
            self._transfer.finish()

    def abandon(self) -> None:
        """The client is gone, or wants no more of it; a finished message still takes its way."""
        if not self._finished:
            self._abort()
        self._client = None
        if self._finished:
            return
        if self._refusal is not None:
            self._refused(self._refusal)
        elif self._header is None or self._header:
            self._report(Fate.ABANDONED)

    # What the transfer tells (`TransferListener`).

    def transfer_done(self, result: Result) -> None:
        """See `TransferListener`."""
        self._result = result
        self.resume_transfer()
        if self._finished:
            self._answer_result(result)

    def pause_transfer(self) -> None:
        """See `TransferListener`."""
        if self._client is not None:
            self._client.pause()

    def resume_transfer(self) -> None:
        """See `TransferListener`."""
        if self._client is not None:
            self._client.resume()

    # Inside.

    def _end_header(self, header: bytes, body: bytes) -> None:
        self._header = None
        refusal = self._begin(header, body)
        if refusal is not None:
            self.refuse(refusal)

    def _begin(self, block: bytes, body: bytes) -> Refusal | None:
        """Judge the header and open the transfer."""
        relay, app = self._relay, self._app
        try:
            header = read_header(block)
            route = relay.routes.find(app, self._command.sender)
        except HeaderFault as fault:
            return fault.refusal
        except CredentialError as error:
            return Refusal(Reason.UPSTREAM, 451, "4.3.5", str(error))
        refusal = self._unless_forgiven(judge_authors(app, header.authors))
        if refusal is None:
            taken = relay.rates.take(app, len(self._recipients), relay.now())
            self._is_counted = taken is None
            refusal = self._unless_forgiven(taken)
        if refusal is None:
            front = relay.trace.front(app, route.configuration_set, relay.now(), lmtp=self._is_lmtp)
            self._transfer = self._open(route)
            self._transfer.write(header.rewritten(front) + body)
        return refusal

    def _open(self, route: Route) -> Transfer:
        command = self._command
        envelope = Envelope(
            command.sender,
            tuple(self._recipients),
            command.eight_bit,
            command.utf8,
            command.envelope_id,
        )
        if self._app.delivery is DeliveryMode.PASS and self._held is None:
            return self._relay.upstream.begin(
                envelope,
                self,
                credential_id=route.credential_id,
                partial=self._is_lmtp,
                app=self._app.name,
            )
        origin = Origin(self._app.name, self._caller.uid, route.credential_id)
        held = self._held.text if self._held is not None else None
        return self._relay.spool.begin(envelope, self, origin=origin, held=held)

    def _unless_forgiven(self, refusal: Refusal | None) -> Refusal | None:
        """What is left of a broken rule in the app's policy mode."""
        enforced = self._app.policy is PolicyMode.ENFORCE
        if refusal is None or enforced or refusal.reason not in _FORGIVABLE:
            return refusal
        if self._app.policy is PolicyMode.LEARN:
            self._noted = (*self._noted, refusal.reason)
        elif self._held is None:
            self._held = refusal
        return None

    def _abort(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None and self._result is None:
            transfer.abort()
            # Nobody else would let the client go on that this transfer paused.
            self.resume_transfer()

    # Answers and events.

    def _answer(self, reply: bytes) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.answer(reply)

    def _answer_result(self, result: Result) -> None:
        addresses = tuple(recipient.address for recipient in self._recipients)
        if self._is_lmtp:
            reply = lmtp_replies(addresses, result)
            comes_again = is_kept(result.reply.outcome)
        else:
            reply = smtp_reply(result, len(addresses))
            # Also where one recipient of several was refused: then it went to nobody.
            comes_again = reply.startswith(b"4")
            known = self._relay.refused_recipients
            known.remember(self._app.name, self._command.sender, result.refused)
        if comes_again and self._is_counted and not result.uncertain:
            # What nobody took counts once only.
            self._relay.rates.give_back(self._app, len(self._recipients), self._relay.now())
        self._report(self._fate(result.reply, comes_again=comes_again), result=result)
        self._answer(reply)

    def _fate(self, reply: Reply, *, comes_again: bool) -> Fate:
        if comes_again:
            return Fate.DEFERRED
        if reply.outcome is not Outcome.ACCEPTED:
            return Fate.REFUSED
        if self._held is not None:
            return Fate.HELD
        return Fate.SENT if self._app.delivery is DeliveryMode.PASS else Fate.QUEUED

    def _refused(self, refusal: RefusalT) -> RefusalT:
        """Report a refusal, and give it back."""
        if refusal is not None:
            self._report(Fate.DEFERRED if refusal.is_kept else Fate.REFUSED, refusal=refusal)
        return refusal

    def _report(
        self, fate: Fate, *, refusal: Refusal | None = None, result: Result | None = None
    ) -> None:
        refusal = refusal or self._held
        reply = result.reply if result is not None else None
        self._relay.sink(
            RelayEvent(
                fate,
                "lmtp" if self._is_lmtp else "smtp",
                app=self._app.name,
                uid=self._caller.uid,
                sender=self._command.sender,
                recipients=tuple(recipient.address for recipient in self._recipients),
                size=self._size,
                reason=refusal.reason if refusal else None,
                reply=str(reply) if reply else refusal.text if refusal else None,
                ses_message_id=reply.message_id if reply else None,
                credential_id=result.credential_id if result else None,
                credential_version=result.credential_version if result else None,
                noted=self._noted,
                uncertain=result is not None and (result.uncertain or self._is_unheard(result)),
            )
        )

    def _is_unheard(self, result: Result) -> bool:
        """Whether it was taken and the client, which has gone, will send it again."""
        return self._client is None and result.reply.outcome is Outcome.ACCEPTED

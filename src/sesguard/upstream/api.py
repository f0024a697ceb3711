"""
Mail to SES by its API, with whatever identity the host has: the `Carrier` without a credential.

The API takes a message as a whole, so it is collected in memory (SES takes up to 40 MB, headers and
encoding included) and sent by a `RawSender` in one of `max_workers` threads. The layers below know
nothing of AWS: the sender is handed in.

Promises
    A region that cannot be reached is left for the next one; a region that refuses, or may have
    taken the message, is not.
    A call without an answer is `uncertain`: SES may have taken the message (RFC 1047).
    A message goes to all of its recipients or to none; `partial` changes nothing.
    `begin` raises nothing and tells nothing; the listener hears of one result on the event loop.

Limits: large messages have `memory_bytes` together, from their first octet to the answer; then all
but the first that came are paused, and that one too until there is no call under way, so that it
alone may exceed the limit. See `sesguard.upstream.budget`.

Known faults: what the AWS library makes of a message for its call is not counted, about twice its
size. A call cannot be broken off: `close` waits for the calls under way as long as it may, and then
reports them as uncertain.

Source: docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from sesguard.core.envelope import Envelope
from sesguard.core.interfaces import RawSender
from sesguard.errors import (
    AwsDenied,
    AwsThrottled,
    AwsTransient,
    Error,
    TemporaryFailure,
)
from sesguard.upstream.budget import Budget
from sesguard.upstream.failures import deferral
from sesguard.upstream.interface import Result, Transfer, TransferListener
from sesguard.upstream.pace import LAG_S
from sesguard.upstream.replies import Outcome, Reply, classify
from sesguard.upstream.wire import find_unsayable

MAX_WORKERS: Final = 16
MEMORY_BYTES: Final = 64 * 1024 * 1024

_CLOSED: Final = deferral("4.3.2", "the relay is shutting down")
_CUT: Final = deferral("4.4.2", "the relay was shut down before the SES API answered")
_SLOW: Final = deferral("4.4.2", "the message came in too slowly while others waited")
_FAULT_OF_OURS: Final = deferral(
    "4.3.0", "the message could not be sent, because of a fault of ours"
)
_OF_CODE: Final = {
    "AccountSuspendedException": Outcome.PAUSED,
    "SendingPausedException": Outcome.PAUSED,
    "LimitExceededException": Outcome.THROTTLED,
    "MailFromDomainNotVerifiedException": Outcome.UNVERIFIED,
    "NotFoundException": Outcome.DENIED,
    "BadRequestException": Outcome.PERMANENT,
    "MessageRejected": Outcome.PERMANENT,
}
"""What AWS's own code means; one that is not here counts as TEMPORARY."""


class ApiCarrier:
    """
    Sends by the API; a `Carrier`. Made and used on one event loop.

    Args:
        sender: Makes the call; used by several threads.
        regions: AWS regions in the order in which they are tried; at least one.
        max_workers: Calls at one time.
        memory_bytes: For messages.
        lag_s: See `Budget`.
    """

    def __init__(
        self,
        sender: RawSender,
        regions: Sequence[str],
        *,
        max_workers: int = MAX_WORKERS,
        memory_bytes: int = MEMORY_BYTES,
        lag_s: float = LAG_S,
    ) -> None:
        self._sender = sender
        self._regions = tuple(regions)
        self._loop = asyncio.get_running_loop()
        self._workers = ThreadPoolExecutor(max_workers, "ses-api")
        self._calls: dict[asyncio.Future[Result], tuple[ApiTransfer, Future[Result]]] = {}
        self._open: set[ApiTransfer] = set()
        self.budget: Final = Budget(memory_bytes, lag_s)
        self._is_closed = False

    def begin(
        self,
        envelope: Envelope,
        listener: TransferListener,
        *,
        credential_id: str | None = None,  # noqa: ARG002 - there is none here
        partial: bool = False,  # noqa: ARG002 - SES takes all or none
        app: str = "",  # noqa: ARG002 - nobody waits for a session
    ) -> Transfer:
        """See `Carrier`."""
        refusal = _CLOSED if self._is_closed else find_unsayable(envelope)
        if refusal is not None:
            refused = ApiTransfer(None, envelope, listener)
            self._loop.call_soon(refused.settle, Result(refusal))
            return refused
        transfer = ApiTransfer(self, envelope, listener)
        self._open.add(transfer)
        return transfer

    async def close(self, *, timeout_s: float) -> None:
        """See `Carrier`."""
        self._is_closed = True
        for transfer in [*self._open]:
            self.give_up(transfer, _CLOSED)
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout_s)
        late, self._calls = self._calls, {}
        for transfer, job in late.values():
            was_begun = not job.cancel()
            self.budget.release(transfer)
            transfer.settle(Result(_CUT, uncertain=was_begun))
        self._workers.shutdown(wait=False, cancel_futures=True)

    def send(self, transfer: "ApiTransfer", message: bytes) -> None:
        """Send a complete message and settle its transfer."""
        self._open.discard(transfer)
        self.budget.complete(transfer)
        job = self._workers.submit(self._call, transfer.envelope, message)
        call = asyncio.wrap_future(job, loop=self._loop)
        self._calls[call] = transfer, job
        call.add_done_callback(self._answered)

    def forget(self, transfer: "ApiTransfer") -> None:
        """The transfer was given up."""
        self._open.discard(transfer)
        self.budget.release(transfer)

    def give_up(self, transfer: "ApiTransfer", reply: Reply) -> None:
        """End a transfer that is not complete."""
        self.forget(transfer)
        transfer.settle(Result(reply))

    def _answered(self, call: asyncio.Future[Result]) -> None:
        found = self._calls.pop(call, None)
        if found is None:
            return
        transfer, _job = found
        self.budget.release(transfer)
        error = call.exception()
        if error is not None:
            self._loop.call_exception_handler({"message": "sending by API", "exception": error})
        transfer.settle(Result(_FAULT_OF_OURS) if error is not None else call.result())

    def _call(self, envelope: Envelope, message: bytes) -> Result:
        """In a thread: send at the first region that can be reached."""
        unreachable: TemporaryFailure | None = None
        for region in self._regions:
            try:
                message_id = self._sender.send(region, envelope.sender, envelope.addresses, message)
            except TemporaryFailure as error:
                unreachable = error
            except Error as error:
                return _refused(error, region)
            else:
                return Result(classify(250, f"Ok {message_id}"), host=region)
        assert unreachable is not None
        told = "the SES API cannot be reached"
        return Result(deferral("4.4.1", str(unreachable), told=told), host=None)


class ApiTransfer:
    """
    One message, kept until it is complete.

    Args:
        carrier: Sends it; None: it is refused already.
        envelope: From whom, to whom.
        listener: Told of the result.
    """

    __slots__ = ("_carrier", "_listener", "_text", "envelope")

    def __init__(
        self, carrier: ApiCarrier | None, envelope: Envelope, listener: TransferListener
    ) -> None:
        self.envelope: Final = envelope
        self._carrier = carrier
        self._listener: TransferListener | None = listener
        self._text = bytearray()

    @property
    def size(self) -> int:
        """See `Holder`."""
        return len(self._text)

    def write(self, data: bytes) -> None:
        """See `Transfer`."""
        if self._carrier is not None:
            self._text += data
            self._carrier.budget.note(self)

    def finish(self) -> None:
        """See `Transfer`."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            message = unstuffed(bytes(self._text))
            self._text.clear()
            carrier.send(self, message)

    def abort(self) -> None:
        """See `Transfer`."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            self._listener = None
            self._text.clear()
            carrier.forget(self)

    def pause(self) -> None:
        """See `Holder`."""
        if self._listener is not None:
            self._listener.pause_transfer()

    def resume(self) -> None:
        """See `Holder`."""
        if self._listener is not None:
            self._listener.resume_transfer()

    def cut(self) -> None:
        """See `Holder`."""
        if self._carrier is not None:
            self._carrier.give_up(self, _SLOW)

    def settle(self, result: Result) -> None:
        """Tell the result."""
        listener, self._listener = self._listener, None
        self._carrier = None
        self._text.clear()
        if listener is not None:
            listener.transfer_done(result)


def unstuffed(wire: bytes) -> bytes:
    """A message without the dots that DATA wants before lines that begin with one."""
    return wire.removeprefix(b".").replace(b"\r\n.", b"\r\n")


def _refused(error: Error, region: str) -> Result:
    match error:
        case AwsTransient():
            reply = deferral("4.4.2", str(error), told="the SES API gave no answer")
            return Result(reply, uncertain=True, host=region)
        case AwsThrottled():
            told = "the SES API asks for fewer messages"
            return Result(deferral("4.3.2", str(error), Outcome.THROTTLED, told=told), host=region)
        case AwsDenied():
            told = "the relay may not send this by the SES API"
            return Result(deferral("4.7.0", str(error), Outcome.DENIED, told=told), host=region)
        case _:
            return Result(_permanent(error), host=region)


def _permanent(error: Error) -> Reply:
    """The reply to what AWS refuses for good, with the meaning that SMTP would have given it."""
    reason = str(error.parameters.get("reason", error))
    outcome = _OF_CODE.get(str(error.parameters.get("code")), Outcome.TEMPORARY)
    if outcome is Outcome.PERMANENT:
        # SES uses the same words as by SMTP, and in both cases only they tell the causes apart.
        return classify(554, f"Message rejected: {reason}")
    if outcome is Outcome.UNVERIFIED:
        return Reply(554, classify(554, reason).text, outcome)
    return deferral("4.3.0" if outcome is not Outcome.THROTTLED else "4.3.2", str(error), outcome)

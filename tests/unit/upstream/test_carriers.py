"""Both carriers against the sandbox: the contract, and what only the real endpoint shows."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rigs.async_peer import until
from rigs.pool import QUICK, Vault, destination, envelope, run_on
from rigs.pool import send as send_text
from rigs.sandbox import SandboxRig, running_sandbox
from sesguard.core.endpoints import Endpoint
from sesguard.errors import (
    AwsDenied,
    AwsPermanent,
    AwsThrottled,
    AwsTransient,
    Error,
    TemporaryFailure,
)
from sesguard.sandbox.model import Fault, FaultKind, Stage, TlsMode
from sesguard.testing.carrier_suite import (
    HEADER,
    CarrierContract,
    Delivered,
    Upstream,
    closing,
    send,
)
from sesguard.upstream.api import ApiCarrier
from sesguard.upstream.interface import Carrier
from sesguard.upstream.pool import UpstreamPool
from sesguard.upstream.replies import Outcome

REGION = "us-east-1"


@pytest.fixture(scope="session")
def started_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxRig]:
    """The process."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest.fixture
def rig(started_sandbox: SandboxRig) -> SandboxRig:
    """The process, reset."""
    started_sandbox.client.reset()
    return started_sandbox


@dataclass
class SandboxUpstream:
    """The sandbox's SMTP endpoint."""

    rig: SandboxRig
    vault: Vault = field(init=False)
    timeouts: Any = QUICK

    def __post_init__(self) -> None:
        login = self.rig.login()
        self.vault = Vault(login.user, login.password.reveal())

    def carrier(self) -> AbstractAsyncContextManager[Carrier]:
        """See `Upstream`."""
        return closing(self.pool())

    def pool(self) -> UpstreamPool:
        """The carrier as what it is."""
        endpoint = Endpoint("127.0.0.1", self.rig.info.starttls_port)
        where = destination(endpoint, ca_file=self.rig.info.ca_file)
        return UpstreamPool(self.vault, [where], max_connections=5, timeouts=self.timeouts)

    def delivered(self) -> Sequence[Delivered]:
        """See `Upstream`."""
        client = self.rig.client
        return [
            Delivered(mail.envelope_sender, mail.recipients, client.raw_message(mail.id))
            for mail in client.inbox()
        ]

    def refuse(self) -> None:
        """See `Upstream`."""
        self.rig.aws("ses").delete_identity(Identity="example.com")


@dataclass
class MemoryApi:
    """A `RawSender` that keeps what it is given, or raises what a test sets."""

    mails: list[Delivered] = field(default_factory=list)
    faults: dict[str, Error] = field(default_factory=dict)
    """By region."""
    asked: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: calls get no answer."""

    def __post_init__(self) -> None:
        self.gate.set()

    def send(
        self, region: str, envelope_sender: str, recipients: Sequence[str], message: bytes
    ) -> str:
        """See `RawSender`."""
        self.asked.append(region)
        assert self.gate.wait(20)
        if region in self.faults:
            raise self.faults[region]
        self.mails.append(Delivered(envelope_sender, tuple(recipients), message))
        return "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000"

    def carrier(self) -> AbstractAsyncContextManager[Carrier]:
        """See `Upstream`."""
        return closing(ApiCarrier(self, [REGION, "eu-west-1"]))

    def delivered(self) -> Sequence[Delivered]:
        """See `Upstream`."""
        return self.mails

    def refuse(self) -> None:
        """See `Upstream`."""
        reason = "Email address is not verified. The following identities failed the check"
        self.faults[REGION] = refusal("MessageRejected", reason)


def refusal(code: str, reason: str = "no") -> AwsPermanent:
    """What AWS refuses for good."""
    return AwsPermanent("AWS refused: {reason} ({code})", code=code, reason=reason)


class TestPool(CarrierContract):
    """The pool."""

    @pytest.fixture
    def upstream(self, rig: SandboxRig) -> Upstream:
        """The sandbox."""
        return SandboxUpstream(rig)


class TestApi(CarrierContract):
    """The API."""

    @pytest.fixture
    def upstream(self) -> Upstream:
        """Memory."""
        return MemoryApi()


# The pool at the sandbox: every stage with every fault.

UNCERTAIN = {
    (stage, kind)
    for stage in (Stage.DATA, Stage.ACCEPTED)
    for kind in (FaultKind.DROP, FaultKind.STALL)
}


@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("stage", Stage)
def test_every_fault_of_the_sandbox(rig: SandboxRig, stage: Stage, kind: FaultKind) -> None:
    """The mail is kept, or sent late; only a lost answer is uncertain; the next one goes."""
    timeouts = replace(QUICK, session_s=1, reply_s=1, final_s=1, connect_rest_s=0.05)
    upstream = SandboxUpstream(rig, timeouts=timeouts)
    delay_s = 0.1 if kind is FaultKind.SLOW else 3600
    # A session that dies at its first command is replaced once.
    times = 2 if (stage, kind) == (Stage.MAIL, FaultKind.DROP) else 1
    rig.client.set_faults(Fault(stage, kind, times, delay_s))

    async def main() -> None:
        async with upstream.carrier() as carrier:
            result = await send(carrier, HEADER)
            assert ((stage, kind) in UNCERTAIN) is result.uncertain
            expected = {
                FaultKind.SLOW: {Outcome.ACCEPTED},
                FaultKind.REPLY_421: {Outcome.THROTTLED},
                FaultKind.REPLY_454: {Outcome.THROTTLED, Outcome.TEMPORARY},
            }.get(kind, {Outcome.TEMPORARY})
            assert result.reply.outcome in expected
            assert (result.reply.code == 250) is (kind is FaultKind.SLOW)
            async with asyncio.timeout(10):
                while (await send(carrier, HEADER)).reply.code != 250:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    run_on("uvloop")(main())
    taken = 2 if kind is FaultKind.SLOW or stage is Stage.ACCEPTED else 1
    assert taken == len(rig.client.inbox())


@pytest.mark.parametrize("mode", [mode for mode in TlsMode if mode is not TlsMode.NORMAL])
def test_every_tls_mode_of_the_sandbox(rig: SandboxRig, mode: TlsMode) -> None:
    """Whatever is wrong with TLS, nothing is said, also when it was right before."""
    upstream = SandboxUpstream(rig)

    async def main() -> None:
        async with closing(upstream.pool()) as carrier:
            assert 250 == (await send(carrier, HEADER)).reply.code
            assert isinstance(carrier, UpstreamPool)
            rig.client.set_tls_mode(mode)
            carrier.update([*carrier._destinations.values()])
            result = await send(carrier, HEADER)
            assert (451, Outcome.TEMPORARY) == (result.reply.code, result.reply.outcome)

    run_on("uvloop")(main())
    assert 1 == len(rig.client.inbox())
    assert not any(
        connection.auth_without_tls or connection.mail_without_tls or connection.mail_without_auth
        for connection in rig.client.connections()
    )


def test_a_rotation_in_the_middle_of_traffic(rig: SandboxRig) -> None:
    """Nothing is lost or sent twice, and the old key is used no more afterwards."""
    upstream = SandboxUpstream(rig)
    new = rig.login(rig.seed(user_name="second"))

    async def main() -> None:
        async with closing(upstream.pool()) as carrier:

            async def one(number: int) -> int:
                if number == 60:
                    upstream.vault.rotate(new.user, new.password.reveal())
                return (await send(carrier, HEADER, b"%d\r\n" % number)).reply.code

            assert {250} == set(await asyncio.gather(*(one(number) for number in range(120))))
            assert isinstance(carrier, UpstreamPool)
            before = len(rig.client.inbox())
            assert 250 == (await send(carrier, HEADER)).reply.code
            assert new.user == rig.client.inbox()[before].access_key_id

    run_on("uvloop")(main())
    assert 121 == len(rig.client.inbox())


# The API's table of errors.


@pytest.mark.parametrize(
    ("error", "code", "outcome", "uncertain"),
    [
        (AwsDenied("no"), 451, Outcome.DENIED, False),
        (AwsThrottled("slower"), 451, Outcome.THROTTLED, False),
        (AwsTransient("no answer"), 451, Outcome.TEMPORARY, True),
        (refusal("AccountSuspendedException"), 451, Outcome.PAUSED, False),
        (refusal("SendingPausedException"), 451, Outcome.PAUSED, False),
        (refusal("LimitExceededException"), 451, Outcome.THROTTLED, False),
        (refusal("NotFoundException"), 451, Outcome.DENIED, False),
        (refusal("MailFromDomainNotVerifiedException"), 554, Outcome.UNVERIFIED, False),
        (
            refusal("MessageRejected", "Email address is not verified."),
            554,
            Outcome.UNVERIFIED,
            False,
        ),
        (
            refusal("MessageRejected", "Sending paused for this account."),
            554,
            Outcome.PAUSED,
            False,
        ),
        (refusal("MessageRejected", "virus"), 554, Outcome.PERMANENT, False),
        (refusal("BadRequestException"), 554, Outcome.PERMANENT, False),
        (refusal("SomethingNew"), 451, Outcome.TEMPORARY, False),
    ],
)
def test_what_the_api_refuses(error: Error, code: int, outcome: Outcome, uncertain: bool) -> None:
    """Each error has its outcome, and no second region is asked."""
    api = MemoryApi(faults={REGION: error})

    async def main() -> None:
        async with api.carrier() as carrier:
            result = await send(carrier, HEADER)
            assert (code, outcome, uncertain) == (
                result.reply.code,
                result.reply.outcome,
                result.uncertain,
            )

    run_on("uvloop")(main())
    assert [REGION] == api.asked


def test_the_next_region_when_one_cannot_be_reached() -> None:
    """The regions are tried in order; when none is left the mail is kept."""
    api = MemoryApi(faults={REGION: TemporaryFailure("cannot reach it")})

    async def main() -> None:
        async with api.carrier() as carrier:
            assert "eu-west-1" == (await send(carrier, HEADER)).host
            api.faults["eu-west-1"] = TemporaryFailure("nor that")
            result = await send(carrier, HEADER)
            assert (451, None, False) == (result.reply.code, result.host, result.uncertain)

    run_on("uvloop")(main())
    assert [REGION, "eu-west-1"] * 2 == api.asked
    assert 1 == len(api.mails)


def test_closing_during_a_call() -> None:
    """A call without an answer is uncertain; one that no thread has begun was not sent."""
    api = MemoryApi()
    api.gate.clear()

    async def main() -> None:
        carrier = ApiCarrier(api, [REGION], max_workers=1)
        begun = asyncio.create_task(send(carrier, HEADER))
        await until(lambda: api.asked)
        queued = asyncio.create_task(send(carrier, HEADER))
        await asyncio.sleep(0)
        await carrier.close(timeout_s=0.05)
        assert [(451, True), (451, False)] == [
            (result.reply.code, result.uncertain) for result in (await begun, await queued)
        ]
        api.gate.set()
        await until(lambda: api.mails)

    run_on("uvloop")(main())
    assert 1 == len(api.mails)


def test_a_message_to_nobody_by_the_pool(rig: SandboxRig) -> None:
    """It is refused for good."""
    upstream = SandboxUpstream(rig)

    async def main() -> None:
        async with upstream.carrier() as carrier:
            result = await send(carrier, HEADER, envelope=replace(envelope(), recipients=()))
            assert 554 == result.reply.code
            assert 250 == (await send_text(carrier, "user@example.net")).reply.code

    run_on("uvloop")(main())

"""Queue and delivery against an upstream that may say anything, with time passing and restarts."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rigs.queue import HOUR, Carried, Clock, accepted, open_post, replied, store, to
from sesguard.core.envelope import Envelope
from sesguard.relay.delivery import DeliveryEvent, DeliveryLimits, Ending
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Reply

ANSWERS: Mapping[str, Result] = {
    "accepted": accepted(),
    "busy": replied(451, "4.3.0 try again later"),
    "rejected": replied(554, "Message rejected: not wanted"),
    "too long": replied(552, "Message is too long."),
    "login": replied(535, "Authentication Credentials Invalid"),
    "policy": replied(554, "Access denied: not authorized"),
    "rate": replied(454, "Throttling failure: Maximum sending rate exceeded."),
    "quota": replied(454, "Throttling failure: Daily message quota exceeded."),
    "unreachable": replied(451, "4.4.1 no upstream", host=None),
    "lost": replied(451, "4.4.2 connection lost", uncertain=True),
}


class QueueMachine(RuleBasedStateMachine):
    """
    Mail goes in, SES answers as it likes, the process stops and starts; nothing gets lost.

    What SES took is counted for each recipient, whether we heard so or not. A message that was
    answered by silence once, or was out at a restart, may be there twice; no other may.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = TemporaryDirectory()
        self.clock = Clock()
        self.numbers = count()
        self.serials = count()
        self.wanted: set[str] = set()
        self.told_nobody: set[str] = set()
        self.taken: Counter[str] = Counter()
        self.bounced: dict[str, set[bytes]] = defaultdict(set)
        self.doubtful: set[str] = set()
        self.waiting: list[Carried] = []
        self.events: list[DeliveryEvent] = []
        self.takes_all = False
        self.open()

    # What happens.

    @rule(recipients=st.integers(1, 3), is_bounce=st.booleans(), is_large=st.booleans())
    def receive(self, recipients: int, is_bounce: bool, is_large: bool) -> None:
        number = next(self.numbers)
        addresses = [f"m{number}r{place}@example.net" for place in range(recipients)]
        envelope = to(*addresses, sender="" if is_bounce else "shop@example.com")
        data = b"Subject: x\r\n\r\n" + b"x" * (300_000 if is_large else 100) + b"\r\n"
        assert 250 == self.run(store(self.post.intake, data, envelope)).code
        self.wanted.update(addresses)
        if is_bounce:
            self.told_nobody.update(addresses)
        self.rest()

    @rule(name=st.sampled_from(sorted(ANSWERS)), was_taken=st.booleans(), data=st.data())
    def answer(self, name: str, was_taken: bool, data: st.DataObject) -> None:
        if not self.waiting:
            return
        place = data.draw(st.integers(0, len(self.waiting) - 1))
        carried, result = self.waiting.pop(place), ANSWERS[name]
        addresses = carried.envelope.addresses
        if data.draw(st.booleans()) and len(addresses) > 1:
            refused = {addresses[0]: ANSWERS[data.draw(st.sampled_from(["busy", "rejected"]))]}
            own = {address: answer.reply for address, answer in refused.items()}
            result = Result(result.reply, own, result.uncertain, result.host)
        if name == "accepted" or (name == "lost" and was_taken):
            self.take(carried, [each for each in addresses if each not in result.refused])
        if name == "lost":
            self.doubtful.update(addresses)
        carried.listener.transfer_done(result)
        self.rest()

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0, 70.0, 1300.0, 20 * HOUR]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.post.pass_time(seconds))

    @rule(was_taken=st.booleans())
    def restart(self, was_taken: bool) -> None:
        """As after a kill: what was out is not answered any more."""
        for carried in self.waiting:
            self.doubtful.update(carried.envelope.addresses)
            if was_taken:
                self.take(carried, carried.envelope.addresses)
        self.waiting.clear()
        self.close()
        self.open()

    # What must hold.

    @invariant()
    def totals_are_those_of_the_messages(self) -> None:
        counted = self.run(
            self.post.rows("SELECT state, count(*) AS n, sum(size) AS b FROM messages GROUP BY 1")
        )
        totals = {
            state.value: tuple(total)
            for state, total in self.run(self.post.spool.totals()).items()
            if total.messages
        }
        assert {row["state"]: (row["n"], row["b"]) for row in counted} == totals

    @invariant()
    def shares_are_those_of_the_apps(self) -> None:
        query = "SELECT app, bytes FROM shares WHERE bytes <> 0"
        counted = "SELECT app, sum(size) AS bytes FROM messages GROUP BY app"
        shares, sums = (self.run(self.post.rows(each)) for each in (query, counted))
        assert [tuple(row) for row in sums] == [tuple(row) for row in shares]

    @invariant()
    def nothing_is_taken_twice_without_a_doubt(self) -> None:
        for address, times in self.taken.items():
            assert times == 1 or address in self.doubtful, address

    def teardown(self) -> None:
        try:
            self.drain()
            self.judge()
        finally:
            self.close()
            self.loop.close()
            self.directory.cleanup()

    def judge(self) -> None:
        events = [*self.events, *self.post.events]
        dropped = sum(e.recipients for e in events if e.outcome is Ending.DROPPED)
        missing = self.wanted - set(self.taken) - set(self.bounced)
        assert len(missing & self.told_nobody) <= dropped
        # A bounce may itself become too old before it was ever tried.
        assert len(missing - self.told_nobody) <= 3 * dropped
        assert not self.told_nobody & set(self.bounced)
        for address, serials in self.bounced.items():
            assert 1 == len(serials), address
            assert not self.taken[address] or address in self.doubtful, address

    # How it is done.

    def drain(self) -> None:
        self.takes_all = True
        for carried in self.waiting:
            self.take(carried, carried.envelope.addresses)
            carried.listener.transfer_done(accepted())
        self.waiting.clear()
        for _ in range(60):
            self.run(self.post.pass_time(1500.0))
            if not self.run(self.post.rows()):
                return
        raise AssertionError("the queue does not become empty")

    def script(self, carried: Carried) -> Result | None:
        if carried.data.startswith(b"bounce "):
            _word, serial, *failed = bytes(carried.data).split()
            for address in failed:
                self.bounced[address.decode()].add(serial)
        if self.takes_all:
            self.take(carried, carried.envelope.addresses)
            return accepted()
        self.waiting.append(carried)
        return None

    def take(self, carried: Carried, addresses: Iterable[str]) -> None:
        if not carried.data.startswith(b"bounce "):
            self.taken.update(addresses)

    def write_bounce(
        self, _envelope: Envelope, _header: bytes, failures: Mapping[str, Reply], **_rest: Any
    ) -> bytes:
        return f"bounce {next(self.serials)} {' '.join(failures)}\r\n".encode()

    def open(self) -> None:
        async def open_it() -> Any:
            return open_post(
                Path(self.directory.name) / "q",
                self.script,
                clock=self.clock,
                limits=DeliveryLimits(max_in_flight=4),
                bounce=self.write_bounce,
            )

        self.post = self.run(open_it())
        self.rest()

    def close(self) -> None:
        self.run(self.post.close())
        self.events += self.post.events

    def rest(self) -> None:
        self.run(self.post.quiet())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)


QueueMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_nothing_is_lost_or_doubled = QueueMachine.TestCase

"""Trouble of the credential: quotas, refused logins, policies, an upstream that is not there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.queue import HOUR, Carried, Post, accepted, replied, store, to, with_post
from sesguard.relay.delivery import Ending
from sesguard.relay.pacing import NO_LIMIT, Pace
from sesguard.relay.spool import Origin
from sesguard.relay.verdict import Trouble, judge, retry_delay_s
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Outcome, classify

REFUSED = replied(535, "Authentication Credentials Invalid")
DENIED = replied(554, "Access denied: User is not authorized to perform ses:SendRawEmail")
ACCOUNT_PAUSED = replied(554, "Message rejected: Sending paused for this account.")
TOO_FAST = replied(454, "Throttling failure: Maximum sending rate exceeded.")
USED_UP = replied(454, "Throttling failure: Daily message quota exceeded.")
UNREACHABLE = replied(451, "4.4.1 no upstream answers", host=None)


class Switch:
    """A script whose answer can be changed."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def __call__(self, _carried: Carried) -> Result:
        return self.result


def from_(credential_id: str) -> Origin:
    return Origin("shop", 1001, credential_id)


@pytest.mark.parametrize("trouble", [REFUSED, ACCOUNT_PAUSED, UNREACHABLE])
def test_a_credential_in_trouble_is_probed_and_then_everything_goes(
    tmp_path: Path, trouble: Result
) -> None:
    """One message after 5 s, 10 s, 20 s; none counts as an attempt; after a success all are due."""
    switch = Switch(trouble)

    async def act(post: Post) -> None:
        await store(post.intake, envelope=to("0@example.net"), origin=from_("main"))
        await post.settled(1)
        post.clock.at -= 1
        for number in range(1, 20):
            await store(post.intake, envelope=to(f"{number}@example.net"))
        post.clock.at += 1
        await post.quiet()
        assert 1 == len(post.carrier.carried)
        for probes, delay_s in ((2, 5), (3, 10), (4, 20)):
            await post.pass_time(delay_s - 1)
            assert probes - 1 == len(post.carrier.carried)
            await post.pass_time(1)
            await post.settled(probes)
            assert probes == len(post.carrier.carried)
        assert 4 == len(set(post.ids()))
        assert {0} == {row["attempts"] for row in await post.rows()}
        switch.result = accepted()
        await post.pass_time(40)
        events = await post.settled(24)
        assert [Ending.DEFERRED] * 4 + [Ending.DELIVERED] * 20 == [e.outcome for e in events]

    with_post(tmp_path, act, switch)


def test_trouble_of_one_credential_is_not_that_of_another(tmp_path: Path) -> None:
    """The other one's mail goes out at once."""

    def script(carried: Carried) -> Result:
        return REFUSED if carried.credential_id == "bad" else accepted()

    async def act(post: Post) -> None:
        for number in range(5):
            await store(post.intake, origin=from_("bad"))
            await store(post.intake, envelope=to(f"{number}@good.example"), origin=from_("good"))
        await post.until(lambda: 5 == len([e for e in post.events if e.credential_id == "good"]))
        assert {Ending.DELIVERED} == {
            event.outcome for event in post.events if event.credential_id == "good"
        }

    with_post(tmp_path, act, script)


def test_many_in_flight_are_one_trouble(tmp_path: Path) -> None:
    """Twenty refusals of messages that went out together make the first pause no longer."""
    waiting: list[Carried] = []

    def script(carried: Carried) -> None:
        waiting.append(carried)

    async def act(post: Post) -> None:
        for _ in range(20):
            await store(post.intake)
        await post.until(lambda: len(waiting) == 20)
        for carried in waiting[:]:
            carried.listener.transfer_done(REFUSED)
        await post.settled(20)
        await post.pass_time(4.9)
        assert 20 == len(waiting)
        await post.pass_time(0.2)
        assert 21 == len(waiting)

    with_post(tmp_path, act, script)


def test_a_policy_against_one_sender_stops_no_other(tmp_path: Path) -> None:
    """It backs off alone from the first, bounces only after its time; others go at once."""

    def script(carried: Carried) -> Result:
        return DENIED if carried.envelope.sender == "ceo@example.com" else accepted()

    def of_the_ceo(post: Post) -> list[Ending]:
        return [event.outcome for event in post.events if event.sender == "ceo@example.com"]

    async def act(post: Post) -> None:
        await store(post.intake, envelope=to("a@example.net", sender="ceo@example.com"))
        await post.settled(1)
        for _ in range(5):
            await store(post.intake)
        await post.settled(6)
        assert [Ending.DELIVERED] * 5 == [event.outcome for event in post.events[1:]]
        [row] = await post.rows()
        assert (1, post.clock.at + 5) == (row["attempts"], row["next_attempt"])
        await post.pass_time(47 * HOUR)
        await post.until(lambda: [Ending.DEFERRED] * 2 == of_the_ceo(post))
        await post.pass_time(1 * HOUR)
        await post.until(lambda: Ending.BOUNCED in of_the_ceo(post))

    with_post(tmp_path, act, script)


@pytest.mark.parametrize("trouble", [REFUSED, UNREACHABLE, USED_UP])
def test_mail_bounces_for_our_credential_only_after_its_time(
    tmp_path: Path, trouble: Result
) -> None:
    """All that is too old bounces, also what was never tried; younger mail waits on."""

    def bounces(post: Post) -> int:
        return [event.outcome for event in post.events].count(Ending.BOUNCED)

    async def act(post: Post) -> None:
        for _ in range(4):
            await store(post.intake)
        await post.settled(1)
        for _ in range(10):
            await post.pass_time(4.7 * HOUR)
        assert 0 == bounces(post)
        await store(post.intake, envelope=to("young@example.net"))
        await post.pass_time(1.1 * HOUR)
        await post.pass_time(1)
        await post.until(lambda: bounces(post) == 4)
        rows = await post.rows("SELECT envelope FROM messages WHERE envelope LIKE '%young%'")
        assert 1 == len(rows)

    with_post(tmp_path, act, Switch(trouble))


def test_a_used_up_quota_is_tried_again_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    """Not before, whatever is queued meanwhile."""
    switch = Switch(USED_UP)

    async def act(post: Post) -> None:
        await store(post.intake)
        await post.settled(1)
        await store(post.intake)
        await post.pass_time(890)
        assert 1 == len(post.carrier.carried)
        switch.result = accepted()
        await post.pass_time(10)
        await post.settled(3)

    with_post(tmp_path, act, switch)


def test_over_the_rate_the_credential_is_slowed_down(tmp_path: Path) -> None:
    """To half of what it did; the message itself is not at fault, and goes next."""
    switch = Switch(accepted())

    async def act(post: Post) -> None:
        for _ in range(20):
            await store(post.intake)
        await post.settled(20)
        switch.result = TOO_FAST
        await store(post.intake)
        await post.settled(21)
        assert 0 == post.events[-1].attempts
        switch.result = accepted()
        for _ in range(30):
            await store(post.intake)
        await post.quiet()
        assert 21 == len(post.carrier.carried)
        await post.pass_time(1)
        await post.settled(31)
        await post.quiet()
        assert 31 == len(post.carrier.carried)
        await post.pass_time(1)
        await post.settled(41)

    with_post(tmp_path, act, switch)


def test_a_cut_rate_grows_and_is_forgotten() -> None:
    """By 2 % each second; without a limit again after ten minutes without such a reply."""
    pace = Pace()
    for _ in range(100):
        pace.begin(1, 0.0)
        pace.end()
    pace.note_trouble(Trouble.RATE, TOO_FAST.reply, 0.5)
    pace.note_trouble(Trouble.RATE, TOO_FAST.reply, 0.6)
    assert 0 == pace.allowance(0.5)
    assert 50 == pace.allowance(1.5)
    assert not pace.is_stopped
    for second in range(2, 37):
        pace.allowance(float(second))
    assert 95 <= pace.allowance(37.0) <= 110
    pace.note_trouble(Trouble.RATE, TOO_FAST.reply, 38.0)
    assert 45 <= pace.allowance(39.0) <= 55
    assert NO_LIMIT == pace.allowance(700.0)


def test_many_recipients_take_many_tokens() -> None:
    """SES counts recipients, so a message to fifty at one a second keeps the next for 50 s."""
    pace = Pace()
    pace.note_trouble(Trouble.RATE, TOO_FAST.reply, 10.0)
    assert 11.0 == pace.next_chance(10.0)
    assert 1 == pace.allowance(11.0)
    pace.begin(50, 11.0)
    assert 0 == pace.allowance(30.0)
    assert pace.allowance(61.0) >= 1


@pytest.mark.parametrize(
    ("result", "trouble", "refused", "later"),
    [
        (accepted(), None, 0, 0),
        (replied(451, "4.3.0 busy"), None, 0, 2),
        (replied(552, "Message is too long."), None, 2, 0),
        (replied(553, "address unknown"), None, 2, 0),
        (replied(554, "Message rejected: Email address is not verified."), None, 2, 0),
        (replied(554, "Transaction failed"), None, 2, 0),
        (REFUSED, Trouble.REFUSED, 0, 2),
        (replied(530, "Authentication required"), Trouble.REFUSED, 0, 2),
        (ACCOUNT_PAUSED, Trouble.REFUSED, 0, 2),
        (DENIED, None, 0, 2),
        (TOO_FAST, Trouble.RATE, 0, 2),
        (replied(421, "Too many concurrent SMTP connections"), Trouble.RATE, 0, 2),
        (USED_UP, Trouble.QUOTA, 0, 2),
        (UNREACHABLE, Trouble.UNREACHABLE, 0, 2),
        (replied(451, "connection lost", uncertain=True), None, 0, 2),
        (replied(451, "connection lost", uncertain=True, host=None), None, 0, 2),
    ],
)
def test_what_a_reply_means(
    result: Result, trouble: Trouble | None, refused: int, later: int
) -> None:
    """For the credential, and for both recipients."""
    verdict = judge(to("a@example.net", "b@example.net"), result)
    assert (trouble, refused, later) == (
        verdict.trouble,
        len(verdict.refused),
        len(verdict.later),
    )
    assert 2 - refused - later == len(verdict.delivered)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_recipient_is_forgotten(outcome: Outcome) -> None:
    """Each is delivered, refused or tried again, whatever the reply means."""
    reply = classify(250, "Ok")
    own = {"b@example.net": type(reply)(450, "x", outcome)}
    verdict = judge(to("a@example.net", "b@example.net"), Result(reply, own, host="h"))
    found = [r.address for r in verdict.delivered] + [*verdict.refused, *verdict.later]
    assert ["a@example.net", "b@example.net"] == sorted(found)


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 960.0), (0.5, 1200.0), (1.0, 1440.0)])
def test_late_retries_are_spread(chance: float, expected: float) -> None:
    """So that what failed together is not tried together."""
    give: Callable[[], float] = lambda: chance  # noqa: E731
    assert [5.0, 10.0, 30.0, pytest.approx(expected)] == [
        retry_delay_s(attempts, give) for attempts in (1, 2, 3, 4)
    ]


def test_an_old_message_that_probes_its_credential_is_not_given_up_too(tmp_path: Path) -> None:
    """When its time runs out with the credential stopped it is delivered or bounced, not both."""
    switch = Switch(REFUSED)

    async def act(post: Post) -> None:
        await store(post.intake, origin=from_("main"))
        await post.settled(1)
        await post.quiet()
        switch.result = accepted()
        await post.pass_time(49 * HOUR)
        await post.settled(2)
        await post.quiet()

        assert [Ending.DELIVERED] == [event.outcome for event in post.events[1:]]
        assert not any(carried.is_notice for carried in post.carrier.carried)

    with_post(tmp_path, act, switch)

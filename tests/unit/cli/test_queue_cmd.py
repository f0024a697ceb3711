"""sesguard queue: list, show, release, drop and flush, beside the daemon's own files."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.command_line import Cli
from rigs.queue import BODY, HOUR, Clock, accepted, id_of, open_post, replied, store, to
from sesguard.core.envelope import Envelope
from sesguard.relay.settling import Ending
from sesguard.relay.spool import Origin
from sesguard.relay.spool_table import PIECE_BYTES

NOBODY = 65534
Fill = Callable[..., list[str]]


@pytest.fixture
def spool(host: Path, config: Path) -> Path:
    """The directory of the queue that the settings name."""
    directory = host / "relay"
    text = config.read_text()
    if "[relay]" not in text:
        text += "\n[relay]\n"
    lines = [line for line in text.splitlines() if not line.startswith("spool_directory")]
    place = lines.index("[relay]") + 1
    lines.insert(place, f'spool_directory = "{directory}"')
    config.write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def fill(spool: Path) -> Fill:
    """Put messages into the queue; gives their ids."""

    def fill(
        *envelopes: Envelope,
        app: str = "shop",
        held: str | None = None,
        data: bytes = BODY,
        at: float | None = None,
    ) -> list[str]:
        async def act() -> list[str]:
            post = open_post(spool, starts=False, clock=None if at is None else Clock(at))
            origin = Origin(app, 1001, "main")
            replies = [
                await store(post.intake, data, envelope, origin=origin, held=held)
                for envelope in envelopes
            ]
            await post.close()
            return [id_of(reply) for reply in replies]

        return asyncio.run(act())

    return fill


def states(spool: Path) -> dict[str, int]:
    connection = sqlite3.connect(spool / "spool.db")
    rows = connection.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall()
    connection.close()
    return dict(rows)


def listed(cli: Cli, *options: str) -> list[dict[str, Any]]:
    done = cli("queue", "list", "--json", *options)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert 1 == answer["version"]
    messages: list[dict[str, Any]] = answer["messages"]
    return messages


def test_without_a_queue_there_is_nothing(cli: Cli, spool: Path) -> None:
    """Neither list nor flush fails, and no file is made."""
    assert [] == listed(cli)
    assert 0 == cli("queue", "flush").code
    assert 0 == cli("queue", "release", "--all-held").code
    done = cli("queue", "show", "1ZR8QX0T3K5")
    assert (2, True) == (done.code, "there is no message 1ZR8QX0T3K5" in done.err)
    assert 1 == cli("queue", "drop", "1ZR8QX0T3K5", "--yes").code
    assert not spool.exists()


def test_list_shows_what_waits_and_why(cli: Cli, fill: Fill) -> None:
    """The oldest first; of one app, only held, or a number of them."""
    first, second = fill(to("a@example.net", "b@example.net"), to("c@example.net", sender=""))
    [held] = fill(to("d@example.net"), app="blog", held="the sender \x1b[31mis not allowed")
    messages = listed(cli)
    assert [first, second, held] == [message["id"] for message in messages]
    times = [messages[0].pop(name) for name in ("received_at", "next_attempt_at")]
    assert times[0] == times[1] == "2026-11-18T11:06:40Z"
    assert {
        "id": first,
        "state": "queued",
        "app": "shop",
        "uid": 1001,
        "credential": "main",
        "sender": "shop@example.com",
        "recipients": ["a@example.net", "b@example.net"],
        "bytes": len(BODY),
        "released_at": None,
        "attempts": 0,
        "possible_duplicate": False,
        "hold_reason": None,
        "last_reply": None,
    } == messages[0]
    assert [held] == [message["id"] for message in listed(cli, "--held")]
    assert [held] == [message["id"] for message in listed(cli, "--app", "blog")]
    assert [first] == [message["id"] for message in listed(cli, "--limit", "1")]
    table = cli("queue", "list").out.splitlines()
    assert ["ID", "RECEIVED", "STATE"] == table[0].split()[:3]
    assert "a@example.net +1" in table[1]
    assert "<>" in table[2]
    assert "held" in table[3]
    assert "the sender \\x1b[31mis not allowed" in table[3]


def test_show_says_all_that_is_known(cli: Cli, fill: Fill) -> None:
    """For people and as JSON; an id is read in small letters too."""
    [held] = fill(to("a@example.net", "b@example.net"), held="rate")
    done = cli("queue", "show", held.lower())
    assert 0 == done.code
    assert ["to: <a@example.net>", "to: <b@example.net>"] == [
        line for line in done.out.splitlines() if line.startswith("to:")
    ]
    assert "held because: rate" in done.out
    assert "Thank you" not in done.out
    answer = json.loads(cli("queue", "show", held, "--json").out)
    assert (1, held) == (answer["version"], answer["message"]["id"])


def test_show_tells_of_the_last_reply_and_of_a_possible_duplicate(cli: Cli, spool: Path) -> None:
    """After an attempt whose answer was lost."""

    async def act() -> str:
        lost = replied(451, "connection lost", uncertain=True)
        post = open_post(spool, lambda _carried: lost)
        reply = await store(post.intake)
        await post.settled(1)
        await post.close()
        return id_of(reply)

    out = cli("queue", "show", asyncio.run(act())).out
    assert "last reply: 451 connection lost" in out
    assert "note: an earlier attempt may have delivered it" in out
    assert "attempts: 1" in out


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (BODY, BODY),
        (b"", b""),
        (b"..a\r\n...\r\nb.\r\n", b".a\r\n..\r\nb.\r\n"),
        (
            b"x" * (PIECE_BYTES - 1) + b"\r\n..y\r\n",
            b"x" * (PIECE_BYTES - 1) + b"\r\n.y\r\n",
        ),
        (b"x" * (PIECE_BYTES - 2) + b"\r\n..y\r\n", b"x" * (PIECE_BYTES - 2) + b"\r\n.y\r\n"),
        (b"x" * (PIECE_BYTES - 3) + b"\r\n..y\r\n", b"x" * (PIECE_BYTES - 3) + b"\r\n.y\r\n"),
    ],
)
def test_show_writes_the_message_itself(
    program: Cli, fill: Fill, host: Path, stored: bytes, shown: bytes
) -> None:
    """Without the doubled dots of SMTP, also between two pieces; and that is audited."""
    [message_id] = fill(to("a@example.net"), data=stored)
    done = program("queue", "show", message_id, "--body")
    assert 0 == done.code, done.err
    # Text mode has made "\r\n" a "\n".
    assert shown.decode().replace("\r\n", "\n") == done.out
    assert "queue-show-body" in "".join(path.read_text() for path in host.rglob("audit.log"))


def test_show_wants_one_form(cli: Cli, fill: Fill) -> None:
    """A message is not JSON."""
    [message_id] = fill(to("a@example.net"))
    assert 2 == cli("queue", "show", message_id, "--body", "--json").code


def test_release_lets_held_messages_go(cli: Cli, fill: Fill, spool: Path) -> None:
    """By id, by app, or all; what is not held is told."""
    ids = fill(*[to("a@example.net")] * 3, held="rate")
    fill(*[to("a@example.net")] * 2, app="blog", held="rate")
    assert 0 == cli("queue", "release", ids[0], ids[0]).code
    assert {"queued": 1, "held": 4} == states(spool)
    done = cli("queue", "release", ids[0], ids[1])
    assert (1, True) == (done.code, "1 of 2 messages were released" in done.err)
    assert 0 == cli("queue", "release", "--app", "blog").code
    assert {"queued": 4, "held": 1} == states(spool)
    assert 0 == cli("queue", "release", "--all-held").code
    assert {"queued": 5} == states(spool)


@pytest.mark.parametrize("choice", ["by id", "all of an app"])
def test_what_was_released_has_its_whole_time_before_it_bounces(
    cli: Cli, fill: Fill, spool: Path, choice: str
) -> None:
    """It is a year old: one 4xx and it waits, and `show` tells both times."""
    now = time.time()
    [message_id] = fill(to("a@example.net"), held="rate", at=now - 365 * 24 * HOUR)
    options = (message_id,) if choice == "by id" else ("--app", "shop")
    assert 0 == cli("queue", "release", *options).code
    lines = cli("queue", "show", message_id).out.splitlines()
    received, released = (line for line in lines if line.startswith(("received: ", "released: ")))
    assert received[-19:-15] < released[-19:-15]
    assert "Z" == listed(cli)[0]["released_at"][-1]

    async def act() -> list[Ending]:
        post = open_post(spool, lambda _carried: replied(451, "busy"), clock=Clock(now + 60))
        await post.settled(1)
        await post.pass_time(47 * HOUR)
        await post.settled(2)
        await post.pass_time(1.1 * HOUR)
        await post.settled(3)
        await post.close()
        return [event.outcome for event in post.events]

    assert [Ending.DEFERRED, Ending.DEFERRED, Ending.BOUNCED] == asyncio.run(act())[:3]


@pytest.mark.parametrize(
    "options", [(), ("--all-held", "--app", "shop"), ("1ZR8QX0T3K5", "--all-held")]
)
def test_release_wants_one_choice(cli: Cli, spool: Path, options: tuple[str, ...]) -> None:
    """Nothing, or two, is a wrong command line."""
    assert 2 == cli("queue", "release", *options).code


def test_drop_removes_for_good_after_asking(cli: Cli, fill: Fill, spool: Path) -> None:
    """With its text; nothing happens without a yes, and what is gone is told."""
    ids = fill(*[to("a@example.net")] * 2)
    assert 2 == cli("queue", "drop", ids[0]).code
    assert 2 == cli("queue", "drop").code
    assert {"queued": 2} == states(spool)
    assert 0 == cli("queue", "drop", ids[0], "--yes").code
    assert {"queued": 1} == states(spool)
    done = cli("queue", "drop", *ids, "--yes")
    assert (1, True) == (done.code, "1 of 2 messages were removed" in done.err)
    connection = sqlite3.connect(spool / "spool.db")
    assert [] == connection.execute("SELECT * FROM bodies").fetchall()
    connection.close()


def test_drop_removes_all_of_one_app_after_asking(cli: Cli, fill: Fill, spool: Path) -> None:
    """What waits and what is held, of that app only; off a terminal it wants --yes."""
    fill(*[to("a@example.net")] * 2)
    fill(to("a@example.net"), held="rate")
    [other] = fill(to("a@example.net"), app="blog")
    assert 2 == cli("queue", "drop", "--app", "shop").code
    assert 2 == cli("queue", "drop", other, "--app", "shop", "--yes").code
    assert 4 == len(listed(cli))
    assert "3 messages are removed" in cli("queue", "drop", "--app", "shop", "--yes").err
    assert [other] == [message["id"] for message in listed(cli)]


def test_what_is_done_to_many_is_audited_with_its_count(cli: Cli, fill: Fill, host: Path) -> None:
    """Release, flush and drop of an app, or of all."""
    fill(*[to("a@example.net")] * 3, held="rate")
    fill(to("a@example.net"), app="blog")
    for arguments in (
        ("release", "--app", "shop"),
        ("flush",),
        ("flush", "--app", "blog"),
        ("drop", "--app", "shop", "--yes"),
        ("release", "--all-held"),
    ):
        assert 0 == cli("queue", *arguments).code
    [log] = host.rglob("audit.log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [
        ("queue-release", "shop", 3),
        ("queue-flush", "*", 4),
        ("queue-flush", "blog", 1),
        ("queue-drop", "shop", 3),
        ("queue-release", "*", 0),
    ] == [(line["act"], line["app"], line["count"]) for line in lines if "count" in line]


def test_what_is_being_sent_is_neither_dropped_nor_released(cli: Cli, spool: Path) -> None:
    """The daemon has it in its hands."""

    async def act() -> None:
        post = open_post(spool, lambda _carried: None)
        message_id = id_of(await store(post.intake))
        await post.until(lambda: post.carrier.carried)
        drop = await asyncio.to_thread(cli, "queue", "drop", message_id, "--yes")
        release = await asyncio.to_thread(cli, "queue", "release", message_id)
        assert (1, 1) == (drop.code, release.code)
        assert ["sending"] == [message["state"] for message in listed(cli)]
        post.carrier.carried[0].listener.transfer_done(accepted())
        await post.settled(1)
        await post.close()

    asyncio.run(act())


def test_flush_makes_everything_due(cli: Cli, spool: Path) -> None:
    """Mail that waits for its next attempt goes at the daemon's next look; of one app, or all."""

    async def act() -> None:
        post = open_post(spool, lambda _carried: replied(451, "busy"), clock=Clock())
        for app in ("shop", "blog"):
            await store(post.intake, origin=Origin(app, 1, "main"))
        await post.settled(2)
        assert "1 messages are due now" in (await run("queue", "flush", "--app", "blog")).err
        assert "2 messages are due now" in (await run("queue", "flush")).err
        due = [row["next_attempt"] for row in await post.rows()]
        await post.close()
        assert due[0] == due[1]

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(cli, *arguments)

    asyncio.run(act())


def test_a_long_queue_is_changed_a_part_at_a_time(cli: Cli, fill: Fill, spool: Path) -> None:
    """Every message of it is."""
    fill(*[to("a@example.net")] * 2500, held="rate")
    assert "2500 messages go out now" in cli("queue", "release", "--all-held").err
    assert {"queued": 2500} == states(spool)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("is_running", [True, False])
def test_root_leaves_no_file_that_the_daemon_cannot_open(
    cli: Cli, fill: Fill, spool: Path, is_running: bool
) -> None:
    """Each file stays, or becomes, the owner's, whether the daemon has the queue open or not."""
    fill(to("a@example.net"), held="rate")
    for path in (spool, *spool.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    for parent in spool.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and parent != spool:
            parent.chmod(parent.stat().st_mode | 0o055)
    other = sqlite3.connect(spool / "spool.db")
    if is_running:
        other.execute("SELECT count(*) FROM messages").fetchall()
        for path in spool.iterdir():
            os.chown(path, NOBODY, NOBODY)
    assert 1 == len(listed(cli))
    assert 0 == cli("queue", "release", "--all-held").code
    assert {NOBODY} == {path.stat().st_uid for path in spool.iterdir()}
    assert {NOBODY} == {path.stat().st_gid for path in spool.iterdir()}
    assert (0, 0) == (os.geteuid(), os.getegid())
    other.close()
    assert 0 == cli("queue", "flush").code
    assert {NOBODY} == {path.stat().st_uid for path in spool.iterdir()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_told_to_be_root(cli: Cli, fill: Fill, spool: Path) -> None:
    """The directory is the daemon's alone."""
    fill(to("a@example.net"))
    spool.chmod(0o700)
    for parent in spool.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        done = cli("queue", "list")
    finally:
        os.seteuid(0)
    assert (4, True) == (done.code, "hint: run this as root" in done.err)


def test_a_broken_queue_is_told(cli: Cli, spool: Path) -> None:
    """A file that is no database is a fault that a person must look at."""
    spool.mkdir(parents=True)
    (spool / "spool.db").write_text("no database " * 100)
    done = cli("queue", "list")
    assert (4, True) == (done.code, "spool.db" in done.err)

"""Tests of `sesguard.daemon.log`."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.daemon.log import JsonLog, LookupLog, printable, reserve_standard_descriptors
from sesguard.lookup.model import LookupEvent, Outcome, Reason
from sesguard.system.peers import Peer

EVENT = LookupEvent(
    Outcome.GRANTED,
    "exim",
    Peer(4711, 102, 105),
    host="email-smtp.us-east-1.amazonaws.com",
    sender="a@example.org",
    message_id="1xVhDU-1",
    cipher="TLS1.3",
    credential_id="main",
    version=3,
)
REFUSED = LookupEvent(Outcome.REFUSED, "exim", Peer(4711, 102, 105), Reason.MALFORMED, "no form")


class Recorder:
    """A log in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.log = JsonLog(self.descriptor)

    def entries(self) -> list[dict[str, object]]:
        """The lines so far."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A log in a file."""
    recorder = Recorder(tmp_path / "log")
    yield recorder
    os.close(recorder.descriptor)


def test_a_grant_is_one_line_with_everything_but_the_secret(recorder: Recorder) -> None:
    """Who, what for, which version."""
    LookupLog(recorder.log)(EVENT)

    (entry,) = recorder.entries()
    assert str(entry.pop("time")).endswith("Z")
    assert {
        "event": "lookup.granted",
        "protocol": "exim",
        "peer_uid": 102,
        "peer_pid": 4711,
        "credential": "main",
        "version": 3,
        "host": "email-smtp.us-east-1.amazonaws.com",
        "sender": "a@example.org",
        "message_id": "1xVhDU-1",
        "cipher": "TLS1.3",
    } == entry


def test_a_refusal_tells_the_reason_in_a_word_and_in_words(recorder: Recorder) -> None:
    """Without fields that have no value."""
    LookupLog(recorder.log)(replace(REFUSED, peer=None))

    (entry,) = recorder.entries()
    del entry["time"]
    assert {
        "event": "lookup.refused",
        "protocol": "exim",
        "reason": "malformed_request",
        "detail": "no form",
    } == entry


@given(st.text(max_size=5000) | st.text(alphabet='\\"\n\r\x1b\0\u2028\U0001f600', max_size=600))
def test_hostile_text_stays_one_bounded_line_of_ascii(text: str) -> None:
    """Law: whatever a client sends in every field, one line is one object of at most 4096 bytes."""
    reading, writing = os.pipe()
    try:
        log = JsonLog(writing)
        LookupLog(log)(
            LookupEvent(
                Outcome.REFUSED,
                "exim",
                Peer(2**31 - 1, 2**31 - 1, 0),
                Reason.TOO_MANY_CONNECTIONS,
                detail=text,
                host=text,
                sender=text,
                message_id=text,
                cipher=text,
                credential_id=text,
            )
        )
        line = os.read(reading, 65536)
    finally:
        os.close(reading)
        os.close(writing)

    assert 1 == line.count(b"\n")
    assert len(line) <= 4096
    assert line[:-1].decode("ascii").isprintable()
    assert printable(text) == json.loads(line)["sender"]
    assert 0 == log.lost


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u2028\xe9", r"\u2028\xe9"),
        ('it\'s "x"\n', 'it\\\'s "x"\\n'),
        ("x" * 300, "x" * 253 + "..."),
    ],
)
def test_text_is_made_printable(text: str, expected: str) -> None:
    """Other characters are written as escapes; long text is cut."""
    assert expected == printable(text)


def test_outcomes_are_counted_and_control_is_not(recorder: Recorder) -> None:
    """The status asks for lookups, not for itself."""
    lookups = LookupLog(recorder.log)
    for event in (EVENT, EVENT, REFUSED, replace(REFUSED, protocol="control")):
        lookups(event)

    assert {Outcome.GRANTED: 2, Outcome.REFUSED: 1} == lookups.counts


def test_a_flood_of_refusals_is_summed_up(recorder: Recorder) -> None:
    """One reason does not use up the lines of another, and grants are never left out."""
    now = [0.0]
    lookups = LookupLog(recorder.log, lambda: now[0])
    for _ in range(1000):
        lookups(REFUSED)
    lookups(replace(REFUSED, reason=Reason.NO_TLS))
    for _ in range(200):
        lookups(EVENT)
    now[0] = 1.0
    for _ in range(20):
        lookups(REFUSED)

    entries = recorder.entries()
    malformed = [entry for entry in entries if entry.get("reason") == "malformed_request"]
    assert 110 == len(malformed)
    assert [900] == [entry["left_out"] for entry in malformed if "left_out" in entry]
    assert 1 == len([entry for entry in entries if entry.get("reason") == "no_tls"])
    assert 200 == len([entry for entry in entries if entry["event"] == "lookup.granted"])
    assert 1021 == lookups.counts[Outcome.REFUSED]


def test_a_line_that_cannot_be_written_is_counted() -> None:
    """A full disk, a reader that is gone, a closed descriptor."""
    full = os.open("/dev/full", os.O_WRONLY)
    reading, gone = os.pipe()
    os.close(reading)
    logs = [JsonLog(full), JsonLog(gone)]
    for log in logs:
        log.write("test")
    os.close(full)
    os.close(gone)
    for log in logs:
        log.write("test")

    assert [2, 2] == [log.lost for log in logs]


def test_a_reader_that_hangs_is_not_waited_for() -> None:
    """The pipe takes what it can; the rest is lost, and the call comes back."""
    reading, writing = os.pipe()
    log = JsonLog(writing)
    for _ in range(2000):
        log.write("test", text="x" * 200)
    os.set_blocking(reading, False)
    taken = os.read(reading, 1 << 20)
    log.write("again")
    os.close(reading)
    os.close(writing)

    assert 2000 == log.lost + taken.count(b"\n")
    assert log.lost > 0


def test_a_closed_standard_descriptor_is_filled() -> None:
    """Otherwise the next socket would get its number, and the log would be written to a client."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(0)
            os.close(2)
            reserve_standard_descriptors()
            code = 0 if {os.readlink(f"/proc/self/fd/{n}") for n in (0, 2)} == {"/dev/null"} else 2
        finally:
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""Tests of `sesguard.daemon.control`."""

import json
from typing import Any

import pytest

from sesguard.daemon.build import open_source
from sesguard.daemon.control import MAX_REQUEST_BYTES, ControlDialogue, StatusReport
from sesguard.daemon.log import JsonLog, LookupLog
from sesguard.lookup.model import LookupEvent, Outcome
from sesguard.system.peers import Peer

PEER = Peer(1, 0, 0)


def nobody() -> None:
    """The numbers of a relay that is not served."""


def _ask(request: bytes) -> Any:
    answer = ControlDialogue(lambda: {"pid": 4711}, lambda: "").answer(bytearray(request), PEER)
    assert answer is not None
    assert answer.close
    assert b"\n" == answer.data[-1:]
    return json.loads(answer.data)


def test_status_is_answered_by_one_object() -> None:
    """With the version of the format."""
    assert {"version": 1, "pid": 4711} == _ask(b"status\n")


@pytest.mark.parametrize(
    "request_", [b"\n", b"help\n", b"status", b"status\nstatus\n", b"\xff" * 100, b" status\n"]
)
def test_anything_else_is_an_error_in_the_same_form(request_: bytes) -> None:
    """A newline or too many bytes end a request."""
    padded = request_ if b"\n" in request_ else request_.ljust(MAX_REQUEST_BYTES + 1)

    assert {"version": 1, "error": "unknown request"} == _ask(padded)


def test_metrics_are_text_for_prometheus() -> None:
    """As they are, without a format version."""
    dialogue = ControlDialogue(dict, lambda: "a 1\n")

    answer = dialogue.answer(bytearray(b"metrics\n"), PEER)

    assert answer is not None
    assert (b"a 1\n", True) == (answer.data, answer.close)


def test_part_of_a_request_is_waited_for() -> None:
    """Up to the limit."""
    dialogue = ControlDialogue(dict, str)

    assert dialogue.answer(bytearray(b"stat"), PEER) is None
    assert dialogue.answer(bytearray(MAX_REQUEST_BYTES), PEER) is None


def test_a_credential_without_a_current_version_is_listed(host: Any) -> None:
    """Its name, and nothing else."""
    host.vault.update("main", lambda credential: type(credential)("main", next_number=9))
    log = JsonLog()

    report = StatusReport(open_source(host.settings, log), LookupLog(log), log, nobody).describe()

    assert [
        {
            "id": "main",
            "current_version": None,
            "username": None,
            "exposed": None,
            "created_at": None,
        }
    ] == report["credentials"]


def test_a_vault_of_which_nothing_can_be_read_is_a_problem_in_the_status(host: Any) -> None:
    """The status is answered in any case."""
    log = JsonLog()
    source = open_source(host.settings, log)
    empty = type(source)(host.vault)
    for path in (host.directory / "vault").iterdir():
        path.unlink()

    report = StatusReport(empty, LookupLog(log), log, nobody).describe()

    assert [] == report["credentials"]
    assert isinstance(report["vault"], dict)
    assert report["vault"]["generation"] is None
    assert "there is no vault" in report["vault"]["problem"]


def test_the_last_grant_of_each_version_is_told(host: Any) -> None:
    """A version is listed once, with the time of its newest grant; refusals are not."""
    log = JsonLog()
    lookups = LookupLog(log)
    for number in (1, 2, 1):
        lookups(LookupEvent(Outcome.GRANTED, "exim", credential_id="ses", version=number))
    lookups(LookupEvent(Outcome.REFUSED, "exim", credential_id="ses"))
    grants = StatusReport(open_source(host.settings, log), lookups, log, nobody).describe()[
        "grants"
    ]

    assert isinstance(grants, list)
    assert [("ses", 2), ("ses", 1)] == [
        (each["credential"], each["credential_version"]) for each in grants
    ]
    assert grants[0]["at"] <= grants[1]["at"]

"""Tests of `sesguard.lookup.desk`."""

from collections.abc import Callable
from typing import Any

import pytest

from sesguard.errors import CredentialError, SystemFault, VaultTampered
from sesguard.lookup.model import Grant, Question, Reason, Refused
from sesguard.system.peers import Peer

PEER = Peer(1, 2, 3)
US = "email-smtp.us-east-1.amazonaws.com"


def _name(grant: Grant) -> bytes:
    return f"{grant.credential_id}/{grant.version.number}".encode()


def test_the_version_is_read_for_each_question(counter: Callable[..., Any]) -> None:
    """A rotation shows in the very next answer."""
    made = counter("exim")

    assert b"main/1" == made.desk.reveal_answer(Question(host=US), PEER, _name)
    made.source.put("main", 2, "AKIANEW0000000000000", "new-password")
    assert b"main/2" == made.desk.reveal_answer(Question(host=US), PEER, _name)


def test_other_rules_count_from_the_next_question_on(counter: Callable[..., Any]) -> None:
    """As after a reload of the settings."""
    made = counter("exim")
    made.desk.update((), require_tls=False)

    with pytest.raises(Refused):
        made.desk.reveal_answer(Question(credential="main"), PEER, _name)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (CredentialError("gone"), Reason.NO_CREDENTIAL),
        (VaultTampered("changed"), Reason.VAULT),
        (SystemFault("cannot read"), Reason.VAULT),
    ],
)
def test_every_error_of_ours_is_a_refusal_with_one_event(
    counter: Callable[..., Any], problem: Exception, reason: Reason
) -> None:
    """The event has the reason as a word and in words."""
    made = counter("exim")
    made.source.problem = problem

    with pytest.raises(Refused) as caught:
        made.desk.reveal_answer(Question(host=US, cipher="x"), PEER, _name)

    assert reason is caught.value.reason
    assert [(reason, str(problem), US)] == [(e.reason, e.detail, e.host) for e in made.events]


def test_a_question_that_tells_nothing_about_tls_is_not_refused_for_it(
    counter: Callable[..., Any],
) -> None:
    """Only an empty cipher says "no TLS"; Postfix never tells."""
    desk = counter("postfix").desk

    assert b"main/1" == desk.reveal_answer(Question(host=US), PEER, _name)
    with pytest.raises(Refused, match="no TLS"):
        desk.reveal_answer(Question(host=US, cipher=""), PEER, _name)


@pytest.mark.parametrize(("sender", "expected"), [("a@shop.example", True), ("a@x", False)])
def test_a_sender_is_ours_when_a_rule_names_the_domain(
    counter: Callable[..., Any], sender: str, expected: bool
) -> None:
    """Rules for everybody do not count."""
    assert expected is counter("postfix").desk.is_our_sender(sender)

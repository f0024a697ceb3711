"""Credentials, their versions and labels: tests of `sesguard.core.credential`."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sesguard.core.credential import (
    Credential,
    CredentialVersion,
    StagingLabel,
    require_credential_id,
)
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError
from unit.core.generated import HOST, PASSWORD, USER

CURRENT, PENDING, PREVIOUS = StagingLabel.CURRENT, StagingLabel.PENDING, StagingLabel.PREVIOUS
EU = "email-smtp.eu-west-1.amazonaws.com"


def version(number: int, **passwords: str) -> CredentialVersion:
    """A version with a password for us-east-1, or with the given ones."""
    named = {name.replace("_", "-"): Secret(value) for name, value in passwords.items()}
    return CredentialVersion(
        number, USER, named or {"us-east-1": Secret(PASSWORD)}, "2026-01-01T00:00:00Z", "test"
    )


def with_labels(**labels: int) -> Credential:
    """Three versions, labelled."""
    numbers = {StagingLabel[name]: number for name, number in labels.items()}
    return Credential("main", (version(1), version(2), version(3)), numbers, 4)


def test_the_password_is_the_one_of_the_hosts_region() -> None:
    """A version holds one for each region."""
    both = version(1, us_east_1="one", eu_west_1="two")
    assert ["one", "two"] == [both.password_for(host).reveal() for host in (HOST, EU)]


def test_a_host_without_a_region_gets_the_only_password() -> None:
    """A sandbox or a private DNS name says nothing about the region."""
    assert PASSWORD == version(1).password_for("localhost").reveal()


@pytest.mark.parametrize(
    ("passwords", "host", "regions"),
    [
        ({"us_east_1": "one"}, EU, "us-east-1"),
        ({"us_east_1": "one", "eu_west_1": "two"}, "localhost", "us-east-1, eu-west-1"),
    ],
)
def test_no_password_is_guessed(passwords: dict[str, str], host: str, regions: str) -> None:
    """The error says which host was asked for and which regions there are, not the passwords."""
    with pytest.raises(CredentialError) as caught:
        version(7, **passwords).password_for(host)
    assert f"version 7 has no SMTP password for {host}; it has {regions}" == str(caught.value)


def test_a_version_without_passwords_says_so() -> None:
    """It can be in a damaged vault only."""
    empty = CredentialVersion(1, USER, {}, "2026-01-01T00:00:00Z", "test")
    with pytest.raises(CredentialError, match="it has none"):
        empty.password_for("localhost")


def test_a_version_does_not_show_its_passwords() -> None:
    """Neither alone nor in its credential."""
    assert PASSWORD not in f"{version(1)!r} {with_labels(CURRENT=1)!r}"


def test_a_new_version_goes_through_pending_and_current_to_previous() -> None:
    """The path of a rotation."""
    one = Credential("main").add_pending(version(1))
    assert {PENDING: 1} == one.labels
    one = one.promote()
    assert {CURRENT: 1} == one.labels
    two = one.add_pending(version(2)).promote()
    assert {CURRENT: 2, PREVIOUS: 1} == two.labels
    three = two.add_pending(version(3)).promote()
    assert {CURRENT: 3, PREVIOUS: 2} == three.labels
    assert (1, None) == (three.version(1).number, three.label_of(1))


def test_demote_undoes_promote() -> None:
    """The roll-back of a rotation step gives the labels of before."""
    before = Credential("main").add_pending(version(1)).promote().add_pending(version(2))
    assert before == before.promote().demote()


def test_a_dropped_number_is_not_used_again() -> None:
    """A sealed record of the old version can never pass for the new one."""
    one = Credential("main").add_pending(version(1)).drop(1)
    assert ((), {}, 2) == (one.versions, one.labels, one.next_number)
    with pytest.raises(CredentialError, match="the next version of credential main is 2, not 1"):
        one.add_pending(version(1))


def test_current_is_the_version_in_use() -> None:
    """And `labelled` gives any of them, or None."""
    credential = with_labels(CURRENT=2, PREVIOUS=1)
    assert 2 == credential.current().number
    assert [1, None] == [
        None if found is None else found.number
        for found in (credential.labelled(PREVIOUS), credential.labelled(PENDING))
    ]


ILLEGAL: dict[str, tuple[str, Callable[[], object]]] = {
    "no such version": ("credential main has no version 9", lambda: with_labels().version(9)),
    "drop nothing": ("credential main has no version 9", lambda: with_labels().drop(9)),
    "drop current": (
        "version 1 of credential main is CURRENT and cannot be dropped",
        lambda: with_labels(CURRENT=1).drop(1),
    ),
    "no current": ("credential main has no CURRENT version", lambda: with_labels().current()),
    "held": (
        "the mail of credential main is held, because its key leaked",
        lambda: with_labels(CURRENT=1).hold().current(),
    ),
    "nothing at all": (
        "credential main has no CURRENT version",
        lambda: Credential("main").current(),
    ),
    "replace nothing": (
        "credential main has no version 9",
        lambda: with_labels().with_version(version(9)),
    ),
    "two pending": (
        "credential main already has a PENDING version",
        lambda: with_labels(PENDING=3).add_pending(version(4)),
    ),
    "promote nothing": (
        "credential main has no PENDING version",
        lambda: with_labels(CURRENT=1).promote(),
    ),
    "demote nothing": (
        "credential main has no PREVIOUS version",
        lambda: with_labels(CURRENT=1).demote(),
    ),
    "demote onto pending": (
        "credential main already has a PENDING version",
        lambda: with_labels(CURRENT=2, PREVIOUS=1, PENDING=3).demote(),
    ),
    "label without version": (
        "the labels of credential main do not fit its versions",
        lambda: with_labels(CURRENT=9),
    ),
    "two labels on one version": (
        "the labels of credential main do not fit its versions",
        lambda: with_labels(CURRENT=1, PREVIOUS=1),
    ),
    "numbers out of order": (
        "the version numbers of credential main are not in order",
        lambda: Credential("main", (version(2), version(1)), {}, 3),
    ),
    "number twice": (
        "the version numbers of credential main are not in order",
        lambda: Credential("main", (version(1), version(1)), {}, 3),
    ),
    "number to come": (
        "the version numbers of credential main are not in order",
        lambda: Credential("main", (version(3),), {}, 3),
    ),
    "number zero": (
        "the version numbers of credential main are not in order",
        lambda: Credential("main", (version(0),), {}, 3),
    ),
    "bad name": ("'Main' cannot name a credential", lambda: Credential("Main")),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_an_illegal_state_or_transition_is_refused(case: str) -> None:
    """The message names the credential and what is wrong."""
    message, act = ILLEGAL[case]
    with pytest.raises(CredentialError) as caught:
        act()
    assert message == str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "main", "shop-eu_2", "a" * 63])
def test_a_name_of_small_letters_digits_and_two_signs_is_taken(name: str) -> None:
    """It may stand in a file name and in a message."""
    assert name == require_credential_id(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "_a", "A", "a.b", "../a", "a/b", "a b", "a\n", "é", "a" * 64, "٣"]
)
def test_any_other_name_is_refused(name: str) -> None:
    """No dot, slash, blank or capital."""
    with pytest.raises(CredentialError, match="cannot name a credential"):
        require_credential_id(name)


class Rotation(RuleBasedStateMachine):
    """Transitions in any order, beside a model that only remembers which numbers were given out."""

    @initialize()
    def begin(self) -> None:
        """Nothing yet."""
        self.credential = Credential("main")
        self.given: list[int] = []

    @precondition(lambda self: PENDING not in self.credential.labels)
    @rule()
    def add(self) -> None:
        """A new version gets a number that none ever had."""
        number = self.credential.next_number
        assert number not in self.given
        self.given.append(number)
        self.credential = self.credential.add_pending(version(number))
        assert number == self.credential.labels[PENDING]

    @precondition(lambda self: PENDING in self.credential.labels)
    @rule()
    def promote(self) -> None:
        """PENDING is CURRENT afterwards and CURRENT is PREVIOUS; `demote` would undo it."""
        before = self.credential
        self.credential = before.promote()
        assert before.labels[PENDING] == self.credential.labels[CURRENT]
        if CURRENT in before.labels:
            assert before.labels[CURRENT] == self.credential.labels[PREVIOUS]
            undone = self.credential.demote()
            assert before.labels[PENDING] == undone.labels[PENDING]
            assert before.labels[CURRENT] == undone.labels[CURRENT]

    @precondition(lambda self: self._may_demote())
    @rule()
    def demote(self) -> None:
        """PREVIOUS is CURRENT again."""
        before = self.credential
        self.credential = before.demote()
        assert before.labels[PREVIOUS] == self.credential.labels[CURRENT]

    @precondition(lambda self: self.credential.versions)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Every version but CURRENT can go, and its label goes with it."""
        numbers = [item.number for item in self.credential.versions]
        number = data.draw(st.sampled_from(numbers))
        if number == self.credential.labels.get(CURRENT):
            with pytest.raises(CredentialError):
                self.credential.drop(number)
        else:
            self.credential = self.credential.drop(number)
            assert number not in self.credential.labels.values()

    @invariant()
    def labels_fit(self) -> None:
        """Each label is on one version that exists, and no version has two."""
        numbers = [item.number for item in self.credential.versions]
        labelled = list(self.credential.labels.values())
        assert sorted(set(numbers)) == numbers
        assert len(set(labelled)) == len(labelled)
        assert set(labelled) <= set(numbers) <= set(self.given)
        for label, number in self.credential.labels.items():
            assert self.credential.label_of(number) is label

    def _may_demote(self) -> bool:
        return PREVIOUS in self.credential.labels and PENDING not in self.credential.labels


TestRotation = Rotation.TestCase
TestRotation.settings = settings(max_examples=60, stateful_step_count=30)

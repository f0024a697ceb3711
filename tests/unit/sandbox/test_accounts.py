"""Which keys work, with the delays of IAM: over a list of keys and a clock of the test's own."""

from collections.abc import Sequence

import pytest

from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.sandbox.accounts import Accounts
from sesguard.sandbox.backends import MotoKey
from sesguard.sandbox.model import SandboxSettings

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
PASSWORD = derive_smtp_password(SECRET_KEY, "us-east-1")


class Iam:
    """An IAM with one user, whose keys and time the test changes."""

    def __init__(self, **settings: float) -> None:
        self.now = 1000.0
        self.keys: list[MotoKey] = []
        self.accounts = Accounts(
            lambda: SandboxSettings(**settings),  # type: ignore[arg-type]
            lambda: self.now,
            self.list_keys,
        )

    def list_keys(self) -> Sequence[MotoKey]:
        """What moto would say."""
        return self.keys

    def have(self, *states: bool) -> None:
        """One key for each state (active or not), and nothing else."""
        self.keys = [
            MotoKey(f"{KEY_ID[:-1]}{index}", SECRET_KEY, active, "alice", "arn:alice")
            for index, active in enumerate(states)
        ]
        self.accounts.observe()

    def works(self) -> bool:
        """Whether the first key logs in."""
        return self.accounts.authenticate(f"{KEY_ID[:-1]}0", PASSWORD) is not None


def test_a_key_works_at_once_without_delays() -> None:
    """Both the beginning and the end of a key's life take effect at once by default."""
    iam = Iam()
    iam.have(True)
    before = iam.works()
    iam.have()

    assert before
    assert not iam.works()


def test_a_new_key_works_after_the_delay() -> None:
    """A new key is refused until the delay is over."""
    iam = Iam(new_key_delay_s=15.0)
    iam.have(True)

    results = []
    for iam.now in (1000.0, 1014.9, 1015.0, 2000.0):
        results.append(iam.works())
    assert [False, False, True, True] == results


@pytest.mark.parametrize("states", [(False,), ()])
def test_a_retired_key_works_for_the_delay(states: tuple[bool, ...]) -> None:
    """A key that is deactivated or deleted is accepted until the delay is over."""
    iam = Iam(retired_key_delay_s=4.0)
    iam.have(True)
    iam.now = 1100.0
    iam.have(*states)

    results = []
    for iam.now in (1100.0, 1103.9, 1104.0):
        results.append(iam.works())
    assert [True, True, False] == results


def test_a_key_that_is_retired_before_it_works_never_works() -> None:
    """The end overtakes the beginning."""
    iam = Iam(new_key_delay_s=15.0, retired_key_delay_s=2.0)
    iam.have(True)
    iam.now = 1005.0
    iam.have(False)

    results = []
    for iam.now in (1006.0, 1015.0, 1020.0):
        results.append(iam.works())
    assert [False, False, False] == results


def test_a_key_that_is_activated_again_within_the_delay_never_stops() -> None:
    """Deactivation and reactivation in quick succession go unnoticed."""
    iam = Iam(new_key_delay_s=1.0, retired_key_delay_s=10.0)
    iam.have(True)
    iam.now = 1100.0
    iam.have(False)
    iam.now = 1102.0
    iam.have(True)

    results = []
    for iam.now in (1102.0, 1103.0, 1110.0, 1200.0):
        results.append(iam.works())
    assert [True, True, True, True] == results


def test_one_key_of_two_is_retired() -> None:
    """Keys are told apart."""
    iam = Iam()
    iam.have(False, True)

    assert not iam.works()
    assert iam.accounts.authenticate(f"{KEY_ID[:-1]}1", PASSWORD) is not None


def test_a_key_that_never_was_is_not_known() -> None:
    """The three answers: works, does not work, is none of ours."""
    iam = Iam()
    iam.have(True, False)

    assert iam.accounts.key_works(f"{KEY_ID[:-1]}0") is True
    assert iam.accounts.key_works(f"{KEY_ID[:-1]}1") is False
    assert iam.accounts.key_works("AKIAIOSFODNN7EXAMPLE") is None
    assert iam.accounts.find_principal("AKIAIOSFODNN7EXAMPLE") is None


def test_a_deleted_key_still_has_its_user() -> None:
    """The trail can say whose key a deleted one was."""
    iam = Iam()
    iam.have(True)
    iam.have()

    principal = iam.accounts.find_principal(f"{KEY_ID[:-1]}0")
    assert principal is not None
    assert principal.user_name == "alice"


def test_a_secret_that_cannot_be_a_key_never_logs_in() -> None:
    """A key whose secret has not the form of one is refused, without an exception."""
    iam = Iam()
    iam.keys = [MotoKey(KEY_ID, Secret("short"), True, "alice", "arn:alice")]

    assert iam.accounts.authenticate(KEY_ID, PASSWORD) is None


def test_clearing_forgets_every_key() -> None:
    """After a reset no key is known."""
    iam = Iam()
    iam.have(True)
    iam.accounts.clear()

    assert iam.accounts.key_works(f"{KEY_ID[:-1]}0") is None

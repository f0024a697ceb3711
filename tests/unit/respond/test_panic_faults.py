"""
Each AWS call of panic x each fault: the leaked key is dead, or the command says that it is not.

The calls are those that a clean panic makes, so that a new one is covered by itself. The session
repeats nothing, so each fault reaches our code.
"""

from collections.abc import Callable

import pytest

from rigs.rotating_host import NAME, RotatingHost, calls_of, one_attempt
from rigs.sandbox import Login
from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import StagingLabel
from sesguard.errors import Error
from sesguard.respond.evidence import COLLECTORS
from sesguard.respond.incident import IncidentState
from sesguard.respond.playbook import Response
from sesguard.sandbox.model import ApiFaultKind

NewHost = Callable[..., RotatingHost]
EFFECTS = ("Create", "Put", "Update", "Delete", "Tag", "Attach", "Add")
"""What the names of calls that change something begin with."""


def panic_calls(new_host: NewHost) -> list[tuple[str, int]]:
    """Each call of a panic: its name and how many such came before."""
    host = new_host()
    names = calls_of(one_attempt(host.rig), host.panic)
    assert {"iam:UpdateAccessKey", "iam:PutUserPolicy", "iam:CreateUser"} < set(names)
    return [(name, names[:index].count(name)) for index, name in enumerate(names)]


def try_to_panic(host: RotatingHost) -> Response | Error:
    """What it came to."""
    try:
        return host.panic()
    except Error as error:
        return error


def require_held_or_over(host: RotatingHost, stolen: Login, result: Response | Error) -> None:
    """The key is dead and mail flows with a new one, or mail is held and that is said."""
    alive = host.can_send(stolen)
    current = host.current()
    assert current is None or current.username != stolen.user
    if isinstance(result, Error):
        assert 4 == result.exit_code
        assert not alive or host.incidents()[0].state is IncidentState.OPEN
    else:
        assert not alive
        assert IncidentState.RECOVERED is result.incident.record.state
    if current is not None:
        assert host.logs_in()


def require_recovered(host: RotatingHost, stolen: Login) -> None:
    """All is well: one incident, a working key of a new user, and not one key too many."""
    (record,) = host.incidents()
    assert IncidentState.RECOVERED is record.state
    assert not host.can_send(stolen)
    assert host.logs_in()
    assert host.can_send(host.login())
    assert StagingLabel.PENDING not in host.credential().labels
    assert KeyStatus.ACTIVE not in host.statuses().values()
    assert {host.login().user: KeyStatus.ACTIVE} == host.statuses(record.new_users[NAME])
    told = [entry.detail for entry in record.timeline if "could not be had" in entry.act]
    told += [each.name for each in record.evidence]
    for name in COLLECTORS:
        assert any(name in each for each in told), f"nobody said that {name} is missing"


def strike(
    host: RotatingHost, call: str, after: int, kind: ApiFaultKind, count: int | None
) -> None:
    """Panic with that fault, hold the outcome to the rules, and converge afterwards."""
    stolen = host.login()
    host.set_fault(call, kind, count=count, after=after)
    result = try_to_panic(host)
    host.clear_faults()
    require_held_or_over(host, stolen, result)
    host.panic(stolen.user)
    require_recovered(host, stolen)


def strike_all(new_host: NewHost, cases: list[tuple[str, int, ApiFaultKind, int | None]]) -> None:
    """One host for each case."""
    for call, after, kind, count in cases:
        try:
            strike(new_host(), call, after, kind, count)
        except Exception as error:
            raise AssertionError(f"{kind} at call {after + 1} of {call}, {count} x") from error


def changes_something(call: str) -> bool:
    """Whether the call has an effect, so that it matters if only its answer is lost."""
    return call.partition(":")[2].startswith(EFFECTS)


def test_every_call_of_panic_may_lose_its_answer(new_host: NewHost) -> None:
    """Once; of those that change something."""
    calls = [(call, after) for call, after in panic_calls(new_host) if changes_something(call)]
    strike_all(new_host, [(call, after, ApiFaultKind.LOST, 1) for call, after in calls])


def test_the_last_call_of_each_operation_of_panic_may_be_denied(new_host: NewHost) -> None:
    """Once; what happens when the first is, the next test sees."""
    last = {call: after for call, after in panic_calls(new_host) if after > 0}
    strike_all(new_host, [(call, after, ApiFaultKind.DENIED, 1) for call, after in last.items()])


@pytest.mark.parametrize("kind", [ApiFaultKind.DENIED, ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
def test_every_operation_of_panic_may_fail_for_ever(new_host: NewHost, kind: ApiFaultKind) -> None:
    """From its first call on, until it is cleared."""
    operations = list(dict.fromkeys(call for call, _after in panic_calls(new_host)))
    if kind is ApiFaultKind.UNREACHABLE:
        # Where nothing changes, a lost answer is the same.
        operations = list(filter(changes_something, operations))
    strike_all(new_host, [(call, 0, kind, None) for call in operations])


@pytest.mark.parametrize("kind", list(ApiFaultKind))
def test_all_of_aws_fails(new_host: NewHost, kind: ApiFaultKind) -> None:
    """The mail is held, the command fails and says that the key still works, if it does."""
    host = new_host()
    stolen = host.login()
    host.set_fault("*", kind, count=None)
    result = try_to_panic(host)
    host.clear_faults()

    assert isinstance(result, Error)
    assert host.current() is None
    assert host.rotation().status(NAME).held
    if kind is not ApiFaultKind.LOST:
        assert f"the leaked key {stolen.user} still works" in str(result)
        assert result.hint is not None
    host.panic()
    require_recovered(host, stolen)


@pytest.mark.parametrize("denied", ["iam:UpdateAccessKey", "iam:PutUserPolicy"])
def test_one_of_the_two_cuts_is_enough_for_the_proof(new_host: NewHost, denied: str) -> None:
    """The other makes the key useless; what was not done is reported, also when it is repeated."""
    host = new_host()
    stolen = host.login()
    host.set_fault(denied, ApiFaultKind.DENIED, count=None)
    response = host.panic(contain_only=True)

    assert not host.can_send(stolen)
    assert response.incident.record.proved_at is not None
    assert 1 == len(response.problems)
    assert denied in str(response.problems[0])
    host.clear_faults()
    host.panic()
    require_recovered(host, stolen)

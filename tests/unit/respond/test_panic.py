"""The response to a leak: the order, what is held, what is proved, what is kept."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.rotating_host import NAME, RotatingHost, ignore
from rigs.sandbox import transaction
from sesguard.aws.iam import KeyStatus
from sesguard.aws.ses import SesSending
from sesguard.core.credential import StagingLabel
from sesguard.errors import CheckFailed, Error
from sesguard.respond.containment import DENY_POLICY
from sesguard.respond.incident import IncidentState
from sesguard.respond.playbook import PanicOptions
from sesguard.rotation.context import Pace
from sesguard.rotation.service import LOCK_FILE
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.system.locks import exclusive_lock

ACTIVE, INACTIVE = KeyStatus.ACTIVE, KeyStatus.INACTIVE
NewHost = Callable[..., RotatingHost]


def documents(host: RotatingHost) -> dict[str, object]:
    """The inline policies of the burned user."""
    iam = host.rig.aws("iam")
    names = iam.list_user_policies(UserName=host.user)["PolicyNames"]
    return {
        name: iam.get_user_policy(UserName=host.user, PolicyName=name)["PolicyDocument"]
        for name in names
    }


def test_panic_kills_the_key_and_gives_the_host_a_new_one(host: RotatingHost) -> None:
    """Of a new user; the old one stays denied, its key inactive, and the thief is out."""
    stolen = host.login()
    assert host.can_send(stolen)
    response = host.panic()

    assert (True, ()) == (response.recovered, response.problems)
    record = response.incident.record
    assert IncidentState.RECOVERED is record.state
    assert stolen.user == record.access_key_id
    assert not host.can_send(stolen)
    assert {stolen.user: INACTIVE} == host.statuses()
    assert DENY_POLICY in documents(host)
    assert record.new_users[NAME] != host.user
    assert {host.login().user: ACTIVE} == host.statuses(record.new_users[NAME])
    assert host.logs_in()
    assert host.can_send(host.login())


def test_panic_may_be_repeated(host: RotatingHost) -> None:
    """For the same key nothing is done again; without a name the new key is not taken for it."""
    stolen = host.login().user
    host.panic()
    before = (host.credential(), host.statuses(), documents(host))

    response = host.panic(stolen)
    assert (False, ()) == (response.held, response.problems)
    assert IncidentState.RECOVERED is response.incident.record.state
    assert before == (host.credential(), host.statuses(), documents(host))
    assert 1 == len(host.incidents())
    with pytest.raises(CheckFailed, match="was issued by panic"):
        host.panic()


def test_a_second_leak_is_another_incident(host: RotatingHost) -> None:
    """The key that the first panic issued can be named, and dies as well."""
    first = host.login()
    host.panic()
    second = host.login()
    host.panic(second.user)

    assert 2 == len(host.incidents())
    for stolen in (first, second):
        assert not host.can_send(stolen)
    assert host.logs_in()


def test_contain_only_holds_the_mail(host: RotatingHost) -> None:
    """The key is dead, nothing is CURRENT; the next panic recovers."""
    stolen = host.login()
    response = host.panic(contain_only=True)

    assert (False, True) == (response.recovered, response.held)
    assert IncidentState.CONTAINED is response.incident.record.state
    assert not host.can_send(stolen)
    assert host.current() is None
    assert host.rotation().status(NAME).held
    assert host.panic().recovered
    assert host.logs_in()


def test_mail_is_held_before_the_key_is_cut(host: RotatingHost) -> None:
    """And the key is inactive before its user is denied, which makes SES answer 554."""
    host.panic()
    acts = [entry.act for entry in host.incidents()[0].timeline]

    order = [
        "held the mail", "deactivated the key", "denied everything", "the key is dead",
        "making the new IAM user", "released the mail", "kept the evidence",
    ]  # fmt: skip
    assert order == [act for act in acts if act in order]
    assert acts.index("found the IAM user") < acts.index("deactivated the key")


def test_a_session_of_our_own_is_waited_for_then_given_up(host: RotatingHost) -> None:
    """The leak is cut all the same: the thief may hold one open just like it."""
    stolen = host.login()
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(host.rig.session(stolen))
        response = host.panic(contain_only=True)
        assert 250 != transaction(session, envelope_sender="app@example.com")[0]
    acts = [entry.act for entry in response.incident.record.timeline]
    assert "did not wait longer" in acts


def test_a_key_of_somebody_else_is_cut_without_holding_mail(
    host: RotatingHost, new_host: NewHost
) -> None:
    """The host's own mail goes on, and no new key is made; IAM has to prove it dead."""
    other = new_host()
    response = host.panic(other.key.access_key_id)

    assert (False, False) == (response.recovered, response.held)
    assert IncidentState.CONTAINED is response.incident.record.state
    assert response.incident.record.proved_at is not None
    assert {other.key.access_key_id: INACTIVE} == host.statuses(other.user)
    assert not other.can_send(other.login())
    assert host.logs_in()


def test_the_replaced_key_leaks(host: RotatingHost) -> None:
    """PREVIOUS is cut; the CURRENT key of the same user goes on, so the user is not denied."""
    old = host.credential().current()
    with host.rig.session(host.login(old)), contextlib.suppress(CheckFailed):
        host.rotate()
    assert ACTIVE is host.statuses()[old.username]
    host.panic(old.username)

    assert INACTIVE is host.statuses()[old.username]
    assert DENY_POLICY not in documents(host)
    assert not host.can_send(host.login(old))
    assert host.can_send(host.login())


def test_panic_ends_an_interrupted_rotation(host: RotatingHost) -> None:
    """What was half done is given up, and nothing of it is left."""
    host.set_fault("iam:*e*AccessKey*", ApiFaultKind.UNREACHABLE, count=None, after=4)
    with pytest.raises(Error):
        host.rotate()
    host.clear_faults()
    stolen = host.login()
    assert host.rotation().status(NAME).interrupted is not None
    host.panic()

    assert host.rotation().status(NAME).interrupted is None
    assert StagingLabel.PENDING not in host.credential().labels
    assert not host.can_send(stolen)
    assert host.logs_in()
    host.rotate()


def test_an_orphan_of_an_interrupted_rotation_does_not_spare_the_user(host: RotatingHost) -> None:
    """A key that was made and never stored goes, so that the leaked key's user can be denied."""
    host.rig.client.set_api_faults(
        ApiFault("iam:CreateAccessKey", ApiFaultKind.LOST, count=None),
        ApiFault("iam:DeleteAccessKey", ApiFaultKind.UNREACHABLE, count=None),
    )
    with pytest.raises(Error):
        host.rotate()
    host.clear_faults()
    assert 1 == len(host.unknown_keys())
    host.panic()

    assert {host.key.access_key_id: INACTIVE} == host.statuses()
    assert DENY_POLICY in documents(host)
    assert host.logs_in()


def test_the_configuration_set_is_paused_and_resumed(new_host: NewHost) -> None:
    """Only for as long as the mail is held, and only when nobody else had paused it."""
    host = new_host(configuration_set="shop")
    sending = SesSending(host._aws())
    with contextlib.suppress(Exception):
        host.rig.aws("sesv2").create_configuration_set(ConfigurationSetName="shop")
    host.panic(contain_only=True)
    assert not sending.configuration_set_sending("shop")
    host.panic()
    assert sending.configuration_set_sending("shop")

    sending.set_configuration_set_sending("shop", False)
    # SES takes no test mail with it, so the mail stays held; it is not for us to resume it.
    with pytest.raises(Error, match="stays held"):
        host.panic(host.login().user)
    assert not sending.configuration_set_sending("shop")
    sending.set_configuration_set_sending("shop", True)
    assert host.panic().recovered


def test_the_account_is_paused_only_when_asked_for(host: RotatingHost) -> None:
    """And is resumed before the test mail."""
    sending = SesSending(host._aws())
    host.panic(contain_only=True, pause_account=True)
    assert not sending.account_sending()
    host.panic()
    assert sending.account_sending()
    assert host.can_send(host.login())


def test_the_evidence_has_hashes_and_no_secret(host: RotatingHost) -> None:
    """Every file is there as it was hashed; CloudTrail tells of the key's own calls."""
    host.rig.aws("sts", host.key).get_caller_identity()
    password = host.login().password.reveal()
    response = host.panic()

    directory = response.incident.directory
    assert directory is not None
    files = response.incident.record.evidence
    assert 5 == len(files)
    for each in files:
        content = (directory / each.name).read_bytes()
        assert (each.sha256, each.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    for path in [*directory.rglob("*.json")]:
        assert 0o600 == path.stat().st_mode & 0o777
        text = path.read_text()
        assert password not in text
        assert host.key.secret_key.reveal() not in text
    trail = json.loads((directory / "evidence" / "trail.json").read_text())
    assert "GetCallerIdentity" in {event["eventName"] for event in trail["events"]}
    keys = json.loads((directory / "evidence" / "keys.json").read_text())
    assert ["Inactive"] == [key["status"] for key in keys["keys"]]


def test_a_key_that_still_works_for_some_seconds_is_waited_for(new_host: NewHost) -> None:
    """The Deny works at once, so the proof does not wait for the deactivation."""
    host = new_host(pace=Pace())
    host.rig.client.configure(retired_key_delay_s=3.0)
    stolen = host.login()
    response = host.panic()

    assert response.recovered
    assert not host.can_send(stolen)
    assert host.logs_in()


def test_a_new_key_that_takes_some_seconds_to_work_is_waited_for(new_host: NewHost) -> None:
    """The mail is held for as long."""
    host = new_host(pace=Pace())
    host.rig.client.configure(new_key_delay_s=1.5)
    assert host.panic().recovered
    assert host.logs_in()


def test_panic_cuts_the_key_while_a_rotation_runs(host: RotatingHost) -> None:
    """It waits for the lock with the leaked key deactivated already."""
    stolen = host.login()
    service = host.panic_service()
    done: list[object] = []
    thread = threading.Thread(
        target=lambda: done.append(service.respond(NAME, stolen.user, ignore, PanicOptions()))
    )
    with exclusive_lock(host.directory / "state" / LOCK_FILE):
        thread.start()
        while ACTIVE in host.statuses().values():
            assert thread.is_alive()
        assert [] == done
    thread.join(60)
    assert 1 == len(done)
    assert not host.can_send(stolen)
    assert host.logs_in()


def test_a_vault_that_does_not_open_does_not_hold_the_cut_up(
    host: RotatingHost, tmp_path: Path
) -> None:
    """The key is deactivated and its user denied; once the vault opens, panic does the rest."""
    stolen = host.login()
    vault, away = host.settings.vault.directory, tmp_path / "away"
    vault.rename(away)
    with pytest.raises(Error):
        host.panic(stolen.user)
    assert {stolen.user: INACTIVE} == host.statuses()
    assert DENY_POLICY in documents(host)

    away.rename(vault)
    assert not host.can_send(stolen)
    host.panic(stolen.user)
    assert host.logs_in()


def test_a_vault_that_does_not_open_and_a_key_of_somebody_else(
    host: RotatingHost, new_host: NewHost, tmp_path: Path
) -> None:
    """Once the vault opens it turns out that the mail of this host need not be held."""
    other = new_host()
    vault, away = host.settings.vault.directory, tmp_path / "away"
    vault.rename(away)
    with pytest.raises(Error):
        host.panic(other.key.access_key_id)
    assert {other.key.access_key_id: INACTIVE} == host.statuses(other.user)

    away.rename(vault)
    assert not host.panic(other.key.access_key_id).recovered
    assert host.logs_in()

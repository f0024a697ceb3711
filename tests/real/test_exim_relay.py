"""
Relay mode of real Exims: no credential in their reach, no mail lost.

G1 and G2: Exim's own user cannot ask for the credential. G6: back and forth between the modes; one
mode alone, applied and undone, is in ``test_exim_deploy.py``. G7: without the relay Exim defers.
"""

import subprocess
import sys
from collections.abc import Callable

import pytest

from rigs.exim import RIGS, needs_exim, wait_for
from rigs.host import SENDER, MailHost, ignore, set_mode
from rigs.tripwire import Tripwire
from sesguard.errors import RolledBack, SettingsError
from sesguard.system.processes import run_program

pytestmark = [pytest.mark.real, needs_exim]

NewHost = Callable[..., MailHost]


def sesguard(host: MailHost, *arguments: str) -> None:
    """Run a command."""
    program = [sys.executable, "-m", "sesguard", "--config", str(host.settings_path)]
    subprocess.run([*program, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("layout", sorted(RIGS))
def test_modes_are_changed_by_applying_again(new_host: NewHost, layout: str) -> None:
    """Lookup, relay and lookup again: each delivers, and undo goes back to the very first byte."""
    host = new_host(layout=layout, canary=False)
    before = host.exim.state()
    states = []
    for number, mode in enumerate(("lookup", "relay", "lookup")):
        set_mode(host, mode)
        with host.daemon():
            assert host.apply()
            states.append(host.exim.state())
            host.exim.inject(SENDER, f"b{number}@example.net")
            assert host.exim.wait_until_delivered(30)

    assert ["b0@example.net", "b1@example.net", "b2@example.net"] == host.delivered()
    assert states[0] == states[2]
    assert states[0] != states[1]
    assert host.service().undo("exim", ignore)
    assert before == host.exim.state()


def test_exim_defers_while_the_relay_is_down(new_host: NewHost) -> None:
    """Nothing is bounced or frozen, and the next queue run delivers."""
    host = new_host(canary=False)
    set_mode(host, "relay")
    with host.daemon():
        host.apply()
    host.exim.inject(SENDER, "b@example.net")

    assert 1 == host.exim.queue_size()
    assert 0 == host.exim.bounced()
    assert "Frozen" not in host.exim.log_text()
    assert [] == host.delivered()
    with host.daemon():
        host.exim.run_queue(force=True)
    assert ["b@example.net"] == host.delivered()


def test_exims_user_reads_no_credential(new_host: NewHost) -> None:
    """With the lookup off no socket and no file gives it; while it is on, verify says so."""
    host = new_host(canary=False)
    set_mode(host, "relay", lookup=True)
    user = host.exim.user
    ask = "plainx localhost|127.0.0.1|TLS1.3|x|shop@example.com\\n"
    socket = host.directory / "run" / "exim.sock"
    question = (host.exim.binary, "-C", "/dev/null", "-be", f"${{readsocket{{{socket}}}{{{ask}}}}}")
    with host.daemon():
        host.apply()
        open_lookup = run_program(question, user=(user.uid, user.gid))
        failed = [check for check in host.service().verify("exim") if not check.ok]
        assert 1 == len(failed)
        assert "[lookup.exim]" in str(failed[0].message)
        assert host.key.access_key_id in open_lookup.output

    set_mode(host, "relay")
    secrets = [(host.password, host.key.access_key_id)]
    with Tripwire([host.directory], secrets) as tripwire, host.daemon():
        closed = run_program(question, user=(user.uid, user.gid))
        host.exim.inject(SENDER, "b@example.net")
        assert all(check.ok for check in host.service().verify("exim"))
        assert host.key.access_key_id not in closed.output + closed.errors
        assert ["b@example.net"] == host.delivered()
    assert [] == tripwire.hits()


def test_relay_that_does_not_answer_stops_the_change(new_host: NewHost) -> None:
    """Without sesguardd no file is touched."""
    host = new_host()
    set_mode(host, "relay")
    before = host.exim.state()

    with pytest.raises(RolledBack, match="the relay does not answer"):
        host.apply()

    assert before == host.exim.state()


def test_plan_without_an_app_shows_the_table(new_host: NewHost) -> None:
    """The hint can be pasted into the settings."""
    host = new_host()
    set_mode(host, "relay", app=False)

    with pytest.raises(SettingsError, match="no app of the settings") as caught:
        host.service().plan("exim")

    assert f'[apps.exim]\nusers = ["{host.exim.user.name}"]' in str(caught.value.hint)


def test_app_that_may_not_send_as_the_canary_stops_the_change(new_host: NewHost) -> None:
    """The test mail goes the whole way, so a policy that refuses Exim's mail is seen in time."""
    host = new_host()
    set_mode(host, "relay")
    text = host.settings_path.read_text()
    host.settings_path.write_text(text.replace("*@example.com", "*@other.example"))
    before = host.exim.state()

    with host.daemon(), pytest.raises(RolledBack, match="test mail"):
        host.apply()

    assert before == host.exim.state()
    assert 0 == host.exim.queue_size()


def test_suspended_app_is_deferred(new_host: NewHost) -> None:
    """Mail of a suspended Exim waits in Exim's queue and goes out once it is resumed."""
    host = new_host(canary=False)
    set_mode(host, "relay")
    with host.daemon():
        host.apply()
        sesguard(host, "app", "suspend", "exim")
        host.exim.inject(SENDER, "b@example.net")
        assert 1 == host.exim.queue_size()
        sesguard(host, "app", "resume", "exim")
        host.exim.run_queue(force=True)
        wait_for(lambda: ["b@example.net"] == host.delivered(), "the mail did not come")

    assert 0 == host.exim.bounced()

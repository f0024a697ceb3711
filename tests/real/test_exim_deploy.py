"""
``target apply / verify / undo`` on real Exims in every layout.

G6: every change is planned, journaled before it is made, verified, and undone to the byte. G4 and
G7: mail is never lost, wherever the command dies.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.exim import RIGS, DebianEximRig, needs_exim
from rigs.host import SENDER, MailHost, add_backups, copies, ignore, set_mode, state_of
from sesguard.core.encodings import encoded_forms
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.deploy.interface import TargetState
from sesguard.deploy.steps import ReplaceFile
from sesguard.errors import DeployError, Error, RolledBack, SettingsError
from sesguard.sandbox.private_exim import CLIENT_SEND
from sesguard.sandbox.seed import seed_account

pytestmark = [pytest.mark.real, needs_exim]

NewHost = Callable[..., MailHost]


@pytest.mark.parametrize(
    ("mode", "authenticators", "apps"),
    [("lookup", {"sesguard_plain"}, {None}), ("relay", set(), {"exim"})],
    ids=["lookup", "relay"],
)
@pytest.mark.parametrize("layout", sorted(RIGS))
def test_apply_then_undo_is_identity(
    new_host: NewHost, layout: str, mode: str, authenticators: set[str], apps: set[str | None]
) -> None:
    """Each layout and mode: applied and delivering, no copy left, twice is once, undone whole."""
    host = new_host(layout=layout, extra_files=("shop.env",))
    add_backups(host)
    host.exim.start()
    set_mode(host, mode)
    before = host.exim.state()
    dotenv = host.extra_files[0].read_bytes()
    assert TargetState.PLAINTEXT is state_of(host)
    assert len(copies(host)) >= 4

    with host.daemon():
        assert host.apply()
        applied = host.exim.state()
        assert not host.apply()
        host.exim.inject(SENDER, "b@example.net")
        # The daemon's queue runner may have taken the mail from under the foreground delivery.
        assert host.exim.wait_until_delivered(30)
        checks = host.service().verify("exim")

        assert applied == host.exim.state()
        assert TargetState.APPLIED is state_of(host)
        assert [] == copies(host)
        assert all(check.ok for check in checks), [str(check.message) for check in checks]
        assert ["b@example.net"] == host.delivered()
        assert authenticators == set(re.findall(r" A=(\w+)", host.exim.log_text()))
        assert apps == {mail.tags.get("app") for mail in host.sandbox.client.inbox()}

        assert host.undo()

    assert before == host.exim.state()
    assert dotenv == host.extra_files[0].read_bytes()
    assert TargetState.PLAINTEXT is state_of(host)
    host.exim.inject(SENDER, "c@example.net")
    assert host.exim.wait_until_delivered(30)
    assert ["b@example.net", "c@example.net"] == host.delivered()
    assert not host.undo()


@pytest.mark.parametrize("form", sorted(CLIENT_SEND))
def test_every_form_of_client_send_is_applied_for_real(new_host: NewHost, form: str) -> None:
    """Each form of the credential in Exim's configuration works before, after, and after undo."""
    host = new_host(form=form, canary=False)
    before = host.exim.state()
    host.exim.inject(SENDER, "a@example.net")
    with host.daemon():
        host.apply()
        host.exim.inject(SENDER, "b@example.net")
        host.undo()
    host.exim.inject(SENDER, "c@example.net")

    assert ["a@example.net", "b@example.net", "c@example.net"] == host.delivered()
    assert before == host.exim.state()


def test_daemon_keeps_its_pid_and_reads_the_new_configuration(new_host: NewHost) -> None:
    """The running Exim is told by SIGHUP, survives, and delivers with the new configuration."""
    host = new_host()
    host.exim.start()
    pid = host.exim.pid_file.read_text()
    with host.daemon():
        host.apply()

        assert pid == host.exim.pid_file.read_text()
        assert "re-exec daemon" in host.exim.log_text()


def test_plan_changes_nothing_and_masks_secrets(new_host: NewHost) -> None:
    """The plan shows steps and a diff without any form of a secret, and touches nothing."""
    host = new_host(extra_files=("shop.env",))
    config = host.exim.config
    config.write_text(
        config.read_text()
        .replace("exim_user", "hide mysql_servers = localhost/db/u/hunter2\nexim_user", 1)
        .replace("hide mysql_servers", "# hide mysql_servers")
    )
    before = host.exim.state()

    plan = host.service().plan("exim")

    assert before == host.exim.state()
    assert "-  client_send = : AKIA" in plan.diff
    assert "SESGUARD-REMOVED" in plan.diff
    assert "+sesguard_plain:" in plan.diff
    for form in encoded_forms(host.password, host.key.access_key_id).values():
        assert form not in plan.diff.encode()
        assert form not in repr([str(step.title()) for step in plan.steps]).encode()


def test_failed_canary_puts_everything_back(new_host: NewHost) -> None:
    """When SES refuses the test mail, every file is as before, the queue empty, exit code 3."""
    host = new_host()
    host.settings_path.write_text(
        host.settings_path.read_text().replace("postmaster@example.com", "x@unverified.example")
    )
    before = host.exim.state()
    with host.daemon(), pytest.raises(RolledBack, match="test mail") as caught:
        host.apply()

    assert 3 == caught.value.exit_code
    assert before == host.exim.state()
    assert 0 == host.exim.queue_size()
    assert TargetState.PLAINTEXT is state_of(host)
    host.exim.inject(SENDER, "b@example.net")
    assert ["b@example.net"] == host.delivered()


@pytest.mark.parametrize("layout", sorted(RIGS))
def test_missing_daemon_stops_the_change_before_it_begins(new_host: NewHost, layout: str) -> None:
    """Without sesguardd no file is touched."""
    host = new_host(layout=layout)
    before = host.exim.state()

    with pytest.raises(RolledBack, match="does not answer"):
        host.apply()

    assert before == host.exim.state()


@pytest.mark.parametrize("layout", sorted(RIGS))
def test_configuration_that_exim_refuses_is_put_back(new_host: NewHost, layout: str) -> None:
    """A candidate that Exim does not take (here: a second PLAIN client) is never left in place."""
    host = new_host(layout=layout, form="login")
    second = "other:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^user^word\n"
    exim = host.exim
    if isinstance(exim, DebianEximRig):
        name = "conf.d/auth/30_exim4-config_examples" if exim.split else "exim4.conf.template"
        path = exim.debian_directory / name
        text = path.read_text().replace(
            "\nplain:\n", "\n" + second.replace("other", "o") + "\nx_:\n"
        )
    else:
        path = getattr(exim, "local_file", exim.config)
        text = path.read_text().replace("ses_login:", second + "\nses_login:")
    path.write_text(text)
    before = host.exim.state()

    with host.daemon(), pytest.raises(RolledBack, match=r"refuses the new|failed"):
        host.apply()

    assert before == host.exim.state()


def test_undo_is_refused_once_the_credential_was_rotated(new_host: NewHost) -> None:
    """Undo would put back a password that SES no longer takes, and mail would bounce."""
    host = new_host(canary=False)
    second = seed_account(host.sandbox, user_name="second", domain="example.com")
    with host.daemon():
        host.apply()
        applied = host.exim.state()
        password = derive_smtp_password(second.secret_key, host.sandbox.info.region)
        host.import_credential(password=password, username=second.access_key_id)

        with pytest.raises(DeployError, match="mail would bounce"):
            host.undo()
        assert applied == host.exim.state()
        host.service().undo("exim", ignore, force=True)

    assert host.password.reveal().encode() in host.exim.config.read_bytes()


def test_requirement_that_a_conditional_hides_is_noticed(new_host: NewHost) -> None:
    """What Exim makes of the file counts: here a macro takes hosts_require_auth out again."""
    host = new_host(canary=False)
    config = host.exim.config
    text = config.read_text().replace("ses_smtp:\n  driver = smtp\n", "ses_smtp:\nDRIVER\n")
    config.write_text("DRIVER = driver = smtp\n" + text)
    before = host.exim.state()

    with host.daemon(), pytest.raises(Error, match=r"not in effect|no transport"):
        host.apply()

    assert before == host.exim.state()


def test_second_live_configuration_is_not_wiped(new_host: NewHost) -> None:
    """A further Exim configuration beside the first one stops the plan; a backup does not."""
    host = new_host(canary=False)
    second = host.exim.config.with_name("outbound.conf")
    second.write_bytes(host.exim.config.read_bytes())

    with pytest.raises(DeployError, match="another Exim configuration"):
        host.service().plan("exim")
    second.rename(second.with_name("outbound.conf.old"))

    assert host.service().plan("exim").steps


def test_password_that_is_compared_with_is_not_replaced(new_host: NewHost) -> None:
    """In a server_condition the word that takes its place would become a valid password."""
    host = new_host(canary=False)
    config = host.exim.config
    config.write_text(
        config.read_text()
        + f"  server_condition = ${{if eq{{$auth3}}{{{host.password.reveal()}}}}}\n"
    )

    with pytest.raises(DeployError, match="used here for something else"):
        host.service().plan("exim")


def test_host_that_the_vault_does_not_serve_stops_the_change(new_host: NewHost) -> None:
    """A second route to a region without a password would wait for ever."""
    host = new_host(canary=False)
    config = host.exim.config
    config.write_text(
        config.read_text().replace(
            "begin transports\n",
            "second:\n  driver = manualroute\n  transport = ses_smtp\n"
            "  route_list = *.br email-smtp.sa-east-1.amazonaws.com\n\nbegin transports\n",
        )
    )
    before = host.exim.state()

    with host.daemon(), pytest.raises(RolledBack, match="sa-east-1"):
        host.apply()

    assert before == host.exim.state()


def test_extra_file_is_followed_or_missed_loudly(new_host: NewHost) -> None:
    """A link is resolved and its target wiped; a name that leads nowhere stops the plan."""
    host = new_host(canary=False, extra_files=("shared.env",))
    link = host.directory / "current.env"
    link.symlink_to(host.extra_files[0])
    host.extra_files = [link]
    host.write_settings()
    with host.daemon():
        host.apply()
        assert [] == copies(host)
    host.extra_files = [host.directory / "typo.env"]
    host.write_settings()

    with pytest.raises(SettingsError, match="not there"):
        host.service().plan("exim")


def test_earlier_refusal_does_not_stop_the_test_mail(new_host: NewHost) -> None:
    """A 535 left a retry record; the test mail is tried all the same, and apply succeeds."""
    host = new_host()
    good = host.exim.config.read_text()
    wrong = "BA" + host.password.reveal()[2:][::-1]
    host.exim.config.write_text(
        good.replace(host.password.reveal(), wrong).replace("hosts_try_auth", "hosts_require_auth")
    )
    host.exim.inject(SENDER, "b@example.net")
    host.exim.config.write_text(good)

    with host.daemon():
        host.apply()
        host.exim.run_queue(force=True)

    assert ["b@example.net"] == host.delivered()


def test_unknown_credential_is_refused(new_host: NewHost) -> None:
    """A credential that the vault does not hold is not taken away: mail would stop."""
    host = new_host()
    config = host.exim.config
    other = "B" + host.password.reveal()[1:][::-1].replace("=", "A")
    config.write_text(config.read_text().replace(host.password.reveal(), "BA" + other[2:44]))

    with pytest.raises(DeployError, match="is not in the vault") as caught:
        host.service().plan("exim")

    assert "credential import" in str(caught.value.hint)


def test_file_changed_after_the_plan_is_not_overwritten(new_host: NewHost) -> None:
    """A change between plan and act stops the run, and the foreign change stays."""
    host = new_host(canary=False)
    config = host.exim.config

    def meddle(report: object) -> None:
        if getattr(report, "number", 0) == 3:
            config.write_text(config.read_text() + "# an administrator was here\n")

    with host.daemon(), pytest.raises(RolledBack, match="changed after the plan"):
        host.service().apply("exim", meddle)

    assert "# an administrator was here" in config.read_text()
    assert host.password.reveal() in config.read_text()


def test_undo_refuses_to_lose_a_later_change(new_host: NewHost) -> None:
    """An administrator's edit after apply stops undo, until it is forced."""
    host = new_host(canary=False)
    before = host.exim.state()
    with host.daemon():
        host.apply()
        host.exim.config.write_text(host.exim.config.read_text() + "# later edit\n")

        with pytest.raises(DeployError, match="was changed after"):
            host.undo()
        assert "# later edit" in host.exim.config.read_text()
        host.service().undo("exim", ignore, force=True)

    assert before == host.exim.state()


def test_checkpoints_are_sealed(new_host: NewHost) -> None:
    """The journal holds the original files for undo, and no form of the secret in the clear."""
    host = new_host(canary=False)
    with host.daemon():
        host.apply()
    journal = host.directory / "state" / "journal.db"
    content = b"".join(path.read_bytes() for path in journal.parent.glob("journal.db*"))

    for form in encoded_forms(host.password, host.key.access_key_id).values():
        assert form not in content
    assert b"client_send" not in content


def test_step_representation_hides_nothing_secret(new_host: NewHost) -> None:
    """The new content of every planned file is free of the secret, so steps may be shown."""
    host = new_host()

    steps = [step for step in host.service().plan("exim").steps if isinstance(step, ReplaceFile)]

    assert steps
    for step in steps:
        assert host.password.reveal().encode() not in step.new_content
        assert Path(step.path).exists()

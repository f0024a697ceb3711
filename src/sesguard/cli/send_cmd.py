"""
``sesguard send``: one test message through the real path.

``mta`` gives the message to the host's sendmail program, as PHP's mail() does; ``direct`` opens a
session with SES and uses the credential of the vault. ``auto`` is ``mta`` where there is such a
program. A temporary failure is exit 75; in the direct way nothing is queued then.
"""

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final

import click

from sesguard.cli import params
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import N_, _
from sesguard.config.schema import CredentialSettings, Settings
from sesguard.core.endpoints import Endpoint
from sesguard.core.routing import RoutingRule, smtp_password
from sesguard.errors import TemporaryFailure, UpstreamError, UsageError
from sesguard.system.files import find_program
from sesguard.system.processes import run_program
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.smtp import SmtpUpstream, require_address

_EX_TEMPFAIL: Final = 75
_HINTS: Final = {
    Outcome.DENIED: N_(
        "check what the IAM policy of this key allows: source address, From, configuration set"
    ),
    Outcome.UNVERIFIED: N_("verify the address or its domain in SES, in this region"),
    Outcome.PAUSED: N_("read the notice that AWS sent to the owner of the account"),
    Outcome.BAD_ADDRESS: N_("check the address"),
}


@click.command(help=_("Send one test message through the real path."))
@click.option(
    "--to",
    "recipient",
    required=True,
    type=params.address,
    metavar=_("ADDRESS"),
    help=_("Recipient."),
)
@click.option(
    "--from",
    "sender",
    type=params.address,
    metavar=_("ADDRESS"),
    help=_("Sender. Default: canary_sender of the credential."),
)
@click.option(
    "--credential", "name", metavar=_("NAME"), help=_("Credential. Default: the only one there is.")
)
@click.option(
    "--via",
    type=click.Choice(["auto", "mta", "direct"]),
    default="auto",
    show_default=True,
    help=_("Through the mail program of this host, or straight to SES."),
)
@pass_app
def command(app: App, recipient: str, sender: str | None, name: str | None, via: str) -> None:
    """Make the message and give it to one of the two ways."""
    name, credential = app.credential_settings(name)
    sender = sender or credential.canary_sender
    if sender is None:
        raise UsageError(
            "there is no sender for the test message",
            hint="add --from ADDRESS, or set credentials.{name}.canary_sender",
            name=name,
        )
    message = _test_message(require_address(sender), require_address(recipient))
    program = None if via == "direct" else _find_mta(app.settings)
    if via == "mta" and program is None:
        raise UsageError(
            "there is no sendmail program on this host", hint="use --via direct, or install an MTA"
        )
    if program is not None:
        _send_by_mta(app, program, sender, message)
    else:
        _send_direct(app, name, credential, sender, recipient, message)


def _test_message(sender: str, recipient: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = _("Test message of sesguard")
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(idstring="sesguard", domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_("This host can send mail through Amazon SES.") + "\n")
    return message


def _find_mta(settings: Settings) -> Path | None:
    exim = settings.target.exim
    if exim.binary is not None:
        return exim.binary
    if exim.config_file is not None:
        return find_program("exim4", "exim")
    return find_program("sendmail", "exim4", "exim")


def _send_by_mta(app: App, program: Path, sender: str, message: EmailMessage) -> None:
    config = app.settings.target.exim.config_file
    options = [] if config is None else ["-C", str(config)]
    app.output.step(_("giving the message to {program}").format(program=program))
    # The message has LF line ends: sendmail's standard input is a text file of the host.
    completed = run_program(
        [program, *options, "-i", "-t", "-f", sender],
        stdin=message.as_bytes(policy=SMTP.clone(linesep="\n")),
    )
    if completed.status == _EX_TEMPFAIL:
        raise TemporaryFailure(
            "{program} asks to try again later: {reason}",
            program=program,
            reason=completed.errors.strip(),
        )
    if not completed.ok:
        raise UpstreamError(
            "{program} did not take the message (exit {status}): {reason}",
            program=program,
            status=completed.status,
            reason=completed.errors.strip(),
        )
    app.output.ok(_("accepted by the MTA; look for this Message-ID in its log:"))
    app.output.data(str(message["Message-ID"]))


def _send_direct(
    app: App,
    name: str,
    settings: CredentialSettings,
    sender: str,
    recipient: str,
    message: EmailMessage,
) -> None:
    credential = app.vault().read().credential(name)
    version = credential.current()
    rule = RoutingRule(name, settings.smtp_host, settings.port, settings.regions)
    endpoint = Endpoint(settings.smtp_host, settings.port)
    app.output.step(_("connecting to {host}").format(host=f"{endpoint.host}:{endpoint.port}"))
    with SmtpUpstream(endpoint, ca_file=settings.ca_file) as upstream:
        upstream.login(version.username, smtp_password(version, rule, None))
        reply = upstream.send(sender, [recipient], message.as_bytes())
    _require_accepted(reply, endpoint.host)
    app.output.ok(_("accepted by {host}; SES message id:").format(host=endpoint.host))
    app.output.data(reply.message_id or reply.text)


def _require_accepted(reply: Reply, host: str) -> None:
    if reply.outcome is Outcome.ACCEPTED:
        return
    if reply.outcome.is_temporary:
        raise TemporaryFailure("{host} asks to try again later: {reply}", host=host, reply=reply)
    raise UpstreamError(
        "{host} refused the message: {reply}",
        hint=_HINTS.get(reply.outcome),
        host=host,
        reply=reply,
    )

"""
Does SES take a credential version: a real AUTH over verified TLS, several times in a row.

IAM is eventually consistent: a new key may work at one front end and not yet at the next, so one
success proves little. Each attempt is a new connection. Waiting begins short and doubles.
"""

from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final

from sesguard.config.schema import CredentialSettings
from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import Endpoint, smtp_host
from sesguard.core.routing import RoutingRule, smtp_password
from sesguard.core.secret import Secret
from sesguard.errors import Error, SettingsError, TemporaryFailure, UpstreamError
from sesguard.rotation.backoff import Backoff
from sesguard.rotation.context import Pace
from sesguard.upstream.replies import Outcome, Reply
from sesguard.upstream.smtp import LoginRefused, SmtpUpstream, check_login

SUCCESSES: Final = 3

_ATTEMPT_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 8.0


def endpoints(credential: CredentialSettings) -> list[Endpoint]:
    """Where a version must work: the configured host, or the public host of every region."""
    hosts = [credential.host] if credential.host else list(map(smtp_host, credential.regions))
    return [Endpoint(host, credential.port) for host in hosts]


def wait_until_valid(
    version: CredentialVersion,
    credential: CredentialSettings,
    timeout_s: float,
    pace: Pace,
    *,
    in_a_row: int = SUCCESSES,
) -> None:
    """
    Wait until every endpoint takes the version so many times in a row.

    Raises:
        UpstreamError: One does not within `timeout_s`, or it offers no verified TLS.
    """
    deadline = pace.monotonic() + timeout_s
    for endpoint in endpoints(credential):
        try:
            _wait_for(endpoint, version, credential, deadline, pace, in_a_row)
        except (LoginRefused, TemporaryFailure) as error:
            raise _not_valid(version, endpoint, error, timeout_s) from error


def _wait_for(
    endpoint: Endpoint,
    version: CredentialVersion,
    credential: CredentialSettings,
    deadline: float,
    pace: Pace,
    wanted: int,
) -> None:
    in_a_row, backoff = 0, _backoff(pace, deadline)
    password = password_at(version, credential, endpoint)
    while in_a_row < wanted:
        try:
            check_login(
                endpoint,
                version.username,
                password,
                ca_file=credential.ca_file,
                timeout_s=_ATTEMPT_TIMEOUT_S,
            )
        except (LoginRefused, TemporaryFailure):
            in_a_row = 0
            if not backoff.wait():
                raise
        else:
            in_a_row += 1


def password_at(
    version: CredentialVersion, credential: CredentialSettings, endpoint: Endpoint
) -> Secret:
    """
    The version's password for an endpoint; one that names no region is of the default region.

    Raises:
        CredentialError: There is none for that region.
    """
    rule = RoutingRule("", endpoint.host, endpoint.port, credential.regions)
    return smtp_password(version, rule, endpoint.host)


def send_test_mail(
    version: CredentialVersion, credential: CredentialSettings, *, timeout_s: float = 30.0
) -> Reply:
    """
    Send one mail to the mailbox simulator of SES, with the version's own key.

    Returns:
        What SES said to it, good or bad.

    Raises:
        SettingsError: The settings name no sender for it.
        LoginRefused: The key is not taken.
        TemporaryFailure: It could not be sent now.
        UpstreamError: No verified TLS.
    """
    sender = probe_sender(credential)
    if sender is None:
        raise SettingsError(
            "there is no sender for a test mail",
            hint="set canary_sender of the credential to an address that SES has verified",
        )
    endpoint = endpoints(credential)[0]
    with SmtpUpstream(endpoint, ca_file=credential.ca_file, timeout_s=timeout_s) as upstream:
        upstream.login(version.username, password_at(version, credential, endpoint))
        mail = _test_mail(sender, credential)
        return upstream.send(sender, [credential.canary_recipient], mail.as_bytes())


def probe_sender(credential: CredentialSettings) -> str | None:
    """Who a test mail is from: the canary, else somebody at a domain of the settings, else None."""
    if credential.canary_sender is not None:
        return credential.canary_sender
    return next((f"sesguard@{domain}" for domain in credential.sender_domains), None)


def wait_until_sent(
    version: CredentialVersion,
    credential: CredentialSettings,
    timeout_s: float,
    pace: Pace,
    *,
    in_a_row: int = 1,
) -> None:
    """
    Send the test mail until so many in a row were taken.

    It is sent again while what was just made or resumed may not be in effect everywhere.

    Raises:
        UpstreamError: It was refused for good, or not taken until `timeout_s` had passed.
    """
    taken, backoff = 0, _backoff(pace, pace.monotonic() + timeout_s)
    while taken < in_a_row:
        try:
            _require_sent(send_test_mail(version, credential))
        except (NotYetError, LoginRefused, TemporaryFailure) as error:
            taken = 0
            if not backoff.wait():
                raise _not_sent(error) from error
        else:
            taken += 1


def _backoff(pace: Pace, deadline: float) -> Backoff:
    return Backoff(pace, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, deadline)


def _not_sent(error: Error) -> UpstreamError:
    if isinstance(error, UpstreamError):
        return error
    return UpstreamError("{reason}", hint=error.hint_template, reason=error)


class NotYetError(UpstreamError):
    """A policy forbids it at this moment, or sending is paused."""


def _require_sent(reply: Reply) -> None:
    if reply.outcome.is_temporary:
        raise TemporaryFailure("SES did not take the test mail now: {reply}", reply=reply)
    if reply.outcome is not Outcome.ACCEPTED:
        passing = reply.outcome in (Outcome.DENIED, Outcome.PAUSED)
        kind = NotYetError if passing else UpstreamError
        raise kind(
            "SES refused the test mail: {reply}",
            hint="check canary_sender, and what the policy of the IAM user allows",
            reply=reply,
        )


def _test_mail(sender: str, credential: CredentialSettings) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, credential.canary_recipient
    mail["Subject"] = "sesguard: test of a new credential"
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    if credential.configuration_set is not None:
        mail["X-SES-CONFIGURATION-SET"] = credential.configuration_set
    mail.set_content("The new credential of this host works.\n")
    return mail


def _not_valid(
    version: CredentialVersion, endpoint: Endpoint, reason: Exception, timeout_s: float
) -> UpstreamError:
    return UpstreamError(
        "{host} did not take the new key {key} within {timeout:g} s: {reason}",
        hint="try again later; if it stays so, look at the AWS Health Dashboard",
        host=endpoint.host,
        key=version.username,
        timeout=timeout_s,
        reason=reason,
    )

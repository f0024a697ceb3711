"""
The steps that make a leaked key useless, and prove it.

    HoldMail         nothing is handed out: the MTA defers, and keeps the mail
    WaitForSessions  a moment for our own sessions, which SES may cut with the key
    CutKey           the key is deactivated: no new login
    WaitForSessions  longer: from the next step on, SES answers 554, which an MTA bounces
    DenyUser         an explicit Deny on its user: also ends sessions that are open, the thief's too
    PauseSet         its configuration set
    PauseAccount     when asked for
    ProveDead        SES refuses the key, three times in a row

None is ever taken back by a failure. All but the last keep going: what fails is tried again by the
next run, and ProveDead says whether the rest was enough.
"""

import contextlib
from typing import ClassVar, Final

import msgspec

from sesguard.aws.iam import KeyStatus
from sesguard.core.credential import Credential, StagingLabel
from sesguard.core.message import Message, message
from sesguard.errors import Error, SystemFault, TemporaryFailure, UpstreamError, VaultError
from sesguard.respond.context import ResponseContext
from sesguard.rotation.keys import find_status
from sesguard.rotation.login import send_test_mail
from sesguard.rotation.sessions import describe_sessions, sessions_to, wait_until_over
from sesguard.rotation.steps import mark_deactivated
from sesguard.system.sockets import ask_json
from sesguard.upstream.replies import Outcome
from sesguard.upstream.smtp import LoginRefused
from sesguard.workflow.step import Step

DENY_POLICY: Final = "sesguard-panic-deny"
REFUSALS: Final = 3

_DAEMON_TIMEOUT_S: Final = 2.0
_PROOF_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
_REFUSED: Final = frozenset({Outcome.AUTH_REFUSED, Outcome.DENIED, Outcome.PAUSED})


class ContainmentStep(Step[ResponseContext], frozen=True, kw_only=True):
    """What all have in common: each is tried, whatever became of the one before."""

    keeps_going: ClassVar[bool] = True


class HoldMail(ContainmentStep, frozen=True, kw_only=True, tag="hold-mail"):
    """Take the label CURRENT away, so that every lookup is refused and the mail is deferred."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("hold the mail of this host: it is deferred, not bounced")

    def is_done(self, context: ResponseContext) -> bool:
        """Whether the leaked key is not what is CURRENT."""
        current = context.stored().labelled(StagingLabel.CURRENT)
        return current is None or current.username != context.access_key_id

    def act(self, context: ResponseContext) -> None:
        """One write of the vault; then the daemon has to have seen it."""
        # Noted first: a mail that is held must be known to be, or nobody would release it.
        held = context.stored().labels[StagingLabel.CURRENT]
        context.note("holding the mail", f"version {held}", held_version=held)
        context.vault.update(context.credential_id, Credential.withdraw)
        self._wait_for_daemon(context)

    @staticmethod
    def _wait_for_daemon(context: ResponseContext) -> None:
        deadline = context.pace.monotonic() + _DAEMON_TIMEOUT_S
        while True:
            try:
                answer = ask_json(context.control_socket, b"status\n")
            except SystemFault:
                return
            served = {each["id"]: each["current_version"] for each in answer["credentials"]}
            if served.get(context.credential_id) is None:
                return
            if context.pace.monotonic() >= deadline:
                raise SystemFault(
                    "sesguardd still hands {credential} out",
                    hint="stop it: systemctl stop sesguardd",
                    credential=context.credential_id,
                )
            context.pace.sleep(_POLL_S)


class WaitForSessions(ContainmentStep, frozen=True, kw_only=True, tag="wait-for-sessions"):
    """Give the SMTP sessions of this host time to end by themselves."""

    timeout_s: float

    def title(self) -> Message:
        """See `Step.title`."""
        return message(
            "wait up to {seconds:g} s for this host's SMTP sessions to end", seconds=self.timeout_s
        )

    def act(self, context: ResponseContext) -> None:
        """Never fails: what is left is noted."""
        port = context.credential.port
        left = wait_until_over(sessions_to(port), port, self.timeout_s, context.pace)
        for session in describe_sessions(left):
            context.note("did not wait longer", str(session))


class CutKey(ContainmentStep, frozen=True, kw_only=True, tag="cut-key"):
    """Deactivate the leaked key."""

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("deactivate the leaked key {key}", key=self.access_key_id)

    def act(self, context: ResponseContext) -> None:
        """A key that is gone is as good as deactivated."""
        user = context.leaked_user()
        context.keys.set_key_status(user, self.access_key_id, KeyStatus.INACTIVE)
        context.note("deactivated the key", self.access_key_id)
        self._mark(context)

    def _mark(self, context: ResponseContext) -> None:
        """For the retirement of later; a vault that cannot be written must not look like a leak."""
        with contextlib.suppress(VaultError, SystemFault):
            version = context.leaked_version()
            if version is not None and version.deactivated_at is None:
                mark_deactivated(context, version.number, context.pace.timestamp())


class DenyUser(ContainmentStep, frozen=True, kw_only=True, tag="deny-user"):
    """Deny everything to the IAM user of the leaked key."""

    def title(self) -> Message:
        """See `Step.title`."""
        return message("deny everything to the IAM user of the leaked key")

    def act(self, context: ResponseContext) -> None:
        """
        One policy; putting it again changes nothing.

        While mail is not held, another key of the same user may be the one that it is sent with:
        the Deny would make SES bounce that mail, so there it is left to CutKey alone.
        """
        user = context.leaked_user()
        other = None if context.holds_mail() else self._other_key(context, user)
        if other is not None:
            context.note("did not deny the user", f"{user} has another active key, {other}")
            return
        context.users.ensure_denied(user, DENY_POLICY)
        context.note("denied everything", user)

    @staticmethod
    def _other_key(context: ResponseContext, user: str) -> str | None:
        active = [
            key.access_key_id
            for key in context.keys.list_access_keys(user)
            if key.status is KeyStatus.ACTIVE and key.access_key_id != context.access_key_id
        ]
        return active[0] if active else None


class PauseSet(ContainmentStep, frozen=True, kw_only=True, tag="pause-set"):
    """Pause the configuration set of the credential."""

    name: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("pause the configuration set {name}", name=self.name)

    def act(self, context: ResponseContext) -> None:
        """One that was paused before is left alone, and is not resumed by us."""
        if context.sending.configuration_set_sending(self.name):
            # Noted first: what we paused must be known even when the answer gets lost.
            paused = [*context.incident.record.paused_configuration_sets, self.name]
            context.note(
                "pausing the configuration set", self.name, paused_configuration_sets=paused
            )
            context.sending.set_configuration_set_sending(self.name, False)


class PauseAccount(ContainmentStep, frozen=True, kw_only=True, tag="pause-account"):
    """Pause the whole account in the region of the credential."""

    region: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("pause all sending of the AWS account in {region}", region=self.region)

    def act(self, context: ResponseContext) -> None:
        """As PauseSet."""
        if context.sending.account_sending():
            paused = [*context.incident.record.paused_accounts, self.region]
            context.note("pausing the account", self.region, paused_accounts=paused)
            context.sending.set_account_sending(False)


class ProveDead(Step[ResponseContext], frozen=True, kw_only=True, tag="prove-dead"):
    """See SES refuse the leaked key three times in a row."""

    access_key_id: str

    def title(self) -> Message:
        """See `Step.title`."""
        return message("prove that SES refuses the leaked key, three times in a row")

    def act(self, context: ResponseContext) -> None:
        """Fail when it is not refused in time: then it is still alive."""
        if context.leaked_version() is None:
            self._ask_iam(context)
        else:
            self._ask_ses(context)
        at = context.pace.timestamp()
        context.note("the key is dead", self.access_key_id, proved_at=at)

    def _ask_ses(self, context: ResponseContext) -> None:
        deadline = context.pace.monotonic() + context.panic.proof_timeout_s
        in_a_row = 0
        while in_a_row < REFUSALS:
            unknown = None
            try:
                refusal = self._refusal(context)
            except TemporaryFailure as error:
                refusal, unknown = None, error
            in_a_row = in_a_row + 1 if refusal else 0
            context.note("tried the leaked key", refusal or str(unknown or "SES took it"))
            if refusal is None:
                if context.pace.monotonic() >= deadline:
                    raise _still_alive(self.access_key_id, unknown) from unknown
                context.pace.sleep(_POLL_S)

    @staticmethod
    def _refusal(context: ResponseContext) -> str | None:
        """What SES said when it refused, or None when it took the login and the mail."""
        version = context.leaked_version()
        assert version is not None
        credential = context.credential
        if credential.canary_sender is None:
            domain = next(iter(credential.sender_domains), "example.com")
            credential = msgspec.structs.replace(credential, canary_sender=f"sesguard@{domain}")
        try:
            reply = send_test_mail(version, credential, timeout_s=_PROOF_TIMEOUT_S)
        except LoginRefused as error:
            return str(error)
        return str(reply) if reply.outcome in _REFUSED else None

    def _ask_iam(self, context: ResponseContext) -> None:
        """The vault does not know the password, so nobody can try it: IAM has to do."""
        for _ in range(REFUSALS):
            status = find_status(context.keys, context.leaked_user(), self.access_key_id)
            if status is KeyStatus.ACTIVE:
                raise _still_alive(self.access_key_id, None)
            context.note("asked IAM for the key", status.value if status else "it is gone")


def _still_alive(access_key_id: str, unknown: Error | None) -> UpstreamError:
    if unknown is not None:
        return UpstreamError(
            "it cannot be told whether the leaked key {key} is dead: {reason}",
            hint="the mail stays held; run again once SES can be reached: sesguard panic",
            key=access_key_id,
            reason=unknown,
        )
    return UpstreamError(
        "the leaked key {key} still works; the mail of this host stays held",
        hint="deactivate {key} in the IAM console, then run: sesguard panic --key {key}",
        key=access_key_id,
    )


STEP_TYPES: Final[tuple[type[Step[ResponseContext]], ...]] = (
    HoldMail,
    WaitForSessions,
    CutKey,
    DenyUser,
    PauseSet,
    PauseAccount,
    ProveDead,
)
"""Every kind of step that a journal of containments may hold."""

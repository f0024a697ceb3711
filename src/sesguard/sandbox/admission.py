"""
Whether SES takes a message: the decision at the end of DATA.

In this order, each with its reply: the header section can be read; IAM allows ``ses:SendRawEmail``
on the identity of the From address, on the configuration set that is used, and - without production
access - on the identity of every recipient; the account and the configuration set are not paused;
the configuration set exists; From, Sender and Return-Path are verified, and without production
access the recipients too; the quotas are not used up. The order of IAM, pause and verification is
not documented by AWS.

An identity is the address itself, or else its domain or a parent of that. The addresses of the
mailbox simulator count as verified recipients.

The texts are those of the AWS page on SMTP issues; those for a paused and for a missing
configuration set follow the API's and are not verified live.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sesguard.sandbox import backends
from sesguard.sandbox.accounts import Principal
from sesguard.sandbox.message import Message
from sesguard.sandbox.model import ACCOUNT_ID
from sesguard.sandbox.policy import evaluate
from sesguard.sandbox.state import SandboxState

ACTION: Final = "ses:SendRawEmail"
SIMULATOR_DOMAIN: Final = "simulator.amazonses.com"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """A message, who sends it, and how it came."""

    principal: Principal
    source_address: str
    secure: bool
    envelope_sender: str
    recipients: tuple[str, ...]
    message: Message


def identity_of(address: str, identities: frozenset[str]) -> str | None:
    """The identity that covers `address`: itself, its domain, or a parent of the domain."""
    local, _, domain = address.rpartition("@")
    domain = domain.lower()
    if f"{local}@{domain}" in identities:
        return f"{local}@{domain}"
    while domain:
        if domain in identities:
            return domain
        _, _, domain = domain.partition(".")
    return None


class Admission:
    """Decides on one submission, in the region of the endpoint at that moment."""

    def __init__(self, state: SandboxState, submission: Submission) -> None:
        self._state = state
        self._submission = submission
        self._settings = state.settings
        self._region = state.settings.region
        self._identities = backends.list_identities(self._region)
        self.configuration_set = self._find_configuration_set()

    def refusal(self) -> str | None:
        """The reply that refuses the message, or None: then it has been counted as sent."""
        return (
            self._denied()
            or self._paused()
            or self._unverified()
            or self._state.quota.take(len(self._submission.recipients))
        )

    def _denied(self) -> str | None:
        principal = self._submission.principal
        policies = backends.list_policies(principal.user_name)
        context = self._context()
        for resource in self._resources():
            decision = evaluate(policies, ACTION, resource, context)
            if not decision.allowed:
                _log.info("%s on %s: %s", principal.user_name, resource, decision.reason)
                return (
                    f"554 Access denied: User `{principal.arn}' is not authorized to perform "
                    f"`{ACTION}' on resource `{resource}'"
                )
        return None

    def _resources(self) -> Iterator[str]:
        yield self._identity_arn(self._submission.message.sender.address)
        if self.configuration_set is not None:
            yield self._arn(f"configuration-set/{self.configuration_set}")
        if not self._settings.production_access:
            for recipient in self._submission.recipients:
                if not _is_simulator(recipient):
                    yield self._identity_arn(recipient)

    def _context(self) -> dict[str, list[str]]:
        submission = self._submission
        context = {
            "aws:currenttime": [datetime.now(UTC).isoformat()],
            "aws:securetransport": [str(submission.secure).lower()],
            "aws:sourceip": [submission.source_address],
            "ses:apiversion": ["2"],
            "ses:feedbackaddress": [submission.envelope_sender],
            "ses:fromaddress": [submission.message.sender.address],
            "ses:recipients": list(submission.recipients),
        }
        if submission.message.sender.display_name:
            context["ses:fromdisplayname"] = [submission.message.sender.display_name]
        return context

    def _paused(self) -> str | None:
        if not self._state.sending_enabled(self._region):
            return (
                "554 Message rejected: Sending paused for this account. For more information, "
                "please check the inbox of the email address associated with your AWS account."
            )
        name = self.configuration_set
        if name is None:
            return None
        enabled = backends.configuration_set_sending(self._region, name)
        if enabled is None:
            return f"554 Message rejected: Configuration set <{name}> does not exist."
        if not enabled:
            return f"554 Message rejected: Sending paused for configuration set <{name}>."
        return None

    def _unverified(self) -> str | None:
        submission = self._submission
        addresses = [*submission.message.author_addresses, submission.envelope_sender]
        if not self._settings.production_access:
            addresses += [item for item in submission.recipients if not _is_simulator(item)]
        failed = [item for item in dict.fromkeys(addresses) if not self._is_verified(item)]
        if not failed:
            return None
        return (
            "554 Message rejected: Email address is not verified. The following identities "
            f"failed the check in region {self._region.upper()}: {', '.join(failed)}"
        )

    def _is_verified(self, address: str) -> bool:
        return identity_of(address, self._identities) is not None

    def _find_configuration_set(self) -> str | None:
        named = self._submission.message.configuration_set
        if named is not None:
            return named
        identity = identity_of(self._submission.message.sender.address, self._identities)
        if identity is None:
            return None
        return backends.default_configuration_set(self._region, identity)

    def _identity_arn(self, address: str) -> str:
        return self._arn(f"identity/{identity_of(address, self._identities) or address}")

    def _arn(self, name: str) -> str:
        return f"arn:aws:ses:{self._region}:{ACCOUNT_ID}:{name}"


def _is_simulator(address: str) -> bool:
    return address.rpartition("@")[2].lower() == SIMULATOR_DOMAIN

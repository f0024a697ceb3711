"""Sending by the SES API, through the real boto3 against the sandbox."""

import socket

import pytest

from rigs.sandbox import SandboxRig, mail
from sesguard.aws.raw_mail import RawMailSender
from sesguard.core.secret import Secret
from sesguard.errors import (
    AwsDenied,
    AwsPermanent,
    AwsThrottled,
    AwsTransient,
    Error,
    TemporaryFailure,
)
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.process import ADMIN_ACCESS_KEY

KEY = (ADMIN_ACCESS_KEY, Secret(ADMIN_ACCESS_KEY))


def _send(sender: RawMailSender, address: str = "app@example.com") -> str:
    return sender.send("us-east-1", address, ["user@example.net"], mail(address))


@pytest.fixture
def sender(rig: SandboxRig) -> RawMailSender:
    """A sender to the sandbox."""
    rig.seed()
    return RawMailSender(endpoint_url=rig.info.endpoint_url, access_key=KEY)


def test_a_message_gets_an_id(sender: RawMailSender) -> None:
    """The id is what SES calls the message."""
    assert _send(sender) != _send(sender)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ApiFaultKind.THROTTLED, AwsThrottled),
        (ApiFaultKind.DENIED, AwsDenied),
        (ApiFaultKind.INTERNAL, AwsTransient),
        (ApiFaultKind.LOST, AwsTransient),
        (ApiFaultKind.UNREACHABLE, AwsTransient),
    ],
)
def test_a_call_is_made_once(
    rig: SandboxRig, sender: RawMailSender, kind: ApiFaultKind, expected: type[Error]
) -> None:
    """Each fault is its error, and boto3 does not try again behind our back."""
    rig.client.set_api_faults(ApiFault("ses:SendEmail", kind, count=1))

    with pytest.raises(expected):
        _send(sender)
    assert _send(sender)


def test_an_address_that_is_not_verified(sender: RawMailSender) -> None:
    """It is refused for good, with SES's own code."""
    with pytest.raises(AwsPermanent) as caught:
        _send(sender, "app@example.org")

    assert "MessageRejected" == caught.value.parameters["code"]


def test_a_region_that_cannot_be_reached() -> None:
    """Nothing was sent, and the error says so by its class."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    with pytest.raises(TemporaryFailure, match="us-east-1"):
        _send(RawMailSender(endpoint_url=f"http://127.0.0.1:{port}", access_key=KEY))

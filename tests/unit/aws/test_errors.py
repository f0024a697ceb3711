"""What botocore raises becomes our errors: by table, and against real answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    WaiterError,
)
from botocore.parsers import ResponseParserError

from rigs.sandbox import SandboxRig
from sesguard.aws.errors import AwsMissing, aws_errors
from sesguard.aws.iam import IamKeys
from sesguard.aws.ses import SesAccount
from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret
from sesguard.errors import AwsDenied, AwsError, AwsPermanent, AwsThrottled, AwsTransient
from sesguard.sandbox.seed import SeededKey

NOTHING = Secret("nothing")


def answer(code: str, status: int = 400, message: str = "Because.") -> ClientError:
    """An error answer of AWS."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "Operation")


def raised(error: Exception) -> AwsError:
    """Our error for botocore's."""
    with pytest.raises(AwsError) as caught, aws_errors("iam:Something"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, AwsDenied),
        ("InvalidClientTokenId", 403, AwsDenied),
        ("UnrecognizedClientException", 403, AwsDenied),
        ("AuthFailure", 401, AwsDenied),
        ("ExpiredToken", 403, AwsDenied),
        ("Throttling", 400, AwsThrottled),
        ("TooManyRequestsException", 429, AwsThrottled),
        ("ServiceFailure", 500, AwsTransient),
        ("ServiceUnavailable", 503, AwsTransient),
        ("SomethingNew", 500, AwsTransient),
        ("SomethingNew", 400, AwsPermanent),
        ("NoSuchEntity", 404, AwsMissing),
        ("NotFoundException", 404, AwsMissing),
        ("LimitExceeded", 409, AwsPermanent),
        ("LimitExceededException", 400, AwsPermanent),
        ("EntityAlreadyExists", 409, AwsPermanent),
    ],
)
def test_an_error_answer(code: str, status: int, expected: type[AwsError]) -> None:
    """The code decides; an unknown one is transient when the fault is on AWS's side."""
    error = raised(answer(code, status))

    assert expected is type(error)
    assert str(error) == f"AWS refused iam:Something: Because ({code})"
    assert error.parameters["code"] == code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("InvalidSignatureException", "Signature expired: 1 is now earlier than 2"),
        ("InvalidSignatureException", "Signature not yet current: 2 is still later than 1"),
        ("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2"),
        ("RequestExpired", "Request has expired."),
        ("RequestTimeTooSkewed", "The difference is too large."),
    ],
)
def test_a_wrong_clock_is_named(code: str, message: str) -> None:
    """No right helps there."""
    error = raised(answer(code, 403, message))

    assert isinstance(error, AwsDenied)
    assert "clock" in str(error.hint)


def test_a_wrong_secret_key_is_no_matter_of_the_clock() -> None:
    """The same code with another reason."""
    error = raised(answer("InvalidSignatureException", 403, "The request signature we calculated"))

    assert isinstance(error, AwsDenied)
    assert "clock" not in str(error.hint)


def test_an_answer_without_a_reason() -> None:
    """A broken answer still makes a sentence."""
    error = raised(ClientError({}, "Operation"))

    assert str(error) == "AWS refused iam:Something: no reason given (Unknown)"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="http://x"), AwsTransient),
        (ReadTimeoutError(endpoint_url="http://x"), AwsTransient),
        (ResponseParserError("bad\nwith the whole answer"), AwsTransient),
        (WaiterError(name="x", reason="Max attempts exceeded", last_response={}), AwsTransient),
        (NoCredentialsError(), AwsDenied),
        (PartialCredentialsError(provider="env", cred_var="x"), AwsDenied),
        (NoRegionError(), AwsPermanent),
        (ParamValidationError(report="x"), AwsPermanent),
    ],
)
def test_no_answer(error: BotoCoreError | ResponseParserError, expected: type[AwsError]) -> None:
    """Without an answer it depends on whether the call can have been made."""
    ours = raised(error)

    assert expected is type(ours)
    assert type(error).__name__ == ours.parameters["code"]
    assert "\n" not in str(ours)


def test_missing_credentials_have_a_hint() -> None:
    """The user is told where credentials come from."""
    assert raised(NoCredentialsError()).hint is not None


def test_what_is_not_of_botocore_is_left_alone() -> None:
    """A mistake of ours is not dressed up as AWS's."""
    with pytest.raises(ZeroDivisionError), aws_errors("iam:Something"):
        raise ZeroDivisionError


def test_a_retired_key_is_denied(rig: SandboxRig) -> None:
    """AWS does not take an inactive key."""
    key = rig.seed()
    rig.aws("iam").update_access_key(
        UserName=key.user_name, AccessKeyId=key.access_key_id, Status="Inactive"
    )

    with pytest.raises(AwsDenied):
        IamKeys(_session(rig.info.endpoint_url, key)).list_access_keys(key.user_name)


def test_an_operation_that_the_service_lacks_is_transient(rig: SandboxRig) -> None:
    """moto answers 500 with a page that cannot be parsed."""
    with pytest.raises(AwsTransient), aws_errors("iam:SimulatePrincipalPolicy"):
        rig.aws("iam").simulate_principal_policy(
            PolicySourceArn="arn:aws:iam::123456789012:user/x", ActionNames=["ses:SendRawEmail"]
        )


def test_a_port_where_nobody_listens() -> None:
    """A refused connection is transient."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(AwsTransient, match="AWS did not answer iam:CreateAccessKey"):
            IamKeys(_session(url)).create_access_key("alice")


def test_making_a_key_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that gets lost must not make a second key; other calls are repeated."""
    with _server_that_hangs_up() as (url, connections):
        with pytest.raises(AwsTransient):
            IamKeys(_session(url)).create_access_key("alice")
        once = len(connections)
        with pytest.raises(AwsTransient):
            SesAccount(_session(url)).send_quota()

    assert once == 1
    assert len(connections) > 2


def test_a_profile_that_is_not_there() -> None:
    """The profile is named."""
    with pytest.raises(AwsPermanent, match="not-there"):
        AwsSession("us-east-1", "not-there")


def _session(url: str, key: SeededKey | None = None) -> AwsSession:
    access_key = (key.access_key_id, key.secret_key) if key else ("nobody", NOTHING)
    return AwsSession("us-east-1", endpoint_url=url, access_key=access_key)


@contextmanager
def _server_that_hangs_up() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that reads a request and closes; gives its URL and a list of its callers."""
    connections: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, address = server.accept()
                except OSError:
                    return
                with peer:
                    connections.append(str(address))
                    peer.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()

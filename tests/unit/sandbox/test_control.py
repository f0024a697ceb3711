"""The control interface: its client, and what it refuses."""

import http.client
import json
import socket
import threading
from typing import Any

import pytest

from rigs.sandbox import SandboxRig, mail
from sesguard.errors import SandboxError
from sesguard.sandbox.client import SandboxClient
from sesguard.sandbox.model import (
    ApiFault,
    ApiFaultKind,
    Fault,
    FaultKind,
    SandboxSettings,
    Stage,
    TlsMode,
)


def request(
    rig: SandboxRig,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """One raw HTTP request to the sandbox."""
    host, _, port = rig.info.endpoint_url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_status_at_the_start(rig: SandboxRig) -> None:
    """A fresh sandbox is empty, undisturbed and open."""
    status = rig.client.status()

    assert rig.info.pid == status.pid
    assert SandboxSettings() == status.settings
    assert (status.messages, status.messages_dropped, status.connections) == (0, 0, 0)
    assert (status.faults, status.api_faults) == ((), ())
    assert status.sending_enabled


def test_settings_are_changed_one_by_one(rig: SandboxRig) -> None:
    """What is not named keeps its value."""
    rig.client.configure(new_key_delay_s=2)
    settings = rig.client.configure(region="eu-west-1", production_access=False)

    assert settings == SandboxSettings(
        region="eu-west-1", new_key_delay_s=2.0, production_access=False
    )
    assert settings == rig.client.status().settings


@pytest.mark.parametrize(
    "changes",
    [
        {"regin": "us-east-1"},
        {"region": "email-smtp.us-east-1.amazonaws.com"},
        {"region": 1},
        {"new_key_delay_s": "soon"},
        {"production_access": "yes"},
        {"idle_timeout_s": -1},
    ],
)
def test_wrong_settings_are_refused_and_change_nothing(
    rig: SandboxRig, changes: dict[str, Any]
) -> None:
    """A wrong name, type or region leaves everything as it was."""
    with pytest.raises(SandboxError, match="the sandbox refused PATCH settings"):
        rig.client.configure(**changes)

    assert SandboxSettings() == rig.client.status().settings


def test_the_inbox_can_be_cleared(rig: SandboxRig) -> None:
    """Messages and connections are forgotten separately."""
    rig.send(rig.login())
    rig.client.clear_inbox()
    kept = rig.client.status().connections
    rig.client.clear_connections()

    assert rig.client.inbox() == []
    assert kept == 1
    assert rig.client.connections() == []


def test_a_message_that_is_not_there(rig: SandboxRig) -> None:
    """An unknown id, however odd, is an error."""
    for message_id in ("none", "../status", "a/b", "%00", ""):
        with pytest.raises(SandboxError):
            rig.client.raw_message(message_id)


def test_a_reset_restores_everything(rig: SandboxRig) -> None:
    """After a reset the sandbox is as new: AWS, mail, faults, settings, TLS."""
    login = rig.login()
    rig.send(login)
    rig.client.configure(max_send_rate=1)
    rig.client.set_faults(Fault(Stage.DATA, FaultKind.DROP))
    rig.client.set_api_faults(ApiFault("sts:*", ApiFaultKind.DENIED))
    rig.client.set_tls_mode(TlsMode.EXPIRED)
    rig.aws("ses").update_account_sending_enabled(Enabled=False)

    rig.client.reset()

    status = rig.client.status()
    assert SandboxSettings() == status.settings
    assert (status.messages, status.connections) == (0, 0)
    assert (status.faults, status.api_faults) == ((), ())
    assert status.tls_mode is TlsMode.NORMAL
    assert status.sending_enabled
    assert rig.aws("iam").list_users()["Users"] == []
    assert rig.aws("ses").get_send_quota()["SentLast24Hours"] == 0.0


@pytest.mark.parametrize("path", ["/_sesguard/status", "/", "/moto-api/data.json"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1"])
def test_a_foreign_host_header_is_refused(rig: SandboxRig, path: str, host: str) -> None:
    """A web page whose name was pointed at loopback reaches neither us nor moto."""
    assert request(rig, "GET", path, headers={"Host": host})[0] == 403


def test_a_request_without_a_host_header_is_refused(rig: SandboxRig) -> None:
    """HTTP/1.0 without Host is refused as well."""
    port = int(rig.info.endpoint_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(b"GET /_sesguard/status HTTP/1.0\r\n\r\n")

        assert b" 403 " in peer.recv(4096)


def test_a_request_of_a_web_page_is_refused(rig: SandboxRig) -> None:
    """A request with an Origin does nothing."""
    status, _ = request(
        rig, "POST", "/_sesguard/reset", b"", {"Origin": "http://127.0.0.1:1", "Host": "localhost"}
    )

    assert status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "nothing", None, 404),
        ("GET", "", None, 404),
        ("POST", "status", b"", 405),
        ("DELETE", "messages/x/raw", None, 404),
        ("PUT", "faults", b"", 400),
        ("PUT", "faults", b'[{"stage": "data", "kind": "explode"}]', 400),
        ("PUT", "faults", b'[{"stage": "never", "kind": "drop"}]', 400),
        ("PUT", "faults", b"{}", 400),
        ("PUT", "api-faults", b'[{"operation": "iam:*", "kind": "explode"}]', 400),
        ("PUT", "api-faults", b'[{"kind": "lost"}]', 400),
        ("PUT", "api-faults", b'[{"operation": "*", "kind": "lost", "after": -1}]', 400),
        ("PUT", "tls-mode", b'"perhaps"', 400),
        ("PATCH", "settings", b"[]", 400),
        ("PATCH", "settings", b"\xff\x00", 400),
        ("PATCH", "settings", b" " * 2_000_000, 413),
    ],
)
def test_requests_that_are_refused(
    rig: SandboxRig, method: str, path: str, body: bytes | None, expected: int
) -> None:
    """Every refusal is JSON with a reason."""
    status, answer = request(rig, method, f"/_sesguard/{path}", body)

    assert expected == status
    assert json.loads(answer)["error"]


def test_a_sandbox_that_is_not_there() -> None:
    """A connection that is refused is our error with a hint."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(SandboxError, match="cannot reach the sandbox") as caught:
        SandboxClient(f"http://127.0.0.1:{port}").status()

    assert caught.value.hint == "run: sesguard sandbox up"


def test_an_answer_that_is_not_ours() -> None:
    """Another server on the port is not taken for a sandbox."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = SandboxClient(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3)
        with pytest.raises(SandboxError, match="cannot reach the sandbox"):
            client.status()


def test_a_proxy_of_the_environment_is_not_asked(
    rig: SandboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control interface is reached directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert rig.info.pid == rig.client.status().pid


def test_an_unreadable_call_goes_to_moto(rig: SandboxRig) -> None:
    """An AWS request that cannot be read does not break the overlay."""
    credential = "AWS4-HMAC-SHA256 Credential=x/20240101/us-east-1/ses/aws4_request, Signature=x"
    for path, body in (("/v2/email/nothing", b""), ("/", b"\xff"), ("/v2/email/identities", b"{")):
        status, _ = request(
            rig,
            "POST",
            path,
            body,
            {"Authorization": credential, "Content-Type": "application/x-www-form-urlencoded"},
        )
        assert status in {200, 400, 403, 404, 500}
    assert rig.info.pid == rig.client.status().pid


def test_a_message_is_listed_once_per_acceptance(rig: SandboxRig) -> None:
    """The inbox keeps order, oldest first."""
    login = rig.login()
    for number in range(5):
        rig.send(login, mail(headers={"X-Number": str(number)}))

    assert list("01234") == [item.header("x-number") for item in rig.client.inbox()]


def test_a_number_of_results_beyond_a_page_is_refused(rig: SandboxRig) -> None:
    """CloudTrail's limit holds for a client that does not check it itself."""
    credential = "Credential=x/20240101/us-east-1/cloudtrail/aws4_request"
    status, answer = request(
        rig,
        "POST",
        "/",
        b'{"MaxResults": 51}',
        {"Authorization": credential, "X-Amz-Target": "CloudTrail_20131101.LookupEvents"},
    )

    assert (status, json.loads(answer)["__type"]) == (400, "InvalidMaxResultsException")


def test_another_program_on_the_port_is_not_taken_for_a_sandbox() -> None:
    """An answer that is no status is our error."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SandboxError, match="the answer is not that of a sandbox"):
            SandboxClient(f"http://127.0.0.1:{server.getsockname()[1]}").status()
        thread.join()

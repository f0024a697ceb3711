"""
AWS API calls as they pass through the overlay: what is asked, by whom, and answers of our own.

Three protocols are read: query (IAM, SES v1, STS, EC2: a form with ``Action``), JSON (CloudTrail,
Secrets Manager, KMS, SSM: a target header) and the REST-JSON of SES v2, whose operation moto's own
copy of the service model finds from method and path. A call of any other protocol, without a
signature, or with a body beyond `MAX_BODY_BYTES` is not read, and goes to moto as it is. Signatures
are not verified; the access key id in them is believed.
"""

import io
import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.sax.saxutils import escape

from moto.core.request import Request
from moto.core.routing import get_service_router
from werkzeug.exceptions import HTTPException

MAX_BODY_BYTES: Final = 64 * 1024 * 1024

_CREDENTIAL: Final = re.compile(
    r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request"
)


class Protocol(Enum):
    """How calls and answers are written."""

    QUERY = auto()
    JSON = auto()
    REST_JSON = auto()


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call of an AWS API."""

    service: str
    """Signing name, such as ``iam``; ``sesv2`` for the paths of SES v2, which signs as ``ses``."""
    region: str
    operation: str
    access_key_id: str
    source_address: str
    user_agent: str
    protocol: Protocol
    parameters: dict[str, Any]
    """Form fields, members of the JSON document, and parts of the path."""

    @property
    def action(self) -> str:
        """The call as a policy names it, such as ``iam:CreateAccessKey``."""
        return f"{self.service.removesuffix('v2')}:{self.operation}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def read_call(environ: dict[str, Any]) -> ApiCall | None:
    """Read the call of a WSGI request; its body can be read again afterwards."""
    scope = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    body = _read_body(environ) if scope is not None else None
    if scope is None or body is None:
        return None
    service = scope["service"]
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if service == "ses" and environ["PATH_INFO"].startswith("/v2/"):
        service, protocol = "sesv2", Protocol.REST_JSON
        operation, parameters = _read_rest(environ, body)
    elif target:
        protocol = Protocol.JSON
        operation, parameters = target.rpartition(".")[2], _json_object(body)
    else:
        protocol = Protocol.QUERY
        parameters = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        operation = parameters.get("Action", "")
    if not operation:
        return None
    return ApiCall(
        service,
        scope["region"],
        operation,
        scope["key"],
        environ.get("REMOTE_ADDR", ""),
        environ.get("HTTP_USER_AGENT", ""),
        protocol,
        parameters,
    )


def answer(call: ApiCall, result: dict[str, Any]) -> Answer:
    """A successful answer; under the query protocol the values must be texts."""
    if call.protocol is Protocol.QUERY:
        fields = "".join(f"<{name}>{escape(str(item))}</{name}>" for name, item in result.items())
        return _xml(
            200,
            f"<{call.operation}Response><{call.operation}Result>{fields}</{call.operation}Result>"
            f"<ResponseMetadata>{_request_id()}</ResponseMetadata></{call.operation}Response>",
        )
    return Answer(200, "application/x-amz-json-1.1", json.dumps(result).encode())


def error_answer(call: ApiCall, status: int, code: str, message: str) -> Answer:
    """A failure."""
    if call.protocol is not Protocol.QUERY:
        document = {"__type": code, "message": message}
        return Answer(
            status,
            "application/x-amz-json-1.1",
            json.dumps(document).encode(),
            (("x-amzn-ErrorType", code),),
        )
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.service == "ec2":
        return _xml(status, f"<Response><Errors><Error>{error}</Error></Errors></Response>")
    return _xml(
        status,
        f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error>{_request_id()}</ErrorResponse>",
    )


def _read_body(environ: dict[str, Any]) -> bytes | None:
    length = environ.get("CONTENT_LENGTH") or "0"
    if (
        not length.isdecimal()
        or int(length) > MAX_BODY_BYTES
        or "HTTP_TRANSFER_ENCODING" in environ
    ):
        return None
    body = bytes(environ["wsgi.input"].read(int(length)))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _read_rest(environ: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    try:
        operation, parts = get_service_router("sesv2").match(Request(environ.copy()))
    except (HTTPException, NotImplementedError):
        return "", {}
    return operation.name, _json_object(body) | parts


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _xml(status: int, text: str) -> Answer:
    return Answer(status, "text/xml", f'<?xml version="1.0"?>{text}'.encode())


def _request_id() -> str:
    return f"<RequestId>{uuid4()}</RequestId>"

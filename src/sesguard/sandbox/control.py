"""
The control interface: JSON over HTTP under ``/_sesguard/``, on the port of the AWS endpoint.

    GET    status
    PATCH  settings          {"new_key_delay_s": 5.0, ...}    answers with all settings
    GET    messages          DELETE messages
    GET    messages/ID/raw   message/rfc822
    GET    connections       DELETE connections
    PUT    faults            [{"stage": "auth", "kind": "454", "count": 1}, ...]; [] clears
    PUT    api-faults        [{"operation": "iam:*", "kind": "lost"}, ...]; [] clears
    PUT    tls-mode          "expired"
    POST   reset             everything as at the start

Errors are ``{"error": text}`` with status 400, 403, 404, 405 or 413. A request with an Origin
header is refused (403): browsers send it, and nobody uses this from a web page. The Host header has
been checked by the overlay.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from werkzeug.wrappers import Request, Response

from sesguard.errors import CredentialError
from sesguard.sandbox.model import CONTROL_PREFIX, ApiFault, Fault, TlsMode, decode, encode
from sesguard.sandbox.state import SandboxState

MAX_BODY_BYTES: Final = 1024 * 1024

_RAW_SUFFIX: Final = "/raw"


class Control:
    """Answers requests of the control interface."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._routes: dict[tuple[str, str], Callable[[bytes], object]] = {
            ("GET", "status"): lambda _: state.status(),
            ("PATCH", "settings"): self._change_settings,
            ("GET", "messages"): lambda _: state.inbox.list_messages(),
            ("DELETE", "messages"): lambda _: state.inbox.clear(),
            ("GET", "connections"): lambda _: state.connections.list_connections(),
            ("DELETE", "connections"): lambda _: state.connections.clear(),
            ("PUT", "faults"): self._set_faults,
            ("PUT", "api-faults"): self._set_api_faults,
            ("PUT", "tls-mode"): self._set_tls_mode,
            ("POST", "reset"): lambda _: state.reset(),
        }

    def respond(self, environ: dict[str, Any]) -> Response:
        """Answer one request."""
        request = Request(environ)
        if "Origin" in request.headers:
            return _failure(403, "requests from a web page are refused")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return _failure(413, "the body is too large")
        path = request.path.removeprefix(CONTROL_PREFIX)
        if path.startswith("messages/") and path.endswith(_RAW_SUFFIX) and request.method == "GET":
            return self._raw(path.removeprefix("messages/").removesuffix(_RAW_SUFFIX))
        handler = self._routes.get((request.method, path))
        if handler is None:
            known = any(path == other for _, other in self._routes)
            return _failure(405, "method not allowed") if known else _failure(404, "not found")
        try:
            return _success(handler(request.get_data()))
        except (msgspec.DecodeError, CredentialError) as error:
            return _failure(400, str(error))

    def _change_settings(self, body: bytes) -> object:
        return self._state.change_settings(decode(body, dict[str, Any]))

    def _set_faults(self, body: bytes) -> None:
        self._state.faults.set(decode(body, list[Fault]))

    def _set_api_faults(self, body: bytes) -> None:
        self._state.api_faults.set(decode(body, list[ApiFault]))

    def _set_tls_mode(self, body: bytes) -> None:
        self._state.tls_mode = decode(body, TlsMode)

    def _raw(self, message_id: str) -> Response:
        content = self._state.inbox.read_content(message_id)
        if content is None:
            return _failure(404, "there is no such message")
        return Response(content, content_type="message/rfc822")


def _success(result: object) -> Response:
    return Response(encode(result), content_type="application/json")


def _failure(status: int, text: str) -> Response:
    return Response(encode({"error": text}), status, content_type="application/json")

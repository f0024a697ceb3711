"""
The WSGI application on the AWS endpoint: our answers first, moto behind them.

A request goes to the control interface when its path begins with ``/_sesguard/``. Otherwise it is
an AWS call: struck by a fault when one is set for it, refused when its access key is one of ours
and does not work (any more) or may not make that call (`sesguard.sandbox.rights`), answered by us
where moto lacks the operation or is more lenient than AWS, and else by moto. Every call that can be
read and was taken or refused is recorded in the trail; after an IAM call the record of access keys
is brought up to date, before the caller hears the answer.

A Host header that is not loopback is refused with 403, so that a web page whose name was pointed at
127.0.0.1 (DNS rebinding) reaches nothing.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from werkzeug.wrappers import Response

from sesguard.sandbox.accounts import Principal
from sesguard.sandbox.answers import ses_answer
from sesguard.sandbox.calls import Answer, ApiCall, read_call
from sesguard.sandbox.control import Control
from sesguard.sandbox.key_stores import key_store_answer
from sesguard.sandbox.model import CONTROL_PREFIX, ApiFault, ApiFaultKind
from sesguard.sandbox.refusals import fault_answer, invalid_key
from sesguard.sandbox.rights import refuse_unless_allowed
from sesguard.sandbox.state import SandboxState

WsgiApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]

_ERROR_CODE: Final = re.compile(rb'<Code>([\w.]+)</Code>|"__type": ?"(?:[^"]*#)?([\w.]+)"')


class Overlay:
    """Wraps moto."""

    def __init__(self, state: SandboxState, moto: WsgiApplication) -> None:
        self._state = state
        self._moto = moto
        self._control = Control(state)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        return self._respond(environ)(environ, start_response)

    def _respond(self, environ: dict[str, Any]) -> Response:
        if not is_loopback_host(environ.get("HTTP_HOST", "")):
            return Response("the Host header must be a loopback name or address\n", 403)
        if environ["PATH_INFO"].startswith(CONTROL_PREFIX):
            return self._control.respond(environ)
        call = read_call(environ)
        if call is None:
            return Response.from_app(self._moto, environ, buffered=True)
        fault = self._state.api_faults.take(call.action)
        return self._perform(call, environ) if fault is None else self._strike(fault, call, environ)

    def _strike(self, fault: ApiFault, call: ApiCall, environ: dict[str, Any]) -> Response:
        if fault.kind is ApiFaultKind.UNREACHABLE:
            response = Response()
        else:
            response = self._perform(call, environ, fault_answer(fault.kind, call))
        time.sleep(fault.delay_s)
        if fault.kind in {ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE}:
            # The server notices when it writes, and gives up without a word.
            with suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response

    def _perform(
        self, call: ApiCall, environ: dict[str, Any], refused: Answer | None = None
    ) -> Response:
        principal = self._state.accounts.find_principal(call.access_key_id)
        ours = refused or self._answer(call, principal)
        if ours is not None:
            response = Response(
                ours.body, ours.status, dict(ours.headers), content_type=ours.content_type
            )
        else:
            response = Response.from_app(self._moto, environ, buffered=True)
        if call.service == "iam":
            self._state.accounts.observe()
        self._state.trail.record(call, principal, _error_code(response))
        return response

    def _answer(self, call: ApiCall, principal: Principal | None) -> Answer | None:
        if self._state.accounts.key_works(call.access_key_id) is False:
            return invalid_key(call)
        denied = principal and refuse_unless_allowed(call, principal)
        if denied:
            return denied
        if (call.service, call.operation) == ("cloudtrail", "LookupEvents"):
            return self._state.trail.lookup(call)
        return ses_answer(call, self._state) or key_store_answer(call)


def is_loopback_host(host: str) -> bool:
    """Whether a Host header names this machine: localhost, 127.0.0.0/8 or ::1."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _error_code(response: Response) -> str | None:
    if response.status_code < 400:
        return None
    found = _ERROR_CODE.search(response.data)
    if found is not None:
        return (found[1] or found[2]).decode()
    return response.headers.get("x-amzn-ErrorType", f"HTTP{response.status_code}").partition(":")[0]

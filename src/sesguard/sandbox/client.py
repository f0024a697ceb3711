"""
The control interface of a running sandbox, as Python calls.

Only the standard library and our own records are used, so that tests and commands that drive the
sandbox do not import moto.

Raises `SandboxError` when the sandbox cannot be reached or refuses a request.
"""

import http.client
import urllib.error
import urllib.request
from typing import Final, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from sesguard.errors import SandboxError
from sesguard.sandbox.model import (
    CONTROL_PREFIX,
    ApiFault,
    Fault,
    ReceivedMessage,
    SandboxSettings,
    SandboxStatus,
    SettingsChanges,
    SmtpConnection,
    TlsMode,
    decode,
    encode,
)

TIMEOUT_S: Final = 30.0

T = TypeVar("T")


class SandboxClient:
    """Talks to one sandbox."""

    def __init__(self, endpoint_url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = endpoint_url.rstrip("/") + CONTROL_PREFIX
        self._timeout_s = timeout_s
        # Without this a proxy of the environment would be asked for a loopback address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status(self) -> SandboxStatus:
        """The state at a glance."""
        return self._read("status", SandboxStatus)

    def inbox(self) -> list[ReceivedMessage]:
        """Every accepted message, oldest first."""
        return self._read("messages", list[ReceivedMessage])

    def raw_message(self, message_id: str) -> bytes:
        """The bytes of a message as SES would deliver them."""
        return self._request("GET", f"messages/{quote(message_id, safe='')}/raw")

    def clear_inbox(self) -> None:
        """Forget every message."""
        self._request("DELETE", "messages")

    def connections(self) -> list[SmtpConnection]:
        """Every SMTP connection, oldest first."""
        return self._read("connections", list[SmtpConnection])

    def clear_connections(self) -> None:
        """Forget every connection, so that the log begins anew."""
        self._request("DELETE", "connections")

    def configure(self, **changes: Unpack[SettingsChanges]) -> SandboxSettings:
        """Change some settings, such as ``configure(new_key_delay_s=5.0)``; gives all of them."""
        return _decoded(self._request("PATCH", "settings", encode(changes)), SandboxSettings)

    def set_faults(self, *faults: Fault) -> None:
        """Replace all faults of the SMTP endpoint."""
        self._request("PUT", "faults", encode(faults))

    def clear_faults(self) -> None:
        """Take all faults of the SMTP endpoint away."""
        self.set_faults()

    def set_api_faults(self, *faults: ApiFault) -> None:
        """Replace all faults of the AWS API."""
        self._request("PUT", "api-faults", encode(faults))

    def clear_api_faults(self) -> None:
        """Take all faults of the AWS API away."""
        self.set_api_faults()

    def set_tls_mode(self, mode: TlsMode) -> None:
        """Choose what the next connections get to see."""
        self._request("PUT", "tls-mode", encode(mode))

    def reset(self) -> None:
        """Make everything as at the start, AWS resources included."""
        self._request("POST", "reset")

    def _read(self, path: str, kind: type[T]) -> T:
        return _decoded(self._request("GET", path), kind)

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours
            self._base + path,
            data=body,
            method=method,
            headers={"Content-Type": "application/json"} if body is not None else {},
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise SandboxError(
                    "the sandbox refused {method} {path}: {reason}",
                    method=method,
                    path=path,
                    reason=_reason(error.read()),
                ) from error
        except (OSError, http.client.HTTPException) as error:
            raise SandboxError(
                "cannot reach the sandbox at {url}: {reason}",
                hint="run: sesguard sandbox up",
                url=self._base,
                reason=getattr(error, "reason", None) or error,
            ) from error


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return decode(data, kind)
    except msgspec.DecodeError as error:
        raise SandboxError(
            "the answer is not that of a sandbox: {reason}", reason=str(error)
        ) from error


def _reason(body: bytes) -> str:
    try:
        return decode(body, dict[str, str])["error"]
    except (msgspec.DecodeError, KeyError):
        return body.decode("utf-8", "replace").strip()[:200]

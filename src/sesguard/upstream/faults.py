"""What goes wrong between us and an upstream, in words of ours."""

import smtplib
import socket
import ssl

from sesguard.core.endpoints import Endpoint
from sesguard.errors import Error, TemporaryFailure, UpstreamError


def network_error(error: OSError | UnicodeError, endpoint: Endpoint, timeout_s: float) -> Error:
    """
    Turn an exception of the network, TLS or smtplib into the error that fits.

    Args:
        error: Anything but a reply of the upstream.
        endpoint: What we talk to.
        timeout_s: The time that it had.

    Returns:
        `TemporaryFailure` for what may work later; `UpstreamError` where a person must act, such as
        a certificate that does not verify.
    """
    host, port = endpoint.host, endpoint.port
    match error:
        case ssl.SSLCertVerificationError():
            return UpstreamError(
                "the TLS certificate of {host}:{port} does not verify: {reason}",
                hint="check the host name, and ca_file when the endpoint has a CA of its own",
                reason=error.verify_message,
                host=host,
                port=port,
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | smtplib.SMTPServerDisconnected():
            return TemporaryFailure("{host}:{port} closed the connection", host=host, port=port)
        case ssl.SSLError():
            return UpstreamError(
                "no TLS with {host}:{port}: {reason}",
                hint="check host and port: 465 and 2465 start with TLS, the others do not",
                reason=error.reason or error.strerror,
                host=host,
                port=port,
            )
        case smtplib.SMTPNotSupportedError():
            return UpstreamError(
                "{host}:{port} does not offer STARTTLS",
                hint="check host and port; something on the way may strip STARTTLS",
                host=host,
                port=port,
            )
        case TimeoutError():
            return TemporaryFailure(
                "{host}:{port} did not answer within {timeout:g} s",
                timeout=timeout_s,
                host=host,
                port=port,
            )
        case socket.gaierror() | UnicodeError():
            return TemporaryFailure(
                "cannot find the host {host}: {reason}",
                hint="check the name and the DNS of this host",
                reason=getattr(error, "strerror", None) or error,
                host=host,
                port=port,
            )
        case _:
            return TemporaryFailure(
                "no connection to {host}:{port}: {reason}",
                reason=error.strerror or type(error).__name__,
                host=host,
                port=port,
            )

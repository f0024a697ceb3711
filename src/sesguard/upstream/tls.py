"""TLS towards an upstream: verified, for the host that was asked for, 1.2 or newer."""

import ssl
from pathlib import Path

from sesguard.errors import UpstreamError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """
    Make the client's side of TLS.

    Args:
        ca_file: Trusted CA certificates instead of the system's.

    Raises:
        UpstreamError: They cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise UpstreamError(
            "cannot read CA certificates from {path}: {reason}",
            hint="name a PEM file with ca_file",
            path=ca_file,
            reason=error.strerror,
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

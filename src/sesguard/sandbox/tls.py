"""
The throw-away CA of the sandbox, and the certificates that a client must accept or refuse.

Keys and certificates are made anew at every start (ECDSA P-256) and live in memory; only the
certificate of the CA is written down, for the clients. The good certificate names localhost,
127.0.0.1, ::1 and the SMTP host of every region.

The mode is looked up at every handshake, so a change holds for the next connection on both ports.
Session tickets are off: a resumed session would not show its certificate again.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import trustme

from sesguard.core.endpoints import SMTP_REGIONS, smtp_host
from sesguard.sandbox.model import TlsMode

_NAMES: Final = ("localhost", "127.0.0.1", "::1", *map(smtp_host, sorted(SMTP_REGIONS)))
_WRONG_NAME: Final = "mail.example.invalid"


class CertificateAuthority:
    """A CA with one certificate for each `TlsMode`."""

    def __init__(self) -> None:
        self._trusted = trustme.CA(organization_name="sesguard sandbox")
        self._unknown = trustme.CA(organization_name="somebody else")
        self._context_of = cache(self._make_context)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate that clients are to trust."""
        return self._trusted.cert_pem.bytes()

    def server_context(self, mode: Callable[[], TlsMode]) -> ssl.SSLContext:
        """A context that presents the certificate of the mode at the time of each handshake."""

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, *_: object) -> None:
            connection.context = self._context_of(mode())

        context = _new_context(self._issue(TlsMode.NORMAL))
        context.sni_callback = choose
        return context

    def _make_context(self, mode: TlsMode) -> ssl.SSLContext:
        return _new_context(self._issue(mode))

    def _issue(self, mode: TlsMode) -> trustme.LeafCert:
        if mode is TlsMode.WRONG_NAME:
            return self._trusted.issue_cert(_WRONG_NAME)
        if mode is TlsMode.UNKNOWN_CA:
            return self._unknown.issue_cert(*_NAMES)
        if mode is TlsMode.EXPIRED:
            yesterday = datetime.now(UTC) - timedelta(days=1)
            return self._trusted.issue_cert(*_NAMES, not_after=yesterday)
        return self._trusted.issue_cert(*_NAMES)


def _new_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    certificate.configure_cert(context)
    return context

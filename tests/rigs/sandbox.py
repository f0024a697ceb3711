"""A sandbox for tests: a process of its own, with SMTP clients that come from any 127.x.y.z."""

import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import boto3

from sesguard.aws.session import AwsSession
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.sandbox import process
from sesguard.sandbox.client import SandboxClient
from sesguard.sandbox.model import SandboxInfo
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import SeededKey, admin_session, seed_account

LOOPBACK = "127.0.0.1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """An SMTP user and password."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class SandboxRig:
    """A running sandbox and what tests do with it."""

    sandbox: Sandbox

    @property
    def info(self) -> SandboxInfo:
        """Where it is."""
        return self.sandbox.info

    @property
    def client(self) -> SandboxClient:
        """Its control interface."""
        return self.sandbox.client

    def seed(self, **options: Any) -> SeededKey:
        """Make a domain, a user and a key; see `seed_account`."""
        return seed_account(self.sandbox, session=_admin_session(self.sandbox), **options)

    def login(self, key: SeededKey | None = None, *, region: str = "us-east-1") -> Login:
        """The SMTP login of a key; without one, of a freshly seeded account."""
        key = key or self.seed()
        return Login(key.access_key_id, derive_smtp_password(key.secret_key, region))

    def aws(self, service: str, key: SeededKey | None = None, **options: Any) -> Any:
        """A boto3 client of the sandbox: of its root user, or of that key."""
        make: Any = boto3.client
        return make(
            service,
            endpoint_url=self.info.endpoint_url,
            aws_access_key_id=key.access_key_id if key else process.ADMIN_ACCESS_KEY,
            aws_secret_access_key=key.secret_key.reveal() if key else process.ADMIN_ACCESS_KEY,
            **{"region_name": "us-east-1", **options},
        )

    def client_context(self) -> ssl.SSLContext:
        """A TLS context that trusts the sandbox's CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.info.ca_file))

    @contextmanager
    def plain_connection(self, source: str = LOOPBACK) -> Iterator[smtplib.SMTP]:
        """A connection to the STARTTLS port before STARTTLS, from that loopback address."""
        with smtplib.SMTP(
            LOOPBACK, self.info.starttls_port, timeout=10, source_address=(source, 0)
        ) as connection:
            assert connection.sock is not None
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    @contextmanager
    def tls_connection(self, source: str = LOOPBACK) -> Iterator[smtplib.SMTP]:
        """A connection with verified TLS, not logged in."""
        with self.plain_connection(source) as connection:
            connection.starttls(context=self.client_context())
            connection.ehlo()
            yield connection

    @contextmanager
    def session(self, login: Login, source: str = LOOPBACK) -> Iterator[smtplib.SMTP]:
        """A logged-in connection."""
        with self.tls_connection(source) as connection:
            connection.login(login.user, login.password.reveal())
            yield connection

    def send(self, login: Login, content: bytes | None = None, **options: Any) -> tuple[int, str]:
        """Log in, send one message, and give the reply to the end of DATA."""
        source = options.pop("source", LOOPBACK)
        with self.session(login, source) as connection:
            return transaction(connection, content, **options)


@cache
def _admin_session(sandbox: Sandbox) -> AwsSession:
    return admin_session(sandbox)


@contextmanager
def running_sandbox(directory: Path, *, region: str = "us-east-1") -> Iterator[SandboxRig]:
    """Run a sandbox for the length of a block."""
    with process.running_sandbox(directory, region=region) as sandbox:
        yield SandboxRig(sandbox)


def mail(sender: str = "app@example.com", headers: Mapping[str, str] | None = None) -> bytes:
    """A small message."""
    fields = {"From": sender, "To": "user@example.net", "Subject": "test", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{head}\r\nHello.\r\n".encode()


def transaction(
    connection: smtplib.SMTP,
    content: bytes | None = None,
    *,
    envelope_sender: str = "app@example.com",
    recipients: tuple[str, ...] = ("user@example.net",),
) -> tuple[int, str]:
    """MAIL, RCPT and DATA; gives the first refusal, or the reply to the end of DATA."""
    code, text = connection.mail(envelope_sender)
    for recipient in recipients:
        if code == 250:
            code, text = connection.rcpt(recipient)
    if code != 250:
        return code, text.decode()
    try:
        code, text = connection.data(mail() if content is None else content)
    except smtplib.SMTPDataError as error:
        return error.smtp_code, str(error.smtp_error)
    return code, text.decode()


def eventually(
    check: Callable[[], T], *, timeout_s: float = 10.0, message: str = "it did not happen"
) -> T:
    """Repeat `check` until it gives something true, and give that."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{message} within {timeout_s:g} s; last result: {result!r}")
        time.sleep(0.01)

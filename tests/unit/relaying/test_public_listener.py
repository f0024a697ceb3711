"""A listener that is not loopback: TLS and tokens, or it does not open. In a network of its own."""

import base64
import ctypes
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from rigs.daemon import start_daemon, wait_until
from rigs.relay_host import ROOT_MAY_SPOOL, RunningRelay, relay_host
from rigs.relay_wire import Wire, wire
from rigs.sandbox import SandboxRig
from sesguard.sandbox.seed import SeededKey
from sesguard.system.privileges import is_root

PUBLIC = "192.0.2.1"
LISTEN = f'"127.0.0.1:{{port}}", "{PUBLIC}:{{port}}"'
APPS = ROOT_MAY_SPOOL + '[apps.site]\nsenders = ["*@example.com"]\n'
NETWORK = ("unshare", "--net", "sh", "-c")
SETUP = f'ip link set lo up && ip address add {PUBLIC}/32 dev lo && exec "$0" "$@"'
CLONE_NEWNET = 0x40000000


def has_namespaces() -> bool:
    """Whether a network of our own can be made."""
    command = [*NETWORK, SETUP, "true"]
    return is_root() and not subprocess.run(command, capture_output=True, check=False).returncode


needs_network = pytest.mark.skipif(
    not has_namespaces(), reason="left out: root is needed for a network of the test's own"
)


def connect(relay: RunningRelay, address: str) -> socket.socket:
    """A connection within the network of the daemon; a thread enters it and no other."""
    made: list[socket.socket] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{relay.daemon.pid}/ns/net", os.O_RDONLY)
        try:
            assert 0 == libc.setns(namespace, CLONE_NEWNET)
            made.append(socket.create_connection((address, relay.host.port), timeout=20))
        finally:
            os.close(namespace)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert made, "no connection"
    return made[0]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the relay's certificate."""
    return trustme.CA()


@pytest.fixture(scope="module")
def public(
    ses: SandboxRig,
    ses_key: SeededKey,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningRelay]:
    """A relay that listens on a public address; it reaches no upstream."""
    directory = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert(PUBLIC)
    certificate, key = directory / "relay.pem", directory / "relay.key"
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(certificate), append=number > 0)
    issued.private_key_pem.write_to_path(str(key))
    relay = f'certificate = "{certificate}"\ncertificate_key = "{key}"\n'
    with (
        relay_host(ses, key=ses_key, apps=APPS, relay=relay, listen=LISTEN) as host,
        host.running(wrapper=(*NETWORK, SETUP)) as daemon,
    ):
        yield RunningRelay(host, daemon)


@contextmanager
def secured(relay: RunningRelay, authority: trustme.CA) -> Iterator[Wire]:
    """A client on the public address, with verified TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        connect(relay, PUBLIC) as plain,
        context.wrap_socket(plain, server_hostname=PUBLIC) as channel,
        wire(channel) as client,
    ):
        yield client


@needs_network
def test_public_client_needs_a_token(public: RunningRelay, authority: trustme.CA) -> None:
    """Its uid on its own host tells us nothing: only a token does, also from this very host."""
    token = public.host.registry().add_token("site").reveal()
    response = base64.b64encode(f"\0site\0{token}".encode())
    with secured(public, authority) as client:
        assert client.send().startswith(b"530 5.7.0 ")
        assert client.ask(b"AUTH PLAIN " + response + b"\r\n").startswith(b"235 ")
        assert client.send().startswith(b"250 ")


@needs_network
def test_public_client_without_tls_hears_nothing(public: RunningRelay) -> None:
    """No greeting and no reply in the clear."""
    with connect(public, PUBLIC) as channel:
        client = Wire(channel)
        client.say(b"EHLO client.test\r\n")
        heard = client.hear_end()
    assert b"220" not in heard
    assert b"250" not in heard


@needs_network
def test_loopback_beside_it_is_as_ever(public: RunningRelay) -> None:
    """On the loopback of the same daemon a uid is an app, without TLS."""
    with wire(connect(public, "127.0.0.1")) as client:
        assert client.send().startswith(b"250 ")


@pytest.mark.parametrize(
    "given",
    ["", 'certificate = "/nonexistent.pem"\n', 'certificate_key = "/nonexistent.pem"\n'],
)
def test_public_address_without_certificate_is_refused(
    ses: SandboxRig, ses_key: SeededKey, given: str
) -> None:
    """The daemon does not start, says why, and opens nothing."""
    with relay_host(ses, key=ses_key, relay=given, listen=LISTEN) as host:
        daemon = start_daemon(host.settings_path)
        wait_until(lambda: daemon.process.poll() is not None, "the daemon to end")
        assert 0 != daemon.process.returncode
        text = daemon.log_path.read_text()
        assert "is not loopback, and there is no certificate" in text
        assert [] == list(Path(host.directory / "run").glob("*.sock"))

"""No user of the host takes all connections; callers without an app have few, for a short time."""

import base64
import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from rigs.daemon import wait_until
from rigs.relay_host import ROOT_MAY_PASS, RunningRelay, StartRelay
from rigs.relay_wire import Wire, wire
from sesguard.system.privileges import is_root

INTRUDER, ACCOMPLICE, SHOP = 6001, 6002, 6003
APPS = (
    ROOT_MAY_PASS + f'[apps.shop]\nusers = ["{SHOP}"]\n[apps.site]\nsenders = ["*@example.com"]\n'
)
needs_root = pytest.mark.skipif(not is_root(), reason="left out: clients of other users need root")


@pytest.fixture
def relay(relays: StartRelay) -> Iterator[RunningRelay]:
    """A relay for sixteen clients, of which two may be strangers; none is there."""
    relay = relays(apps=APPS, relay="max_connections = 16\n")
    wait_until(lambda: clients(relay) == 0, "no clients")
    yield relay
    wait_until(lambda: clients(relay) == 0, "no clients")


def clients(relay: RunningRelay) -> float:
    """How many clients are connected."""
    return relay.numbers()["sesguard_relay_connections"]


def connect_as(uid: int, relay: RunningRelay) -> socket.socket:
    """A connection that another user makes."""
    os.seteuid(uid)
    try:
        return relay.host.unix()
    finally:
        os.seteuid(0)


def hold(stack: contextlib.ExitStack, uid: int, relay: RunningRelay, count: int) -> list[bytes]:
    """Connect and stay; gives the codes of the greetings."""
    made = [Wire(stack.enter_context(connect_as(uid, relay))) for _ in range(count)]
    return [client.hear()[:3] for client in made]


@needs_root
def test_one_user_leaves_half_to_others(relay: RunningRelay) -> None:
    """The ninth connection of an app's uid is turned away; another uid is served."""
    with contextlib.ExitStack() as stack:
        assert [b"220"] * 8 + [b"421"] == hold(stack, SHOP, relay, 9)
        with wire(relay.host.unix()) as client:
            assert client.send().startswith(b"250 ")


@needs_root
def test_strangers_have_few_connections(relay: RunningRelay) -> None:
    """One has one, two have two, a third none; apps have all the rest."""
    with contextlib.ExitStack() as stack:
        assert [b"220", b"421"] == hold(stack, INTRUDER, relay, 2)
        assert [b"220", b"421"] == hold(stack, ACCOMPLICE, relay, 2)
        assert [b"421"] == hold(stack, INTRUDER + 10, relay, 1)
        assert [b"220"] * 8 == hold(stack, SHOP, relay, 8)
        assert [b"220"] * 6 == hold(stack, 0, relay, 6)


@needs_root
def test_stranger_has_ten_seconds_whatever_it_says(relay: RunningRelay) -> None:
    """Commands do not renew its time; who has logged in meanwhile, and an app, may stay."""
    token = base64.b64encode(f"\0site\0{relay.host.registry().add_token('site').reveal()}".encode())
    with (
        wire(connect_as(ACCOMPLICE, relay)) as site,
        wire(connect_as(INTRUDER, relay)) as intruder,
        wire(relay.host.unix()) as app,
    ):
        assert site.ask(b"AUTH PLAIN " + token + b"\r\n").startswith(b"235 ")
        heard, deadline = b"250", time.monotonic() + 20
        while heard.startswith(b"250"):
            assert time.monotonic() < deadline
            time.sleep(0.3)
            heard = intruder.ask(b"NOOP\r\n")
        assert heard.startswith(b"421 4.4.2 ")
        assert b"" == intruder.hear_end()
        assert site.send().startswith(b"250 ")
        assert app.send().startswith(b"250 ")


@needs_root
def test_user_that_needs_a_token_keeps_many(relay: RunningRelay) -> None:
    """Each connection is a stranger's until its login, and its user's afterwards."""
    token = base64.b64encode(f"\0site\0{relay.host.registry().add_token('site').reveal()}".encode())
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(wire(connect_as(INTRUDER, relay)))
            assert client.ask(b"AUTH PLAIN " + token + b"\r\n").startswith(b"235 ")
        assert [b"421"] == hold(stack, INTRUDER, relay, 1)

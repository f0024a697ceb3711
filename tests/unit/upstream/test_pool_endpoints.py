"""The pool and upstreams in trouble: refused logins, fail-over, too many connections."""

import asyncio
import base64
import logging
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigs.async_peer import Act, running_peer, until
from rigs.pool import HASTY, QUICK, Vault, at, pool_to, run_on, send
from rigs.smtp_peer import PASSWORD, USER
from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret
from sesguard.upstream.interface import Result
from sesguard.upstream.replies import Outcome


def test_a_refused_login_is_not_repeated_at_once(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """However many messages come, one login is tried; a new version is tried at once."""

    async def main() -> None:
        vault = Vault(password="wrong")
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, vault=vault) as pool,
        ):
            results = await asyncio.gather(*(send(pool) for _ in range(100)))
            results.append(await send(pool))
            assert {Outcome.AUTH_REFUSED} == {result.reply.outcome for result in results}
            assert {451} == {result.reply.code for result in results}
            assert 1 == peer.connections
            vault.rotate(USER, PASSWORD)
            assert 250 == (await send(pool)).reply.code

    run_on("uvloop")(main())


def test_a_dead_upstream_costs_one_attempt(ca_file: Path, server_tls: ssl.SSLContext) -> None:
    """500 messages hear the reason, and one connection was tried."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            peer.say_next("CONNECT", *[Act.DROP] * 100)
            results = await asyncio.gather(*(send(pool) for _ in range(500)))
            assert {451} == {result.reply.code for result in results}
            assert 1 == peer.connections

    run_on("uvloop")(main())


def test_fail_over_while_the_first_endpoint_is_down(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """The second one takes over, and the first is left alone for a while."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as first,
            running_peer(server_tls, host="127.0.0.11") as second,
            pool_to(at(first), at(second), ca_file=ca_file, max_messages=2) as pool,
        ):
            first.say_next("CONNECT", Act.DROP)
            hosts = [(await send(pool)).host for _ in range(6)]
            assert ["127.0.0.11"] * 6 == hosts
            assert (1, 3) == (first.connections, second.connections)

    run(main())


def test_the_first_endpoint_is_used_again(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """After its rest new sessions go to it."""

    async def main() -> None:
        timeouts = replace(QUICK, endpoint_rest_s=0.05)
        async with (
            running_peer(server_tls) as first,
            running_peer(server_tls, host="127.0.0.11") as second,
            pool_to(
                at(first), at(second), ca_file=ca_file, max_messages=1, timeouts=timeouts
            ) as pool,
        ):
            first.say_next("CONNECT", Act.DROP)
            assert "127.0.0.11" == (await send(pool)).host
            await asyncio.sleep(0.06)
            assert "127.0.0.1" == (await send(pool)).host

    run_on("uvloop")(main())


def test_a_refusal_does_not_fail_over(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A refused login and "too many connections" are answers, not a dead endpoint."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as first,
            running_peer(server_tls, host="127.0.0.11") as second,
            pool_to(at(first), at(second), ca_file=ca_file, timeouts=HASTY) as pool,
        ):
            first.say_next("CONNECT", "421 Too many concurrent SMTP connections")
            assert Outcome.THROTTLED is (await send(pool)).reply.outcome
            await asyncio.sleep(0.06)
            first.say_next("AUTH", "535 Authentication Credentials Invalid")
            assert Outcome.AUTH_REFUSED is (await send(pool)).reply.outcome
        assert 0 == second.connections

    run_on("uvloop")(main())


def test_too_many_connections_lowers_the_limit(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """Those who wait are served by the sessions that there are."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            await send(pool)
            peer.say_next("CONNECT", *["421 Too many concurrent SMTP connections"] * 8)
            results = await asyncio.gather(*(send(pool) for _ in range(40)))
            assert {250} == {result.reply.code for result in results}
            assert 1 == pool.open_connections

    run_on("uvloop")(main())


def test_nobody_waits_for_ever(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A message that gets no session in time is kept by its sender."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(
                at(peer), ca_file=ca_file, max_connections=1, timeouts=replace(QUICK, wait_s=0.2)
            ) as pool,
        ):
            peer.say_next("TEXT", Act.STALL)
            stalled = asyncio.create_task(send(pool))
            await until(lambda: "DATA" in peer.heard)
            assert "no session was free" in (await send(pool)).reply.text
            stalled.cancel()
            peer.drop_all()

    run_on("uvloop")(main())


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "AUTH", "MAIL", "DATA", "TEXT"])
def test_no_text_holds_the_password(
    server_tls: ssl.SSLContext, ca_file: Path, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    """Whatever the peer sends back, no form of it is in a result, a repr or the log."""
    caplog.set_level(logging.DEBUG)
    forms = encoded_forms(Secret(PASSWORD), USER)
    seen: list[Result] = []

    async def main() -> None:
        for form in (PASSWORD, base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()):
            async with (
                running_peer(server_tls) as peer,
                pool_to(at(peer), ca_file=ca_file) as pool,
            ):
                peer.say_next(stage, f"550 you said {form}")
                seen.append(await send(pool))
                shown = repr(vars(pool)) + repr([vars(lane) for lane in pool._all_lanes()])
                assert not any(known in shown.encode() for known in forms.values())

    run_on("asyncio")(main())
    shown = (repr(seen) + caplog.text).encode()
    assert [] == [name for name, form in forms.items() if form in shown]

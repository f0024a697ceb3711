"""An upstream that takes the login and hangs up."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.async_peer import until
from rigs.pool import HASTY, QUICK, pool_to, run_on, send
from rigs.smtp_peer import Conversation, Peer
from sesguard.core.endpoints import Endpoint

Peers = Callable[..., Peer]


class HangingUp:
    """A script that closes so many sessions after the login, and serves one message on others."""

    def __init__(self, context: ssl.SSLContext, times: int, after: str) -> None:
        self._context = context
        self._left = times
        self._after = after
        self.sessions = 0

    def __call__(self, talk: Conversation) -> None:
        self.sessions += 1
        talk.greet(self._context)
        talk.hear()
        if self._left:
            self._left -= 1
            if self._after == "MAIL":
                talk.say("235 welcome")
                talk.hear()
            else:
                talk.say("235 welcome")
            return
        talk.say("235 welcome")
        for reply in ("250 Ok", "250 Ok", "354 go ahead"):
            talk.hear()
            talk.say(reply)
        talk.hear_message()
        talk.say("250 Ok")
        talk.wait_for_end()


@pytest.mark.parametrize("after", ["AUTH", "MAIL"])
def test_a_message_goes_on_another_session_at_once(
    run: Any, peer: Peers, server_tls: ssl.SSLContext, ca_file: Path, after: str
) -> None:
    """One session that ends after the login, or at the first command, costs the message nothing."""
    script = HangingUp(server_tls, 1, after)

    async def main() -> None:
        endpoint = Endpoint("127.0.0.1", peer(script).port)
        async with pool_to(endpoint, ca_file=ca_file, timeouts=QUICK) as pool, asyncio.timeout(4):
            assert 250 == (await send(pool)).reply.code
        assert 2 == script.sessions

    run(main())


@pytest.mark.parametrize("after", ["AUTH", "MAIL"])
def test_a_peer_that_always_hangs_up_is_a_dead_one(
    run: Any, peer: Peers, server_tls: ssl.SSLContext, ca_file: Path, after: str
) -> None:
    """The mail is kept at once, and however much comes, the peer is left alone for a while."""
    script = HangingUp(server_tls, 10**6, after)

    async def main() -> None:
        endpoint = Endpoint("127.0.0.1", peer(script).port)
        async with pool_to(endpoint, ca_file=ca_file, timeouts=QUICK) as pool, asyncio.timeout(4):
            results = await asyncio.gather(*(send(pool) for _ in range(10)))
            assert {(451, False)} == {(each.reply.code, each.uncertain) for each in results}
            seen = script.sessions
            results = [await send(pool) for _ in range(20)]
            assert {451} == {each.reply.code for each in results}
            # One that was being opened may still have come.
            assert script.sessions - seen <= 2
        assert script.sessions <= 10

    run(main())


def test_it_is_used_again_when_it_works(
    peer: Peers, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """After its rest a session that holds is enough."""
    script = HangingUp(server_tls, 3, "AUTH")

    async def main() -> None:
        endpoint = Endpoint("127.0.0.1", peer(script).port)
        async with pool_to(endpoint, ca_file=ca_file, timeouts=HASTY) as pool:
            codes: list[int] = []

            async def sent() -> None:
                while 250 not in codes:
                    codes.append((await send(pool)).reply.code)
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(sent(), 10)
            await until(lambda: script.sessions == 4)

    run_on("uvloop")(main())

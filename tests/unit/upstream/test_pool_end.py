"""How the pool leaves the event loop."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.async_peer import Listener, until
from rigs.pool import LARGE, QUICK, Vault, destination, envelope, run_on, send
from rigs.smtp_peer import Conversation, Peer
from sesguard.core.endpoints import Endpoint
from sesguard.errors import CredentialError
from sesguard.upstream.pool import UpstreamPool


@pytest.mark.parametrize("timeout_s", [5, 0.05])
def test_nothing_is_left_when_a_peer_is_slow_to_go(
    run: Any, peer: Callable[..., Peer], server_tls: ssl.SSLContext, ca_file: Path, timeout_s: float
) -> None:
    """After `close` every session is closed, also one whose peer takes its time after QUIT."""

    def script(talk: Conversation) -> None:
        talk.greet(server_tls)
        talk.hear()
        for reply in ("235 welcome", "250 Ok", "250 Ok", "354 go ahead"):
            talk.say(reply)
            talk.hear() if reply[0] == "2" else talk.hear_message()
        talk.say("250 Ok")
        talk.hear()
        time.sleep(0.3)

    async def main() -> None:
        where = destination(Endpoint("127.0.0.1", peer(script).port), ca_file=ca_file)
        pool = UpstreamPool(Vault(), [where], timeouts=QUICK)
        assert 250 == (await send(pool)).reply.code
        (connection,) = pool._lanes["main"]._idle
        await pool.close(timeout_s=timeout_s)
        ended: list[bool] = []
        asyncio.get_running_loop().call_soon(ended.append, True)
        await until(lambda: ended)
        assert connection.session.transport.is_closing()
        assert pool._lanes["main"].is_empty

    run(main())


def test_a_message_that_is_given_up_while_the_settings_change(ca_file: Path) -> None:
    """Its lane is gone and its credential too; whoever gives it up then hears nothing of that."""

    async def main() -> None:
        vault = Vault()
        where = destination(Endpoint("127.0.0.1", 1), ca_file=ca_file)
        pool = UpstreamPool(vault, [where], timeouts=QUICK)
        listener = Listener()
        transfer = pool.begin(envelope(), listener)
        transfer.write(LARGE)
        assert 1 == pool.waiting
        vault.fault = CredentialError("there is none")
        pool.update([where])
        transfer.abort()
        await pool.close(timeout_s=5)
        assert [] == listener.results

    run_on("uvloop")(main())

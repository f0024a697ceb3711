"""What a client hears first: it is made once, and follows the app and the settings of now."""

import os
from dataclasses import replace
from pathlib import Path

from rigs.pool import run_on
from rigs.relay_server import LONG_NAME, MTA, Client, serving
from sesguard.relay.apps import AppRule
from sesguard.relay.model import App, DeliveryMode


async def offers(client: Client) -> set[bytes]:
    """What stands in the reply to EHLO."""
    await client.send(b"EHLO a\r\n")
    heard = await client.hear_until(b"250 AUTH PLAIN LOGIN\r\n")
    return {line[4:] for line in heard.splitlines()}


def test_extensions_follow_the_settings(tmp_path: Path) -> None:
    """Size and DSN are those of the app at this moment, in one session too."""

    async def main() -> None:
        async with serving(tmp_path) as served, served.client() as client:

            def become(app: App) -> None:
                rule = AppRule(app.name, app, uids=frozenset({os.geteuid()}))
                served.relay.identities.update([rule])

            assert b"SIZE 41943040" in await offers(client)
            become(replace(MTA, max_message_bytes=1000))
            assert {b"SIZE 1000", b"DSN"} & await offers(client) == {b"SIZE 1000"}
            become(replace(MTA, max_message_bytes=1000, delivery=DeliveryMode.SPOOL))
            assert {b"SIZE 1000", b"DSN"} <= await offers(client)
            become(MTA)
            assert {b"SIZE 41943040", b"DSN"} & await offers(client) == {b"SIZE 41943040"}

    run_on("uvloop")(main())


def test_greeting_is_made_once(tmp_path: Path) -> None:
    """It names the host, as the reply to EHLO does."""

    async def main() -> None:
        async with serving(tmp_path) as served, served.client() as client:
            assert served.relay.greeting is served.relay.greeting
            greeting = f"220 {LONG_NAME} ESMTP sesguard\r\n".encode()
            assert greeting == await client.hear_until(b"\r\n")
            assert LONG_NAME.encode() in await offers(client)

    run_on("uvloop")(main())

"""The pool against a peer on the same event loop."""

import ssl
from pathlib import Path
from typing import Any

from rigs.async_peer import MESSAGE_ID, running_peer
from rigs.pool import MESSAGE, RECIPIENT, SENDER, pool_to, run, send
from rigs.smtp_peer import USER
from sesguard.core.endpoints import Endpoint
from sesguard.upstream.replies import Outcome

__all__ = ["run"]


def test_a_message_arrives(run: Any, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """It arrives as it was written, and the result says so, with SES's id."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(Endpoint(peer.host, peer.port), ca_file=ca_file) as pool,
        ):
            result = await send(pool)
        assert Outcome.ACCEPTED is result.reply.outcome
        assert MESSAGE_ID == result.reply.message_id
        assert ("127.0.0.1", "main", 1, False, {}) == (
            result.host,
            result.credential_id,
            result.credential_version,
            result.uncertain,
            result.refused,
        )
        (mail,) = peer.mails
        assert (SENDER, (RECIPIENT,), MESSAGE, USER) == (
            mail.sender,
            mail.recipients,
            mail.content,
            mail.user,
        )

    run(main())

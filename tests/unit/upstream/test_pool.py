"""The pool against a peer on the same event loop: what it does when all goes well, and rotation."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigs.async_peer import MESSAGE_ID, Act, Listener, running_peer, until
from rigs.pool import (
    LARGE,
    LOCK_STEP,
    MESSAGE,
    QUICK,
    RECIPIENT,
    SENDER,
    Vault,
    at,
    destination,
    envelope,
    pool_to,
    run_on,
    send,
)
from rigs.smtp_peer import PASSWORD, USER
from sesguard.errors import CredentialError, VaultError
from sesguard.upstream.pool import UpstreamPool
from sesguard.upstream.replies import Outcome

TWO = ("a@example.net", "b@example.net")


def test_a_message_arrives(run: Any, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """It arrives as it was written, and the result says so, with SES's id."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
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


@pytest.mark.parametrize("features", [("PIPELINING",), LOCK_STEP])
def test_many_messages_over_one_session(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path, features: tuple[str, ...]
) -> None:
    """One login serves them all, with and without PIPELINING."""

    async def main() -> None:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            for number in range(100):
                result = await send(pool, *TWO, message=b"X: %d\r\n\r\n" % number)
                assert 250 == result.reply.code
            assert 1 == pool.open_connections
        assert 1 == peer.connections
        assert [b"X: %d\r\n\r\n" % n for n in range(100)] == [m.content for m in peer.mails]
        assert {TWO} == {mail.recipients for mail in peer.mails}

    run(main())


def test_two_hundred_at_once_over_five_sessions(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Messages wait for one of five sessions; all of them arrive once."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            sends = [send(pool, message=b"X: %d\r\n\r\n" % n) for n in range(200)]
            results = await asyncio.gather(*sends)
        assert {250} == {result.reply.code for result in results}
        assert peer.most_open <= 5
        assert {b"X: %d\r\n\r\n" % n for n in range(200)} == {m.content for m in peer.mails}
        assert 200 == len(peer.mails)

    run(main())


def test_a_session_is_renewed_after_many_messages(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """The limit of messages a session ends it, and a new one takes over."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, max_messages=10) as pool,
        ):
            for _ in range(25):
                assert 250 == (await send(pool)).reply.code
        assert (3, 25) == (peer.connections, len(peer.mails))

    run_on("uvloop")(main())


def test_an_idle_session_is_closed_before_the_upstream_does(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Without traffic the pool takes leave by QUIT."""

    async def main() -> None:
        timeouts = replace(QUICK, idle_s=0.1)
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, timeouts=timeouts) as pool,
        ):
            await send(pool)
            await until(lambda: pool.open_connections == 0)
            await until(lambda: peer.heard[-1] == "QUIT")

    run_on("uvloop")(main())


def test_the_envelope_says_only_what_was_offered(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """BODY, SIZE and SMTPUTF8 go to an upstream that offers them; nothing of DSN ever."""

    async def heard(*features: str) -> list[str]:
        async with (
            running_peer(server_tls, features=features) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            await send(
                pool,
                "josé@exämple.net",
                eight_bit=True,
                utf8=True,
                envelope_id="x",
            )
            await send(pool, "jose@exämple.net", eight_bit=True)
        return [line for line in peer.heard if line[:4] in ("MAIL", "RCPT")]

    assert [
        f"MAIL FROM:<app@example.com> BODY=8BITMIME SIZE={len(MESSAGE)} SMTPUTF8",
        "RCPT TO:<josé@exämple.net>",
        f"MAIL FROM:<app@example.com> BODY=8BITMIME SIZE={len(MESSAGE)} SMTPUTF8",
        "RCPT TO:<jose@exämple.net>",
    ] == run(heard("8BITMIME", "SIZE", "SMTPUTF8"))
    assert ["MAIL FROM:<app@example.com>", "RCPT TO:<jose@xn--exmple-cua.net>"] == run(heard())


def test_a_local_part_that_cannot_be_said(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """Without SMTPUTF8 it is refused for good, alone where the message may go to the others."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            alone = await send(pool, "josé@example.net")
            whole = await send(pool, "josé@example.net", RECIPIENT)
            parts = await send(pool, "josé@example.net", RECIPIENT, partial=True)
            sender = await send(pool, sender="josé@example.com")
        for result in (alone, whole, sender):
            assert (553, Outcome.BAD_ADDRESS) == (result.reply.code, result.reply.outcome)
            assert result.reply.text.startswith("5.6.7 ")
        assert (250, ["josé@example.net"]) == (parts.reply.code, list(parts.refused))
        assert [(RECIPIENT,)] == [mail.recipients for mail in peer.mails]

    run_on("uvloop")(main())


@pytest.mark.parametrize(
    "bad", ["a\r\nb@example.net", "a\n@example.net", "\0@x.org", "a\x7f@x", "\udce9@x"]
)
def test_an_address_that_breaks_out_is_refused(
    server_tls: ssl.SSLContext, ca_file: Path, bad: str
) -> None:
    """A CR, LF, NUL or other control character never comes into a command."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            assert 553 == (await send(pool, RECIPIENT, bad)).reply.code
            assert 553 == (await send(pool, sender=bad)).reply.code
        assert 0 == peer.connections

    run_on("uvloop")(main())


def test_no_recipients(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A message to nobody is refused without a word to the upstream."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            listener = Listener()
            pool.begin(envelope().__class__(SENDER, ()), listener).finish()
            assert 554 == (await listener.result()).reply.code
            assert 250 == (await send(pool)).reply.code
        assert 1 == len(peer.mails)

    run_on("uvloop")(main())


def test_rotation_drains_the_old_sessions(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """A message under way ends on the old version; the next one begins on the new one."""

    async def main() -> None:
        vault = Vault()
        async with (
            running_peer(server_tls, passwords={USER: PASSWORD, "AKIANEW": "new"}) as peer,
            pool_to(at(peer), ca_file=ca_file, vault=vault) as pool,
        ):
            listener = Listener()
            slow = pool.begin(envelope(), listener)
            slow.write(LARGE)
            await until(lambda: "DATA" in peer.heard)
            vault.rotate("AKIANEW", "new")
            quick = await send(pool)
            slow.write(b"\r\nstill there\r\n")
            slow.finish()
            late = await listener.result()
            await until(lambda: pool.open_connections == 1)
        assert (250, 2) == (quick.reply.code, quick.credential_version)
        assert (250, 1) == (late.reply.code, late.credential_version)
        assert ["AKIANEW", USER] == [mail.user for mail in peer.mails]
        assert LARGE + b"\r\nstill there\r\n" == peer.mails[1].content

    run(main())


def test_rotation_without_traffic_closes_idle_sessions(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """Nobody has to send a message for the old version to be let go."""

    async def main() -> None:
        vault = Vault()
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, vault=vault) as pool,
        ):
            await send(pool)
            vault.rotate("AKIANEW", "new")
            await until(lambda: pool.open_connections == 0)
            await until(lambda: peer.open_now == 0)

    run_on("uvloop")(main())


@pytest.mark.parametrize(
    "fault", [CredentialError("held"), VaultError("not readable")], ids=["credential", "vault"]
)
def test_a_credential_that_cannot_be_had(
    server_tls: ssl.SSLContext, ca_file: Path, fault: CredentialError
) -> None:
    """The mail is kept, nothing is said upstream, and open sessions end."""

    async def main() -> None:
        vault = Vault()
        async with (
            running_peer(server_tls) as peer,
            pool_to(at(peer), ca_file=ca_file, vault=vault) as pool,
        ):
            await send(pool)
            vault.fault = fault
            result = await send(pool)
            assert (451, Outcome.TEMPORARY) == (result.reply.code, result.reply.outcome)
            assert f"4.7.0 {fault}" == result.reply.text
            await until(lambda: pool.open_connections == 0)
        assert 1 == len(peer.mails)

    run_on("uvloop")(main())


def test_the_credential_is_chosen_by_name_or_sender(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """An unknown name, or a sender that no rule serves, keeps the mail."""

    async def main() -> None:
        async with running_peer(server_tls) as peer, pool_to(at(peer), ca_file=ca_file) as pool:
            assert 250 == (await send(pool, credential_id="main")).reply.code
            assert 451 == (await send(pool, credential_id="other")).reply.code
            pool.update([])
            assert 451 == (await send(pool)).reply.code
            pool.update([destination(at(peer), ca_file=ca_file)])
            assert 250 == (await send(pool)).reply.code
        assert 2 == peer.connections

    run_on("uvloop")(main())


def test_new_settings_move_those_who_wait(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A message under way ends where it is; one that waits goes where the new settings say."""

    async def main() -> None:
        async with (
            running_peer(server_tls) as old,
            running_peer(server_tls) as new,
            pool_to(at(old), ca_file=ca_file, max_connections=1) as pool,
        ):
            listener = Listener()
            first = pool.begin(envelope(), listener)
            first.write(LARGE)
            await until(lambda: "DATA" in old.heard)
            second = asyncio.create_task(send(pool))
            await until(lambda: pool.waiting == 1)
            pool.update([destination(at(new), ca_file=ca_file)])
            assert 250 == (await second).reply.code
            first.finish()
            assert 250 == (await listener.result()).reply.code
        assert (1, 1) == (len(old.mails), len(new.mails))

    run_on("uvloop")(main())


def test_a_tls_wrapper_port(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """At 2465 TLS begins with the connection."""

    async def main() -> None:
        async with (
            running_peer(server_tls, host="127.0.0.11", port=2465) as peer,
            pool_to(at(peer), ca_file=ca_file) as pool,
        ):
            assert 250 == (await send(pool)).reply.code
        assert not any(line.startswith("STARTTLS") for line in peer.heard)

    run_on("uvloop")(main())


def test_close_lets_finished_messages_end(
    run: Any, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """What is complete is sent, what is not is kept by its sender, what comes later is refused."""

    async def main() -> None:
        async with running_peer(server_tls) as peer:
            pool = UpstreamPool(Vault(), [destination(at(peer), ca_file=ca_file)], timeouts=QUICK)
            half, whole = Listener(), Listener()
            pool.begin(envelope(), half).write(MESSAGE)
            transfer = pool.begin(envelope(), whole)
            transfer.write(MESSAGE)
            transfer.finish()
            await pool.close(timeout_s=5)
            late = await send(pool)
            assert 250 == (await whole.result()).reply.code
            assert 451 == (await half.result()).reply.code == late.reply.code
            assert 1 == len(peer.mails)

    run(main())


def test_close_does_not_wait_for_ever(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """A reply that does not come in time makes an uncertain result."""

    async def main() -> None:
        async with running_peer(server_tls) as peer:
            pool = UpstreamPool(Vault(), [destination(at(peer), ca_file=ca_file)])
            peer.say_next("TEXT", Act.STALL)
            listener = Listener()
            transfer = pool.begin(envelope(), listener)
            transfer.write(MESSAGE)
            transfer.finish()
            await until(lambda: "DATA" in peer.heard)
            await pool.close(timeout_s=0.1)
            assert (await listener.result()).uncertain

    run_on("uvloop")(main())

"""Tests of `sesguard.lookup.server`, over real sockets."""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigs.daemon import ask, wait_until
from sesguard.lookup.exim_protocol import EximDialogue
from sesguard.lookup.interface import Answer
from sesguard.lookup.model import Outcome, Reason
from sesguard.lookup.postfix_protocol import PostfixDialogue, netstring
from sesguard.lookup.server import Limits
from sesguard.system.peers import Peer

ME = Limits(frozenset({os.geteuid()}), timeout_s=10)
HASTY = replace(ME, timeout_s=0.2)
US = b"email-smtp.us-east-1.amazonaws.com"
EXIM_ANSWER = b"^AKIAMAIN000000000000^main-password"
QUERY = netstring(b"ses " + US)
REPLY = netstring(b"OK AKIAMAIN000000000000:main-password")


def _exim(counter: Callable[..., Any], serve: Callable[..., Any], limits: Limits = ME) -> Any:
    made = counter("exim")
    return made, serve(EximDialogue(made.desk), limits, made.events)


def _postfix(counter: Callable[..., Any], serve: Callable[..., Any], limits: Limits = ME) -> Any:
    made = counter("postfix")
    return made, serve(PostfixDialogue(made.desk), limits, made.events)


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def _is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def _reasons(made: Any) -> list[Reason | None]:
    return [event.reason for event in made.events]


def test_exim_gets_its_answer_and_the_end(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """One request, one answer, close; the peer in the event is the real one."""
    made, served = _exim(counter, serve)

    assert EXIM_ANSWER == ask(served.path, b"plain main\n")
    assert [(Outcome.GRANTED, Peer(os.getpid(), os.geteuid(), os.getegid()))] == [
        (event.outcome, event.peer) for event in made.events
    ]


def test_a_peer_that_is_not_listed_gets_nothing(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Whoever it is, root included; the request is not even read."""
    made, served = _exim(counter, serve, Limits(frozenset({65533})))

    assert b"" == ask(served.path, b"plain main\n")
    assert [Reason.UID_NOT_ALLOWED] == _reasons(made)
    assert [Peer(os.getpid(), os.geteuid(), os.getegid())] == [e.peer for e in made.events]


@pytest.mark.parametrize("start", [_exim, _postfix])
def test_a_peer_that_is_not_listed_gets_nothing_for_any_bytes(
    start: Callable[..., Any], counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Fuzz, for both protocols."""
    made, served = start(counter, serve, Limits(frozenset()))

    @settings(deadline=None)
    @given(st.binary(max_size=64) | st.sampled_from([b"plain main\n", QUERY]))
    def law(data: bytes) -> None:
        assert b"" == ask(served.path, data)

    law()
    assert {Reason.UID_NOT_ALLOWED} == set(_reasons(made))


@pytest.mark.parametrize(
    ("start", "request_", "answer"),
    [(_exim, b"plain main\n", EXIM_ANSWER), (_postfix, QUERY, REPLY)],
)
def test_no_bytes_stop_the_server(
    start: Callable[..., Any],
    request_: bytes,
    answer: bytes,
    counter: Callable[..., Any],
    serve: Callable[..., Any],
) -> None:
    """Fuzz: after anything in any pieces the next client is served, and nothing was a bug."""
    _made, served = start(counter, serve)

    @settings(deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    def law(pieces: list[bytes]) -> None:
        with contextlib.suppress(OSError), served.connect() as client:
            for piece in pieces:
                client.sendall(piece)
        with served.connect() as client:
            client.sendall(request_)
            assert answer == _read(client, len(answer))

    law()
    assert [] == served.bugs


def test_a_slow_client_is_waited_for(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """A request may come byte by byte, and others are served meanwhile."""
    made, served = _exim(counter, serve)

    with served.connect() as client:
        for byte in b"plain main\n":
            assert EXIM_ANSWER == ask(served.path, b"plain main\n")
            client.send(bytes([byte]))
        assert EXIM_ANSWER == _read(client, 100)
    assert {None} == set(_reasons(made))


@pytest.mark.parametrize("start", [b"", b"plain ma"])
def test_a_hung_client_is_closed_when_its_time_is_up(
    counter: Callable[..., Any], serve: Callable[..., Any], start: bytes
) -> None:
    """With nothing or half of a request sent."""
    made, served = _exim(counter, serve, HASTY)

    with served.connect() as client:
        client.sendall(start)
        assert _is_closed(client)
    assert [Reason.TIMED_OUT] == _reasons(made)


def test_a_client_that_dribbles_gets_no_extra_time(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """The limit is for the whole request, not for each byte."""
    made, served = _exim(counter, serve, HASTY)

    begin = time.monotonic()
    with contextlib.suppress(OSError), served.connect() as client:
        while time.monotonic() - begin < 10:
            client.send(b"x")
            time.sleep(0.01)
    assert time.monotonic() - begin < 5
    assert [Reason.TIMED_OUT] == _reasons(made)


@pytest.mark.parametrize("start", [b"", b"plain main"])
def test_half_a_request_and_the_end_is_a_refusal(
    counter: Callable[..., Any], serve: Callable[..., Any], start: bytes
) -> None:
    """A line without its newline is not taken for a whole one."""
    made, served = _exim(counter, serve)

    with served.connect() as client:
        client.sendall(start)
        client.shutdown(socket.SHUT_WR)
        assert _is_closed(client)
    assert [Reason.HUNG_UP] == _reasons(made)


def test_a_client_that_closes_its_side_gets_the_answer(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Exim shuts down its side after the request."""
    _made, served = _exim(counter, serve)

    with served.connect() as client:
        client.sendall(b"plain main\n")
        client.shutdown(socket.SHUT_WR)
        assert EXIM_ANSWER == _read(client, 100)


def test_a_client_that_is_gone_hurts_nobody(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """It asks and closes without reading."""
    _made, served = _exim(counter, serve)

    for _ in range(50):
        with served.connect() as client:
            client.sendall(b"plain main\n")
    assert EXIM_ANSWER == ask(served.path, b"plain main\n")
    assert [] == served.bugs


def test_a_client_that_resets_its_connection_hurts_nobody(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Closing with an answer unread is a reset for the server."""
    made, served = _postfix(counter, serve)

    with served.connect() as client:
        client.sendall(QUERY)
        assert REPLY == client.recv(len(REPLY), socket.MSG_PEEK)
        client.sendall(QUERY[:9])
        wait_until(lambda: any(link.received for link in served.links()), "half a request")
    wait_until(lambda: not served.links(), "the connection to end")

    assert [None, Reason.HUNG_UP] == _reasons(made)
    assert [] == served.bugs


@pytest.mark.parametrize("start", [_exim, _postfix])
def test_an_oversize_request_is_closed(
    start: Callable[..., Any], counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """No more than the limit is kept, however much is sent."""
    made, served = start(counter, serve)

    assert b"" == ask(served.path, b"9999:" + b"x" * 1_000_000)
    assert [Reason.TOO_LONG] == _reasons(made)


def test_5000_requests_are_all_answered(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Each on a connection of its own; one event each."""
    made, served = _exim(counter, serve)

    answers = {ask(served.path, b"plain main\n") for _ in range(5000)}

    assert {EXIM_ANSWER} == answers
    assert 5000 == len(made.events)


def test_a_new_version_is_in_the_next_answer(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """On the same connection, without a reload."""
    made, served = _postfix(counter, serve)

    with served.connect() as client:
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
        made.source.put("main", 2, "AKIANEW0000000000000", "new-password")
        client.sendall(QUERY)
        expected = netstring(b"OK AKIANEW0000000000000:new-password")
        assert expected == _read(client, len(expected))


def test_one_connection_too_many_is_closed_at_once(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """The ones before are kept, and a free place can be taken again."""
    made, served = _postfix(counter, serve, replace(ME, max_connections=3))
    held = [served.connect() for _ in range(3)]
    for client in held:
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))

    with served.connect() as further:
        assert _is_closed(further)
    assert Reason.TOO_MANY_CONNECTIONS is _reasons(made)[-1]
    held.pop().close()
    wait_until(lambda: _answers(served), "a free place")
    for client in held:
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
        client.close()


def _answers(served: Any) -> bool:
    with served.connect() as client:
        try:
            client.sendall(QUERY)
            return _read(client, len(REPLY)) == REPLY
        except OSError:
            return False


def test_postfix_can_send_requests_in_pieces_and_at_once(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Netstrings do not keep to the borders of packets."""
    _made, served = _postfix(counter, serve)
    stream = QUERY * 20

    with served.connect() as client:
        for start in range(0, len(stream), 7):
            client.sendall(stream[start : start + 7])
        assert REPLY * 20 == _read(client, len(REPLY) * 20)


def test_a_client_that_reads_late_gets_every_answer_in_order(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Answers that do not fit into the socket are kept, and nothing more is read meanwhile."""
    made, served = _postfix(counter, serve)
    with served.connect() as client:
        sent = 0

        def stuffed() -> bool:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += client.send(QUERY[sent % len(QUERY) :])
            return any(link.to_send for link in served.links())

        client.setblocking(False)
        wait_until(stuffed, "an answer that does not fit")
        count = sent // len(QUERY)
        assert len(made.events) < count

        client.settimeout(10)
        assert REPLY * count == _read(client, len(REPLY) * count)


def test_a_client_that_never_reads_is_closed(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """An answer that nobody takes has a time limit as well."""
    made, served = _postfix(counter, serve, HASTY)
    with served.connect() as client:
        client.setblocking(False)
        wait_until(lambda: _fill(client), "the server to close")
    assert Reason.TIMED_OUT is _reasons(made)[-1]


def _fill(client: socket.socket) -> bool:
    try:
        while True:
            client.send(QUERY)
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_an_idle_postfix_connection_outlives_the_request_limit(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """Postfix keeps its connection; the limit counts from the first byte of the next request."""
    made, served = _postfix(counter, serve, HASTY)

    with served.connect() as client:
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
        time.sleep(HASTY.timeout_s * 2)
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
        client.sendall(QUERY[:5])
        assert _is_closed(client)
    assert [None, None, Reason.TIMED_OUT] == _reasons(made)


def test_a_user_that_is_struck_off_loses_its_open_connection(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """The uid is checked for each request."""
    made, served = _postfix(counter, serve)

    with served.connect() as client:
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
        served.call(lambda: setattr(served.server, "limits", Limits(frozenset())))
        client.sendall(QUERY)
        assert _is_closed(client)
    assert [None, Reason.UID_NOT_ALLOWED] == _reasons(made)


def test_stopping_lets_a_request_in_progress_end(
    counter: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """An idle connection is closed at once, a hung one when the time is up."""
    made, served = _postfix(counter, serve)
    idle, busy, hung = (served.connect() for _ in range(3))
    for client in (idle, busy):
        client.sendall(QUERY)
        assert REPLY == _read(client, len(REPLY))
    busy.sendall(QUERY[:10])
    hung.sendall(QUERY[:10])
    wait_until(lambda: _all_read(served, 3), "the server to see the requests")

    served.loop.call_soon_threadsafe(lambda: served.loop.call_later(0.1, busy.sendall, QUERY[10:]))
    served.stop(timeout_s=0.5)

    assert _is_closed(idle)
    assert REPLY == _read(busy, 1000)
    assert _is_closed(hung)
    assert Reason.TIMED_OUT is _reasons(made)[-1]
    with pytest.raises(ConnectionRefusedError):
        served.connect()
    for client in (idle, busy, hung):
        client.close()


def _all_read(served: Any, count: int) -> bool:
    links = served.links()
    return len(links) == count and sum(len(link.received) for link in links) == 20


def test_a_bug_ends_its_connection_only(serve: Callable[..., Any]) -> None:
    """It goes to the loop's exception handler, and the next client is served."""

    class Buggy:
        protocol = "exim"
        keeps_open = False

        def answer(self, received: bytearray, peer: Peer) -> Answer | None:
            if received.startswith(b"bug"):
                raise ZeroDivisionError
            return Answer(b"fine", close=True)

    served = serve(Buggy(), ME, [])

    assert b"" == ask(served.path, b"bug")
    assert b"fine" == ask(served.path, b"no")
    assert [ZeroDivisionError] == [type(bug["exception"]) for bug in served.bugs]

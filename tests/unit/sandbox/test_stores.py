"""The bounds of inbox and connection log."""

from datetime import UTC, datetime

from sesguard.sandbox.connections import ConnectionLog
from sesguard.sandbox.inbox import Inbox
from sesguard.sandbox.model import ReceivedMessage, decode, encode


def message(message_id: str) -> ReceivedMessage:
    """A message that came over verified TLS."""
    return ReceivedMessage(
        id=message_id,
        received_at=datetime(2026, 1, 2, tzinfo=UTC),
        source_address="127.0.0.1",
        user_name="alice",
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        envelope_sender="a@x.y",
        recipients=("b@x.y",),
        headers=(("From", "a@x.y"),),
        configuration_set=None,
        tags={},
        tls_version="TLSv1.3",
        size=3,
        connection_id=1,
    )


def test_the_oldest_messages_are_forgotten_beyond_the_count() -> None:
    """A full inbox forgets and says how many."""
    inbox = Inbox(max_messages=2)
    for message_id in ("1", "2", "3"):
        inbox.add(message(message_id), b"abc")

    assert ["2", "3"] == [item.id for item in inbox.list_messages()]
    assert inbox.count_dropped() == 1
    assert inbox.read_content("1") is None
    assert inbox.read_content("3") == b"abc"


def test_the_oldest_messages_are_forgotten_beyond_the_size() -> None:
    """The newest message is kept however large it is."""
    inbox = Inbox(max_bytes=10)
    inbox.add(message("1"), b"abc")
    inbox.add(message("2"), b"a" * 50)

    assert ["2"] == [item.id for item in inbox.list_messages()]


def test_clearing_begins_to_count_anew() -> None:
    """Nothing is stored and nothing was dropped."""
    inbox = Inbox(max_messages=1)
    inbox.add(message("1"), b"")
    inbox.add(message("2"), b"")
    inbox.clear()

    assert (inbox.count(), inbox.count_dropped()) == (0, 0)


def test_the_oldest_connections_are_forgotten() -> None:
    """The log keeps the newest."""
    log = ConnectionLog(max_connections=2)
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        log.open(source, tls_wrapper=False)

    assert ["127.0.0.2", "127.0.0.3"] == [item.source_address for item in log.list_connections()]


def test_a_long_user_name_is_cut() -> None:
    """What a client sends as its user name cannot fill the log."""
    log = ConnectionLog()
    entry = log.open("127.0.0.1", tls_wrapper=False)
    entry.auth_answered("PLAIN", "x" * 10_000, "535", tls=True)

    assert [128] == [len(attempt.user) for attempt in entry.snapshot().auth]


def test_a_record_survives_the_wire() -> None:
    """``decode(encode(record)) == record``."""
    assert message("1") == decode(encode(message("1")), ReceivedMessage)

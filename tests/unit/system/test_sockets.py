"""Small questions about TCP on the loopback."""

import socket

from sesguard.system.sockets import answers, free_port


def test_a_free_port_answers_once_somebody_listens() -> None:
    """And no longer when it is gone."""
    port = free_port()
    assert not answers(port)
    with socket.create_server(("127.0.0.1", port)):
        assert answers(port)
    assert not answers(port)

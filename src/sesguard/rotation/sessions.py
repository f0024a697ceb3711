"""
SMTP sessions of this host that are under way.

A session is logged in with the key that was CURRENT when it began, and SES does not promise to let
it go on when that key is deactivated. Each is known by its TCP connection, so "the sessions that
were open when CURRENT changed" is a fixed set, and new ones with the new key do not prolong the
wait.

Known fault: a process in another network namespace (a container) is not seen.
"""

from collections.abc import Iterable
from typing import Final

from sesguard.core.loopback import is_loopback
from sesguard.core.message import Message, message
from sesguard.rotation.context import Pace
from sesguard.system.connections import Connection, open_connections, owners

SES_PORTS: Final = frozenset({465, 587, 2465, 2587})
"""Port 25 is left out: an MTA delivers to other hosts there as well."""

_POLL_S: Final = 0.05


def sessions_to(port: int) -> frozenset[Connection]:
    """
    The open connections to the ports of SES, or to `port`.

    One to this host itself goes to a relay here, such as our own, which has sessions of its own; it
    counts on `port` only, where a tunnel to SES may listen.

    The kernel's table is not read in one piece, so a connection may be missing from one reading.
    """
    ports = SES_PORTS | {port}
    found = open_connections(ports) | open_connections(ports)
    return frozenset(
        each for each in found if each.remote[1] == port or not is_loopback(each.remote[0])
    )


def wait_until_over(
    sessions: frozenset[Connection], port: int, timeout_s: float, pace: Pace
) -> frozenset[Connection]:
    """Wait until `sessions` have ended; gives those that are still open after `timeout_s`."""
    deadline = pace.monotonic() + timeout_s
    while sessions := sessions & sessions_to(port):
        if pace.monotonic() >= deadline:
            break
        pace.sleep(_POLL_S)
    return sessions


def describe_sessions(sessions: Iterable[Connection]) -> list[Message]:
    """Whose sessions they are, for people."""
    sessions = list(sessions)
    known = owners(sessions)
    found = []
    for each in sessions:
        owner = known.get(each)
        found.append(
            message(
                "{program} (pid {pid}) has a session with {host}:{port} from before the change",
                program=owner.program if owner else "?",
                pid=owner.pid if owner else "?",
                host=each.remote[0],
                port=each.remote[1],
            )
        )
    return found

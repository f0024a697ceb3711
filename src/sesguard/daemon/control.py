"""
The control socket (docs/protocols/control.md): what ``sesguard status`` asks.

One line ``status``, answered by one JSON object on one line, or ``metrics``, answered in the text
format of Prometheus; then it closes. They tell key ids and numbers, never a password. Anything
else is answered by ``{"version":1,"error":"unknown request"}``.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sesguard.core.credential import Credential, StagingLabel
from sesguard.daemon.log import JsonLog, LookupLog
from sesguard.daemon.sockets import CONTROL
from sesguard.errors import Error
from sesguard.lookup.interface import Answer
from sesguard.lookup.model import Outcome
from sesguard.relay.metrics import Snapshot, exposition
from sesguard.system.peers import Peer
from sesguard.vault.source import VaultCredentialSource

FORMAT_VERSION: Final = 1
MAX_REQUEST_BYTES: Final = 64


class ControlDialogue:
    """
    One question, one JSON object, close.

    Args:
        describe: Gives the answer to ``status``.
        expose: Gives the answer to ``metrics``.
    """

    protocol = CONTROL
    keeps_open = False

    def __init__(
        self, describe: Callable[[], Mapping[str, object]], expose: Callable[[], str]
    ) -> None:
        self._describe = describe
        self._expose = expose

    def answer(self, received: bytearray, peer: Peer) -> Answer | None:  # noqa: ARG002
        """See `sesguard.lookup.interface.Dialogue`."""
        if b"\n" not in received and len(received) <= MAX_REQUEST_BYTES:
            return None
        if received == b"metrics\n":
            return Answer(self._expose().encode("utf-8"), close=True)
        known = received == b"status\n"
        reply = self._describe() if known else {"error": "unknown request"}
        document = {"version": FORMAT_VERSION, **reply}
        return Answer(json.dumps(document).encode("ascii") + b"\n", close=True)


class StatusReport:
    """
    Describes the daemon.

    Args:
        source: The credentials in use.
        lookups: Counts.
        log: Knows of lost lines.
        numbers: What the relay counted; None: it is not served.
        missing: Addresses of the relay that cannot be opened.
    """

    def __init__(
        self,
        source: VaultCredentialSource,
        lookups: LookupLog,
        log: JsonLog,
        numbers: Callable[[], Snapshot | None],
        missing: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._source = source
        self._lookups = lookups
        self._log = log
        self._numbers = numbers
        self._missing = missing
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()

    def describe(self) -> dict[str, object]:
        """Everything but the format version; docs/protocols/control.md explains each member."""
        return {
            "pid": os.getpid(),
            "started_at": _timestamp(self._started_at),
            "uptime_s": round(time.monotonic() - self._started, 3),
            **self._vault(),
            "grants": [
                {"credential": name, "credential_version": number, "at": _timestamp(at)}
                for (name, number), at in self._lookups.last_grants.items()
            ],
            "lookups": {str(outcome): self._lookups.counts[outcome] for outcome in Outcome},
            "relay": self._relay(),
            "log_lines_lost": self._log.lost,
        }

    def expose(self) -> str:
        """The relay's numbers in Prometheus' text format; empty where it is not served."""
        numbers = self._numbers()
        return "" if numbers is None else exposition(numbers)

    def _relay(self) -> dict[str, object] | None:
        numbers = self._numbers()
        if numbers is None:
            return None
        messages: dict[str, dict[str, int]] = {}
        for app, fate, count in numbers.counters.get("messages", []):
            messages.setdefault(app, {})[fate] = count
        gauges = {name: int(number) for name, number in numbers.gauges.items()}
        return {"messages": messages, "not_listening": list(self._missing()), **gauges}

    def _vault(self) -> dict[str, object]:
        try:
            contents = self._source.contents()
        except Error as error:
            return {"vault": {"generation": None, "problem": str(error)}, "credentials": []}
        problem = self._source.problem
        return {
            "vault": {
                "generation": contents.generation,
                "problem": None if problem is None else str(problem),
            },
            "credentials": [_summary(c) for c in contents.credentials.values()],
        }


def _timestamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _summary(credential: Credential) -> dict[str, object]:
    version = credential.labelled(StagingLabel.CURRENT)
    return {
        "id": credential.credential_id,
        "current_version": version and version.number,
        "username": version and version.username,
        "exposed": version and version.exposed,
        "created_at": version and version.created_at,
    }

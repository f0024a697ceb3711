"""
What a message costs when many others wait in the queue.

The queue is filled with mail of an app whose mail is held, through the relay itself; then the load
of an app in `spool` is put on it. Telling the two apps apart takes two users, and so root.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from rig.measure import Figures, measure
from rig.native import CACHE, Load, Sink, Target, send
from rig.ours import app_table, make_host
from rig.peers import Running, Unavailable, server

HOLDER_UID = 65_530
"""User of the app whose mail is held; nobody has it."""


def measure_depths(
    sink: Sink, depths: tuple[int, ...], load: Load
) -> Iterator[tuple[str, Figures]]:
    """One figure a depth, from the least to the greatest."""
    if os.geteuid() != 0:
        raise Unavailable("two apps need root")
    apps = app_table("site", os.geteuid(), "spool")
    apps += app_table("held", HOLDER_UID, "spool", 'policy = "hold"\n')
    host = make_host("sesguard-depth", sink, apps)
    target = Target(host.port)
    with server(host.command(), target, host.directory / "server.log") as pid:
        held = 0
        for depth in depths:
            held += _hold(target, depth - held)
            yield f"{held:,} queued", measure(Running(target, pid), sink, load, f"d{depth}")


def _hold(target: Target, count: int) -> int:
    """Add mail with a sender that the app may not use."""
    if count <= 0:
        return 0
    filling = Load(reuse=True, size=200, messages=count, limit_s=1200, sender="x@example.invalid")
    ids = CACHE / "held"
    ids.unlink(missing_ok=True)
    ids.touch()
    os.chown(ids, HOLDER_UID, HOLDER_UID)
    with contextlib.suppress(OSError):
        CACHE.chmod(0o755)
    return send(target, replace(filling), "held", ids, user=HOLDER_UID).accepted

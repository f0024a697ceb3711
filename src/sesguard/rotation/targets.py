"""
Whether the host uses a new CURRENT version: the daemon hands it out, and every target works.

A daemon that cannot read the vault serves what it read last, so it is asked which version that is.
Where no target asks the daemon it need not run.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

from sesguard.errors import CheckFailed, SystemFault
from sesguard.rotation.context import RotationContext
from sesguard.rotation.schedule import parse_time
from sesguard.system.sockets import ask_json
from sesguard.workflow.engine import StepReport

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


def require_targets_use(context: RotationContext, number: int) -> None:
    """
    Rewrite the targets that hold a version in a file, and check all of them.

    Raises:
        CheckFailed: The daemon hands another version out, or a target does not work.
        SystemFault: A target needs the daemon, and it does not answer.
        Error: A target could not be rewritten.
    """
    applied = context.targets.applied()
    _require_daemon_serves(context, number, needed=bool(applied))
    for name in applied:
        context.targets.apply(name, _ignore)
        bad = next((check for check in context.targets.verify(name) if not check.ok), None)
        if bad is not None:
            raise CheckFailed(
                "target {target} does not work with the new credential: {problem}",
                target=name,
                problem=bad.message,
            )


def last_grant(context: RotationContext, number: int) -> datetime | None:
    """When sesguardd handed a version out last; None when it never did, or does not answer."""
    try:
        answer = ask_json(context.control_socket, b"status\n")
    except SystemFault:
        return None
    found = [
        parse_time(each["at"])
        for each in answer.get("grants") or ()
        if (each["credential"], each["credential_version"]) == (context.credential_id, number)
    ]
    return found[0] if found else None


def _require_daemon_serves(context: RotationContext, number: int, *, needed: bool) -> None:
    deadline = context.pace.monotonic() + _TIMEOUT_S
    while True:
        try:
            served = served_version(context.control_socket, context.credential_id)
        except SystemFault:
            if needed:
                raise
            return
        if served == number:
            return
        if context.pace.monotonic() >= deadline:
            raise CheckFailed(
                "sesguardd hands out version {served} of {credential}, not {number}",
                hint="look at its log: the reason stands at vault.problem",
                served=served,
                credential=context.credential_id,
                number=number,
            )
        context.pace.sleep(_POLL_S)


def served_version(control_socket: Path, credential_id: str) -> object:
    """
    The number of the version that sesguardd hands out, or None when it hands out none.

    Raises:
        SystemFault: It does not answer.
    """
    answer = ask_json(control_socket, b"status\n")
    for each in answer.get("credentials") or ():
        if each.get("id") == credential_id:
            return each.get("current_version")
    return None


def _ignore(_report: StepReport) -> None:
    """The steps of a target are not those of the rotation."""

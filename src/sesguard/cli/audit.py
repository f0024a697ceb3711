"""
The record of acts that show a secret.

One JSON line in ``audit.log`` of the state directory, on the disk before the act, and one line to
syslog (which journald keeps), facility authpriv. The file's line is a must: without it there is no
act. Syslog is a copy that leaves the host where one is forwarded; it is not waited for.
"""

import json
import os
import syslog
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sesguard.system.files import append_line, ensure_directory

AUDIT_LOG: Final = "audit.log"


def record(state_directory: Path, act: str, **details: object) -> None:
    """
    Write down who does what.

    Args:
        state_directory: The settings' `state_directory`.
        act: What is about to be done, such as ``reveal``.
        details: What it is done to. Never a secret.

    Raises:
        SystemFault: It cannot be written; do not go on.
    """
    if not state_directory.is_dir():
        ensure_directory(state_directory, mode=0o755)
    line = json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "act": act,
            "uid": os.getuid(),
            "login_uid": _login_uid(),
            "sudo_user": os.environ.get("SUDO_USER"),
            **details,
        }
    )
    append_line(state_directory / AUDIT_LOG, line)
    syslog.openlog("sesguard", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE, f"audit: {line}")
    syslog.closelog()


def _login_uid() -> int | None:
    """Who logged in, also after su and sudo; None where the kernel does not tell (audit(7))."""
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if uid == 2**32 - 1 else uid

"""
Credentials that systemd passes to a service: systemd.exec(5), ``LoadCredential=`` and its kin.

Each is a file in the directory that CREDENTIALS_DIRECTORY names, readable by the service alone.
Where PID 1 cannot mount it, the directory is there and empty, and the service is started all the
same: whoever needs a credential must look whether it is there.

Raises `SystemFault` for a credential that cannot be read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sesguard.system.files import read_if_exists

MAX_BYTES: Final = 1024 * 1024
"""What systemd passes at most."""


def credentials_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the credentials of this service are; None: it was started with none."""
    text = environment.get("CREDENTIALS_DIRECTORY")
    return Path(text) if text else None


def service_credential(name: str, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """
    A credential of this service; None: there is no such one.

    Raises:
        SystemFault: It cannot be read, or is longer than `MAX_BYTES`.
    """
    directory = credentials_directory(environment)
    state = read_if_exists(directory / name, max_bytes=MAX_BYTES) if directory else None
    return None if state is None else state.content

"""Small questions over sockets of this host."""

import json
import socket
from pathlib import Path
from typing import Any, Final

from sesguard.errors import SystemFault

_MAX_ANSWER_BYTES: Final = 1024 * 1024


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s):
            return True
    except OSError:
        return False


def ask(path: Path, question: bytes, *, timeout_s: float = 5.0) -> bytes:
    """
    Send a line to a Unix socket of sesguardd and read until the other side closes.

    Raises:
        SystemFault: Nobody answers there.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(timeout_s)
            channel.connect(str(path))
            channel.sendall(question)
            return _receive_all(channel)
    except OSError as error:
        raise SystemFault(
            "sesguardd does not answer at {path}: {reason}",
            hint="run: systemctl start sesguardd (or: sesguard daemon)",
            path=path,
            reason=error.strerror or "timed out",
        ) from error


def ask_json(path: Path, question: bytes, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """
    Ask like `ask`, for one JSON object.

    Raises:
        SystemFault: Nobody answers there, or not with a JSON object.
    """
    try:
        answer = json.loads(ask(path, question, timeout_s=timeout_s))
    except ValueError as error:
        raise SystemFault("sesguardd gave no JSON at {path}", path=path) from error
    if not isinstance(answer, dict):
        raise SystemFault("sesguardd gave no JSON at {path}", path=path)
    return answer


def _receive_all(channel: socket.socket) -> bytes:
    data = bytearray()
    while len(data) <= _MAX_ANSWER_BYTES and (chunk := channel.recv(65536)):
        data += chunk
    return bytes(data)

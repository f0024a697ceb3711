"""
A TPM 2.0 in software: swtpm, with what a kernel does beside it.

systemd-creds leaves sessions in the TPM, which has room for three. With a real one the kernel's
resource manager ends them; here `_Commands` ends the oldest one when there is no room. A swtpm has
two sockets, for commands and for control, and the library that talks to it expects them on two
ports in a row and makes a connection for each command.
"""

import contextlib
import os
import secrets
import select
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

needs_systemd_creds = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-creds") is None,
    reason="left out: systemd-creds and root are needed",
)
needs_swtpm = pytest.mark.skipif(
    shutil.which("swtpm") is None or shutil.which("tpm2_pcrextend") is None,
    reason="left out: swtpm and tpm2-tools are needed",
)

_START_SESSION: Final = 0x176
_FLUSH_CONTEXT: Final = 0x165
_NO_ROOM_FOR_SESSION: Final = 0x903
_HEADER: Final = struct.Struct(">HII")
"""Tag, size, and the code of a command or an answer; a handle follows."""
_START_S: Final = 10.0


class SoftwareTpm:
    """A TPM that can be measured into, and taken away."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.device = f"swtpm:host=127.0.0.1,port={port}"
        """As ``--tpm2-device`` has it."""
        self._process = process

    def extend(self, pcr: int) -> None:
        """Measure something new into a PCR, as firmware does at a start."""
        command = ["tpm2_pcrextend", "-T", self.device, f"{pcr}:sha256={secrets.token_hex(32)}"]
        subprocess.run(command, check=True, capture_output=True)

    def take_away(self) -> None:
        """Stop it: nothing answers any more."""
        self._process.terminate()
        self._process.wait(_START_S)


@contextlib.contextmanager
def software_tpm(directory: Path) -> Iterator[SoftwareTpm]:
    """A new TPM with its state in `directory`; PCR 7 has been measured into."""
    commands, control = directory / "commands", directory / "control"
    options = {
        "tpmstate": f"dir={directory}",
        "server": f"type=unixio,path={commands}",
        "ctrl": f"type=unixio,path={control}",
        "flags": "not-need-init,startup-clear",
    }
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", *(f"--{name}={value}" for name, value in options.items())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(process, commands, control)
        with _relays(commands, control) as port:
            tpm = SoftwareTpm(port, process)
            tpm.extend(7)
            yield tpm
    finally:
        process.kill()
        process.wait()


class _Relay(socketserver.ThreadingTCPServer):
    """Hands connections on to a Unix socket."""

    daemon_threads = True

    def __init__(
        self, port: int, upstream: Path, handler: type[socketserver.BaseRequestHandler]
    ) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.upstream = str(upstream)
        self.sessions: list[bytes] = []
        """Handles, the oldest first."""


class _Control(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(self.server.upstream)
            while True:
                for ready in select.select([self.request, upstream], [], [])[0]:
                    data = ready.recv(4096)
                    if not data:
                        return
                    (self.request if ready is upstream else upstream).sendall(data)


class _Commands(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(self.server.upstream)
            while command := _read(self.request):
                self.request.sendall(self._answer(upstream, command))

    def _answer(self, tpm: socket.socket, command: bytes) -> bytes:
        sessions = self.server.sessions
        answer = _exchange(tpm, command)
        while sessions and _code(answer) == _NO_ROOM_FOR_SESSION:
            _exchange(tpm, _HEADER.pack(0x8001, 14, _FLUSH_CONTEXT) + sessions.pop(0))
            answer = _exchange(tpm, command)
        if (_code(command), _code(answer)) == (_START_SESSION, 0):
            handle = answer[_HEADER.size :][:4]
            # The same handle again: that session was ended, however.
            sessions[:] = [each for each in sessions if each != handle] + [handle]
        return answer


def _exchange(tpm: socket.socket, command: bytes) -> bytes:
    tpm.sendall(command)
    return _read(tpm)


def _read(channel: socket.socket) -> bytes:
    data = channel.recv(_HEADER.size, socket.MSG_WAITALL)
    if len(data) == _HEADER.size:
        data += channel.recv(_HEADER.unpack(data)[1] - _HEADER.size, socket.MSG_WAITALL)
    return data


def _code(message: bytes) -> int:
    code: int = _HEADER.unpack_from(message)[2]
    return code


@contextlib.contextmanager
def _relays(commands: Path, control: Path) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        for server in _pair(commands, control):
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield server.server_address[1] - 1


def _pair(commands: Path, control: Path) -> tuple[_Relay, _Relay]:
    while True:
        first = _Relay(0, commands, _Commands)
        try:
            return first, _Relay(first.server_address[1] + 1, control, _Control)
        except OSError:
            first.server_close()


def _await(process: subprocess.Popen[bytes], *sockets: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not all(map(os.path.exists, sockets)):
        assert process.poll() is None, "swtpm did not start"
        assert time.monotonic() < deadline, "swtpm made no sockets"
        time.sleep(0.01)

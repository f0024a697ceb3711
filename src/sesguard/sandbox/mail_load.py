"""
Mail at a steady pace, in the background: the load under which credentials change.

    load = PhpLoad(directory, port, sender=..., domain=...)
    ...
    numbers = load.stop()

`PhpLoad` runs the application of `sesguard.sandbox.php_mail`; `ThreadLoad` calls any function.
Each mail has a number, and ``stop`` tells the numbers of those that were accepted. Whoever starts a
load must stop it, also when something fails in between.

Raises `SandboxError`: a mail was refused, or the sender broke or does not end.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from sesguard.errors import Error, SandboxError
from sesguard.sandbox.php_mail import php_command, read_php_report
from sesguard.system.files import read_file, remove_file, write_atomic
from sesguard.system.processes import start_program, stop_process, wait_until_gone

INTERVAL_S: Final = 0.05
"""20 mails a second."""

_WORKERS: Final = 2
"""PHPMailer needs about 50 ms for a mail: one process alone would just not keep the pace."""
_MAX_MAILS: Final = 10_000
"""Of one worker; the numbers of the next begin so much higher."""
_STOP_TIMEOUT_S: Final = 60.0


class MailLoad(Protocol):
    """Something that sends until it is stopped."""

    def stop(self) -> list[int]:
        """
        End it, and wait for the end.

        Returns:
            The numbers of the mails that were accepted.

        Raises:
            SandboxError: Not all were.
        """
        ...


class PhpLoad:
    """
    The PHP application, in a few processes that share the pace.

    Args:
        directory: Where its script, its report and its stop file are written.
        port: The MTA's port on the loopback.
        sender: From address.
        domain: Domain of the recipients ``customerN``.
        first: Number of the first one.
        interval_s: From the beginning of one mail to that of the next.

    Raises:
        SandboxError: PHP or PHPMailer is not installed.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        sender: str,
        domain: str,
        first: int = 1,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._stop_file = directory / "shop.stop"
        remove_file(self._stop_file)
        self._workers: list[_Worker] = []
        for begin in range(first, first + _WORKERS * _MAX_MAILS, _MAX_MAILS):
            command = php_command(
                directory, port, sender=sender, domain=domain, count=_MAX_MAILS, first=begin,
                interval_ms=round(interval_s * _WORKERS * 1000), stop_file=self._stop_file,
            )  # fmt: skip
            self._workers.append(_Worker(command, directory / f"shop-{begin}.log", begin))

    def stop(self) -> list[int]:
        """See `MailLoad.stop`."""
        write_atomic(self._stop_file, b"", mode=0o644)
        return [number for worker in self._workers for number in worker.accepted()]


class _Worker:
    """One process of the PHP application."""

    def __init__(self, command: Sequence[str], log: Path, first: int) -> None:
        self._log = log
        self._first = first
        with log.open("wb") as stream:
            self._process = start_program(command, environment={}, log=stream)

    def accepted(self) -> range:
        """Wait for its end; the numbers of the mails that were accepted."""
        ended = wait_until_gone(self._process.pid, _STOP_TIMEOUT_S)
        stop_process(self._process)
        if not ended:
            raise SandboxError("the PHP application does not end")
        sent = read_php_report(read_file(self._log).content.decode(errors="replace"))
        return range(self._first, self._first + sent)


class ThreadLoad:
    """
    Calls a function at a steady pace, in a thread.

    Args:
        send: Sends the mail of that number, and says whether it was accepted.
        first: Number of the first one.
        interval_s: From the beginning of one mail to that of the next.
    """

    def __init__(
        self, send: Callable[[int], bool], *, first: int = 1, interval_s: float = INTERVAL_S
    ) -> None:
        self._send = send
        self._number = first
        self._interval_s = interval_s
        self._problem: Error | OSError | None = None
        self._ending = threading.Event()
        self.tried = 0
        """Mails so far, accepted or not."""
        self.accepted: list[int] = []
        """Numbers of the mails that were accepted so far."""
        self._thread = threading.Thread(target=self._run, name="mail load", daemon=True)
        self._thread.start()

    def stop(self) -> list[int]:
        """See `MailLoad.stop`; a mail that `send` says is not accepted is no error."""
        self._ending.set()
        self._thread.join(_STOP_TIMEOUT_S)
        if self._problem is not None:
            raise SandboxError("a mail could not be sent: {reason}", reason=self._problem)
        if self._thread.is_alive():
            raise SandboxError("the sender of mails does not end")
        return self.accepted

    def _run(self) -> None:
        following = time.monotonic()
        while not self._ending.is_set():
            try:
                if self._send(self._number):
                    self.accepted.append(self._number)
            except (Error, OSError) as problem:
                self._problem = problem
                return
            self.tried += 1
            self._number += 1
            following += self._interval_s
            self._ending.wait(max(0.0, following - time.monotonic()))

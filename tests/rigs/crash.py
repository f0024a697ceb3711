"""
Kills a process at its n-th point of no return, without touching the code under test.

`points_of` and `killed_at` run a callable in a forked child, which writes down what it passes and,
at the chosen point, kills itself with SIGKILL *before* it happens. `full_disk_at` takes all disk
space from it there instead. Points are

- each rename, link, removal and start of a program, by an audit hook (PEP 578);
- every COMMIT, by a trace on each SQLite connection;
- each request to AWS, before it leaves; and its answer, when it has come and our code has not seen
  it yet. botocore's HTTP session sees both; its own repetitions are points too. A call that only
  reads leaves all as it was, so after its answer and before the next call that only reads is the
  same case again, and is left out.

A connection to AWS that was open before the fork is not used: parent and child would share it.
Known fault: a request that AWS carries out after its sender died is not among the cases.
"""

import os
import posix
import resource
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session

from sesguard.errors import Error

WATCHED: Final = frozenset({"os.rename", "os.link", "os.remove", "subprocess.Popen"})

_CONNECT: Final = sqlite3.connect
_SEND: Final = URLLib3Session.send
_READS: Final = ("Describe", "Get", "List", "Lookup")
_CRASHED: Final = 99
_COVERAGE: Final = "COVERAGE_PROCESS_CONFIG"
_end: Final = posix._exit
"""That of `os` saves the coverage where it is measured, which would be points of its own."""

Act = Callable[[], object]


def points_of(act: Act) -> list[str]:
    """Run `act` in a child to its end and give the points that it passed, for people."""
    code, points = _run(_whole(act), None, _kill)
    assert 0 == code
    return points


def count_points(act: Act) -> int:
    """How many points `act` passes."""
    return len(points_of(act))


def killed_at(act: Act, point: int) -> bool:
    """Run `act` in a child that dies at `point`; False when it ended before (the last point)."""
    code, _points = _run(_whole(act), point, _kill)
    assert code in {0, -signal.SIGKILL}
    return code != 0


def points_until_killed(act: Act, point: int) -> list[str]:
    """As `killed_at`; gives what was passed, the point where it died last."""
    code, points = _run(_whole(act), point, _kill)
    assert code == -signal.SIGKILL
    return points


def points_before_writes(points: list[str]) -> list[int]:
    """
    The numbers of the points between which a file is written.

    Links, removals and AWS calls write none, so for `full_disk_at` the other points are the same
    case as the next of these. A file is written before its rename, a database at its COMMIT.
    """
    following = [*points[1:], ""]
    return [
        number
        for number, (label, after) in enumerate(zip(points, following, strict=True), 1)
        if label == "COMMIT" or after.startswith("os.rename")
    ]


def full_disk_at(act: Act, point: int) -> int:
    """
    Run `act` in a child that can write to no file from `point` on.

    Returns:
        The exit code that a command would have: that of the error of ours, else 0.
    """

    def command() -> int:
        try:
            act()
        except Error as error:
            return error.exit_code
        finally:
            _limit_files(resource.RLIM_INFINITY)
        return 0

    code, _points = _run(command, point, lambda: _limit_files(0))
    assert code != _CRASHED
    return code


def _whole(act: Act) -> Callable[[], int]:
    def whole() -> int:
        act()
        return 0

    return whole


def _run(
    act: Callable[[], int], point: int | None, strike: Callable[[], None]
) -> tuple[int, list[str]]:
    """The exit code of the child, or the signal it died of, negative; and its points."""
    reader, writer = os.pipe()
    # The coverage of a child that dies is lost, and measuring it takes half the time: neither what
    # was begun here goes on in it, nor is it begun anew.
    config = os.environ.pop(_COVERAGE, None)
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(None)
            _Counter(point, strike, writer).watch()
            _end(act())
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            traceback.print_exc()
        finally:
            _end(_CRASHED)
    if config is not None:
        os.environ[_COVERAGE] = config
    os.close(writer)
    with open(reader) as stream:
        points = stream.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), points


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit_files(size: int) -> None:
    """No file of this process may grow beyond; writing fails then, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class _Counter:
    def __init__(self, point: int | None, strike: Callable[[], None], writer: int) -> None:
        self.point = point
        self.strike = strike
        self.writer = writer
        self.count = 0
        self.has_only_read = False
        self.own_sessions: list[URLLib3Session] = []

    def watch(self) -> None:
        """From now on in this process, for its whole life."""

        def send(session: URLLib3Session, request: Any) -> Any:
            return self.send(session, request)

        sys.addaudithook(self.hook)
        sqlite3.connect = self.connect  # type: ignore[assignment]
        URLLib3Session.send = send  # type: ignore[method-assign,assignment]

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self._pass(f"{event} {arguments[0]}")
        elif event in WATCHED:
            # Temporary files have names of chance, which would make two runs differ.
            paths = [Path(os.fsdecode(path)).name for path in arguments if isinstance(path, str)]
            named = [name for name in paths if not name.startswith(".")]
            self._pass(" ".join([event, *named]))

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _CONNECT(*arguments, **options)
        connection.set_trace_callback(self._trace)
        return connection

    def send(self, session: URLLib3Session, request: AWSPreparedRequest) -> Any:
        if session not in self.own_sessions:
            session.close()
            self.own_sessions.append(session)
        call = _name_of(request)
        if call.startswith(_READS):
            if not self.has_only_read:
                self._pass(f"before {call}")
            self.has_only_read = True
            return _SEND(session, request)
        self._pass(f"before {call}")
        answer = _SEND(session, request)
        self._pass(f"after {call}")
        return answer

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self._pass("COMMIT")

    def _pass(self, label: str) -> None:
        self.has_only_read = False
        self.count += 1
        os.write(self.writer, f"{label}\n".encode())
        if self.count == self.point:
            self.strike()


def _name_of(request: AWSPreparedRequest) -> str:
    """The call, as the query and the JSON protocol name it; of REST the method, a GET as Get."""
    target = request.headers.get("X-Amz-Target")
    if target:
        return _text(target).rpartition(".")[2]
    fields = parse_qs(_text(request.body or b""))
    name = fields["Action"][0] if "Action" in fields else str(request.method).title()
    return str(name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

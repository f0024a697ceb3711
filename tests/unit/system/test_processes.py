"""Running other programs."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.processes import (
    MAX_OUTPUT_BYTES,
    process_alive,
    run_program,
    signal_process,
    start_program,
    stop_process,
    wait_until_gone,
)
from unit.system.children import NOBODY

PYTHON = sys.executable


def python(program: str) -> list[str]:
    """A command that runs a Python program."""
    return [PYTHON, "-I", "-S", "-c", program]


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestRun:
    def test_status_output_and_errors_are_kept_apart(self) -> None:
        """With the command as it was run."""
        program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
        done = run_program(python(program))
        assert ("out\n", "err\n", 3, False) == (done.output, done.errors, done.status, done.ok)
        assert tuple(python(program)) == done.arguments

    def test_success_is_status_0(self) -> None:
        """A program is named by its path or by a name on the fixed PATH."""
        assert run_program(["true"]).ok
        assert run_program([Path("/bin/true")]).ok

    def test_no_shell_reads_the_arguments(self, tmp_path: Path) -> None:
        """What means something to a shell reaches the program as it is."""
        argument = f"$(touch {tmp_path / 'x'}); `id` && * ~ 'a' \"b\" \n"
        done = run_program([*python("import sys; print(sys.argv[1], end='')"), argument])
        assert argument == done.output
        assert not (tmp_path / "x").exists()

    def test_the_environment_is_small_and_fixed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing of ours gets through, but for what is added on purpose."""
        monkeypatch.setenv("SESGUARD_TEST", "secret")
        monkeypatch.setenv("LD_PRELOAD", "")
        done = run_program(["env"], environment={"ADDED": "1", "HOME": "/x"})
        assert {
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C",
            "HOME=/x",
            "ADDED=1",
        } == set(done.output.splitlines())

    def test_input_is_what_is_given_or_nothing(self) -> None:
        """A program that asks does not hang."""
        assert "" == run_program(["cat"]).output
        assert "secret" == run_program(["cat"], stdin=b"secret").output

    def test_input_that_is_not_read_is_no_fault(self) -> None:
        """More than a pipe holds, to a program that does not care."""
        assert run_program(["true"], stdin=b"x" * 1_000_000).ok

    def test_output_that_is_not_utf_8_is_escaped(self) -> None:
        """It is shown, not refused."""
        program = "import sys; sys.stdout.buffer.write(b'caf\\xe9')"
        assert "caf\\xe9" == run_program(python(program)).output

    def test_output_is_cut_at_its_limit(self) -> None:
        """Both streams, and the program ends all the same."""
        program = f"import sys; x = 'x' * {MAX_OUTPUT_BYTES + 9}; print(x); sys.stderr.write(x)"
        done = run_program(python(program))
        assert (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES) == (len(done.output), len(done.errors))

    def test_a_program_out_of_time_is_killed_with_what_it_started(self, tmp_path: Path) -> None:
        """Also one that ignores SIGTERM, and its children in the background."""
        pids = tmp_path / "pids"
        script = f"trap '' TERM; sleep 600 & echo $$ $! > {pids}; wait; sleep 600"
        began = time.monotonic()
        with pytest.raises(SystemFault, match=r"sh did not end within 0\.5 s"):
            run_program(["sh", "-c", script], timeout_s=0.5)
        assert time.monotonic() - began < 30
        for pid in map(int, pids.read_text().split()):
            assert eventually(lambda pid=pid: not process_alive(pid))  # type: ignore[misc]

    @pytest.mark.parametrize("name", ["/no/such/program", "no-such-program", "/etc/passwd", "/"])
    def test_what_cannot_be_run_is_a_fault(self, name: str) -> None:
        """Missing, not executable, a directory."""
        with pytest.raises(SystemFault, match=f"cannot run {name}: "):
            run_program([name])
        with pytest.raises(SystemFault, match=f"cannot run {name}: "):
            start_program([name], environment={})

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    def test_a_program_may_run_as_another_user(self) -> None:
        """With its group and no other."""
        done = run_program(["id"], user=(NOBODY, NOBODY))
        assert done.output.startswith(f"uid={NOBODY}")
        assert "root" not in done.output


class TestStart:
    def test_a_started_program_runs_in_its_own_session(self, tmp_path: Path) -> None:
        """A Ctrl-C at our terminal does not reach it."""
        log = tmp_path / "log"
        with log.open("wb") as stream:
            process = start_program(
                python("import os; print(os.getpid(), os.getsid(0), len(os.environ), flush=True)"),
                environment={"ADDED": "1"},
                log=stream,
            )
            process.wait()
        pid, session, variables = log.read_text().split()
        assert (pid, "4") == (session, variables)

    def test_it_may_inherit_our_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the program is one of ours."""
        monkeypatch.setenv("SESGUARD_TEST", "1")
        with (tmp_path / "log").open("wb") as stream:
            process = start_program(
                ["env"], environment={"ADDED": "1"}, log=stream, inherit_environment=True
            )
            process.wait()
        assert {"SESGUARD_TEST=1", "ADDED=1"} <= set((tmp_path / "log").read_text().split("\n"))

    def test_output_goes_nowhere_without_a_log(self) -> None:
        """It never waits for a reader."""
        process = start_program(["yes"], environment={})
        assert process.poll() is None
        stop_process(process)
        assert -signal.SIGTERM == process.returncode

    def test_stopping_twice_is_fine(self) -> None:
        """And so is stopping what ended by itself."""
        process = start_program(["true"], environment={})
        process.wait()
        stop_process(process)
        assert 0 == process.returncode

    def test_what_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        """After the time it was given, with its children."""
        left, right = socket.socketpair()
        pids = tmp_path / "pids"
        with left, right, pids.open("wb") as log:
            script = "trap '' TERM; sleep 600 & echo $$ $!; wait; sleep 600"
            process = start_program(["sh", "-c", script], environment={}, log=log)
            assert eventually(lambda: len(pids.read_text().split()) == 2)
            stop_process(process, timeout_s=0.1)
        assert -signal.SIGKILL == process.returncode
        child = int(pids.read_text().split()[1])
        assert eventually(lambda: not process_alive(child))


class TestSignals:
    def test_a_process_is_alive_until_it_is_gone(self) -> None:
        """A zombie is gone already."""
        pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
        assert process_alive(pid)
        assert not wait_until_gone(pid, 0.05)
        signal_process(pid, signal.SIGKILL)
        assert wait_until_gone(pid, 10)
        assert Path(f"/proc/{pid}").exists()
        os.waitpid(pid, 0)
        assert not process_alive(pid)

    def test_a_name_with_brackets_and_bad_bytes_is_no_riddle(self, tmp_path: Path) -> None:
        """Any local user can name a process that way."""
        program = tmp_path / os.fsdecode(b"x) Z \xff(")
        program.symlink_to("/bin/sleep")
        pid = os.posix_spawn(program, [os.fsencode(program), b"600"], {})
        assert eventually(lambda: b"\xff" in Path(f"/proc/{pid}/stat").read_bytes())
        assert process_alive(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    @pytest.mark.parametrize("pid", [0, -1, -4194304])
    def test_an_id_that_is_no_process_is_never_signalled(self, pid: int) -> None:
        """0 and negative ids would mean a group, or everybody: a pid file may hold anything."""
        with pytest.raises(SystemFault, match=f"cannot send SIGUSR1 to process {pid}: No such"):
            signal_process(pid, signal.SIGUSR1)

    def test_a_process_that_is_gone_is_a_fault(self) -> None:
        """The message has the name of the signal."""
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(pid, 0)
        with pytest.raises(SystemFault, match=f"cannot send SIGHUP to process {pid}: No such"):
            signal_process(pid, signal.SIGHUP)

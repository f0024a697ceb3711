"""Starting, finding and stopping the sandbox's process."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rigs.sandbox import eventually
from sesguard.errors import SandboxError
from sesguard.sandbox.process import (
    default_directory,
    ensure_sandbox,
    find_sandbox,
    prepare_directory,
    running_sandbox,
    start_sandbox,
    stop_sandbox,
)
from sesguard.system.processes import process_alive, signal_process


def test_a_sandbox_lives_as_long_as_its_block(tmp_path: Path) -> None:
    """At the end the process and its state file are gone; it ran in the region asked for."""
    directory = tmp_path / "new" / "sandbox"
    with running_sandbox(directory, region="eu-west-1") as sandbox:
        found = find_sandbox(directory)
        settings = sandbox.client.status().settings

    assert found == sandbox
    assert settings.region == "eu-west-1"
    assert not process_alive(sandbox.info.pid)
    assert find_sandbox(directory) is None
    assert {"ca.pem", "sandbox.log"} == {path.name for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_started_sandbox_is_found_again_and_stopped(tmp_path: Path) -> None:
    """One sandbox for a directory: whoever comes second gets the one that runs."""
    first = ensure_sandbox(tmp_path)
    try:
        assert first == ensure_sandbox(tmp_path)
    finally:
        stop_sandbox(first)

    assert find_sandbox(tmp_path) is None


def test_everything_listens_on_loopback_only(tmp_path: Path) -> None:
    """No port of the process is reachable from elsewhere."""
    with running_sandbox(tmp_path) as sandbox:
        inodes = _socket_inodes(sandbox.info.pid)
        listening = [
            fields[1].partition(":")[0]
            for family in ("tcp", "tcp6")
            for fields in map(str.split, Path(f"/proc/net/{family}").read_text().splitlines()[1:])
            if fields[3] == "0A" and fields[9] in inodes
        ]

    # 127.0.0.1, as the kernel writes it.
    assert ["0100007F"] * 3 == listening


def test_a_killed_sandbox_is_not_found(tmp_path: Path) -> None:
    """A state file that was left behind is not believed, and a new sandbox can start."""
    with running_sandbox(tmp_path) as sandbox:
        signal_process(sandbox.info.pid, signal.SIGKILL)
        eventually(lambda: not process_alive(sandbox.info.pid))

        assert (tmp_path / "sandbox.json").exists()
        assert find_sandbox(tmp_path) is None
    with running_sandbox(tmp_path) as again:
        assert again.info.pid != sandbox.info.pid


def test_a_state_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    """A pid that was given to another process is not taken for ours, and so not stopped."""
    with running_sandbox(tmp_path) as sandbox:
        state = tmp_path / "sandbox.json"
        state.write_text(state.read_text().replace(str(sandbox.info.pid), str(os.getpid())))

        assert find_sandbox(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}'])
def test_a_broken_state_file_is_not_believed(tmp_path: Path, content: bytes) -> None:
    """A torn or foreign state file means that no sandbox runs."""
    (tmp_path / "sandbox.json").write_bytes(content)

    assert find_sandbox(tmp_path) is None


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Looking for a sandbox makes nothing."""
    assert find_sandbox(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_may_change_is_refused(tmp_path: Path) -> None:
    """What others can write is not put into our environment."""
    tmp_path.chmod(0o777)

    with pytest.raises(SandboxError, match="can be changed by other users"):
        find_sandbox(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """In /tmp somebody else may have made our directory before us."""
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)

    with pytest.raises(SandboxError, match="can be changed by other users"):
        prepare_directory(directory)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_directory_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    """A link could lead anywhere."""
    place = tmp_path / "place"
    if kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.write_text("")

    with pytest.raises(SandboxError, match="is not a directory"):
        prepare_directory(place)


def test_a_bad_region_is_named(tmp_path: Path) -> None:
    """A sandbox that cannot start says why."""
    with pytest.raises(SandboxError, match="'nowhere' is not an AWS region name"):
        start_sandbox(tmp_path, region="nowhere")


@pytest.mark.parametrize("option", ["--http-port", "--starttls-port", "--tls-port"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, option: str) -> None:
    """The log says which address could not be had, and the exit code is 4."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        completed = subprocess.run(
            [sys.executable, "-m", "sesguard.sandbox", "--directory", tmp_path, option, port],
            timeout=30,
        )

    assert completed.returncode == 4
    assert f"cannot listen on 127.0.0.1:{port}: " in (tmp_path / "sandbox.log").read_text()


def test_given_ports_are_used(tmp_path: Path) -> None:
    """A port that is free is the one that is opened."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sesguard.sandbox", "--directory", str(tmp_path)]
    process = subprocess.Popen([*command, "--starttls-port", str(port)])
    try:
        sandbox = eventually(lambda: find_sandbox(tmp_path))
        assert sandbox is not None
        assert port == sandbox.info.starttls_port
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """A test run that is killed leaves no sandbox behind."""
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from sesguard.sandbox.process import running_sandbox
        with running_sandbox(Path(sys.argv[1])) as sandbox:
            print(sandbox.info.pid, flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    eventually(lambda: not process_alive(pid))


def test_aws_settings_of_the_user_do_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that does not exist, or another account for moto, changes nothing."""
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "999999999999")
    with running_sandbox(tmp_path) as sandbox:
        environ = Path(f"/proc/{sandbox.info.pid}/environ").read_bytes()

    assert b"AWS_" not in environ
    assert b"MOTO_" not in environ


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message says which extra to install."""
    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(SandboxError, match="not installed: moto") as caught:
        start_sandbox(tmp_path)

    assert caught.value.hint == 'install sesguard with the extra "sandbox"'


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime directory if there is one, else one of our own in /tmp."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    with_runtime = default_directory()
    monkeypatch.delenv("XDG_RUNTIME_DIR")

    assert Path("/run/user/1/sesguard-sandbox") == with_runtime
    assert Path(f"/tmp/sesguard-sandbox-{os.geteuid()}") == default_directory()


def _socket_inodes(pid: int) -> set[str]:
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    return {target[8:-1] for target in targets if target.startswith("socket:[")}

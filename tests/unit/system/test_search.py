"""Searching files and processes for known bytes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.host import public_directory
from sesguard.system.search import (
    MAX_FILE_BYTES,
    Match,
    _search,
    search_files,
    search_processes,
    walk_files,
)
from unit.system.children import NOBODY, in_child

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SECRET = b"top-secret-value"
NEEDLES = {"raw": SECRET, "hex": SECRET.hex().encode()}


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that others may enter."""
    with public_directory() as directory:
        yield directory


def test_every_form_is_found_in_every_file(tmp_path: Path) -> None:
    """At any depth, in the order of the names; a file may have several forms."""
    (tmp_path / "b").write_bytes(b"x" + SECRET + b"\0" + NEEDLES["hex"])
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "f").write_bytes(SECRET)
    (tmp_path / "c").write_bytes(SECRET[:-1])
    found = search_files([tmp_path], NEEDLES)
    assert [
        Match(str(tmp_path / "b"), "raw"),
        Match(str(tmp_path / "b"), "hex"),
        Match(str(tmp_path / "a" / "deep" / "f"), "raw"),
    ] == found


def test_a_root_may_be_a_file_or_missing(tmp_path: Path) -> None:
    """What is not there holds nothing."""
    (tmp_path / "f").write_bytes(SECRET)
    found = search_files([tmp_path / "f", tmp_path / "no"], NEEDLES)
    assert [Match(str(tmp_path / "f"), "raw")] == found


def test_links_fifos_and_devices_are_passed_over(tmp_path: Path) -> None:
    """A link out of the tree is not followed, and nothing blocks."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "f").write_bytes(SECRET)
    (inside / "file").symlink_to(outside / "f")
    (inside / "directory").symlink_to(outside)
    os.mkfifo(inside / "fifo")
    (inside / "real").touch()
    assert [inside / "real"] == list(walk_files([inside, inside / "directory", inside / "fifo"]))
    assert [] == search_files([inside], NEEDLES)


def test_a_file_replaced_by_a_fifo_or_a_link_is_not_waited_for(tmp_path: Path) -> None:
    """Between the look and the read anything may happen in a directory of others."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    assert [] == _search(str(tmp_path / "fifo"), NEEDLES)
    assert [] == _search(str(tmp_path / "gone"), NEEDLES)
    assert [Match(str(tmp_path / "link"), "unreadable")] == _search(str(tmp_path / "link"), NEEDLES)


@AS_ROOT
def test_what_cannot_be_read_is_reported(public: Path) -> None:
    """A file and a directory of others; the rest is searched all the same."""
    (public / "open").write_bytes(SECRET)
    (public / "closed").write_bytes(SECRET)
    (public / "closed").chmod(0o600)
    (public / "directory").mkdir(mode=0o700)
    (public / "names-only" / "below").mkdir(parents=True)
    (public / "names-only" / "f").touch()
    (public / "names-only").chmod(0o744)

    def act() -> object:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        found = search_files([public, public / "names-only" / "below"], NEEDLES)
        listed = [path.name for path in walk_files([public])]
        return [(Path(match.place).name, match.form) for match in found], listed

    found, listed = eval(in_child(act))
    assert {
        ("open", "raw"),
        ("closed", "unreadable"),
        ("directory", "unreadable"),
        ("below", "unreadable"),
        ("f", "unreadable"),
    } == set(found)
    assert ["closed", "open"] == listed


@AS_ROOT
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_other_devices_are_not_entered(tmp_path: Path) -> None:
    """A file system that is mounted below the root is somebody else's."""
    (tmp_path / "mounted").mkdir()
    (tmp_path / "here").touch()
    program = (
        "import sys; from pathlib import Path; from sesguard.system.search import walk_files; "
        "print([path.name for path in walk_files([Path(sys.argv[1])])])"
    )
    script = (
        'mount -t tmpfs tmpfs "$1/mounted" && touch "$1/mounted/there" && exec "$2" -c "$3" "$1"'
    )
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            tmp_path,
            sys.executable,
            program,
        ],
        capture_output=True,
        text=True,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert "['here']\n" == done.stdout, done.stderr


def test_the_end_of_a_huge_file_is_reported_as_not_searched(tmp_path: Path) -> None:
    """A value beyond the limit is not passed over in silence."""
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.write(SECRET)
        stream.seek(MAX_FILE_BYTES)
        stream.write(SECRET)
    expected = [Match(str(path), "raw"), Match(str(path), "unreadable")]
    assert expected == search_files([path], {"raw": SECRET})


def test_processes_are_searched_by_environment_and_command_line() -> None:
    """Every process that can be read; one that ends meanwhile is no fault."""
    marks = {"environment": b"mark-in-environment", "arguments": b"60.000000123"}
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60.000000123"], {"X": "mark-in-environment"})
    try:
        found = {(match.place, match.form) for match in search_processes(marks)}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert {(f"/proc/{pid}/environ", "environment"), (f"/proc/{pid}/cmdline", "arguments")} == found

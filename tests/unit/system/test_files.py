"""Files that survive a crash and cannot be used to trick us."""

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.crash import count_points, killed_at
from sesguard.errors import SystemFault
from sesguard.system.files import (
    FileState,
    append_line,
    ensure_directory,
    find_program,
    keep_copy,
    read_file,
    read_if_exists,
    remove_file,
    remove_stale_temporaries,
    remove_tree,
    require_private,
    temporary_directory,
    write_atomic,
    write_state,
)
from unit.system.children import NOBODY, in_child

OLD, NEW = b"old\n" * 1000, b"new\n" * 2000
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file with the old content."""
    path = tmp_path / "target"
    write_atomic(path, OLD, mode=0o640)
    return path


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def _limited(act: Callable[[], object], size: int = 100) -> str:
    """Run `act` in a child that can write no more than `size` bytes, as on a full disk."""

    def limited() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            return act()
        finally:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )

    return in_child(limited)


class TestRead:
    def test_read_file_gives_bytes_owner_and_mode(self, target: Path) -> None:
        """All that undo has to put back is read at once."""
        assert FileState(OLD, os.geteuid(), os.getegid(), 0o640) == read_file(target)

    def test_read_file_refuses_a_symbolic_link(self, target: Path) -> None:
        """A link at the last place is refused, even to a good file."""
        link = target.with_name("link")
        link.symlink_to(target)

        with pytest.raises(SystemFault, match=f"cannot read {link}: it is a symbolic link"):
            read_file(link)

    def test_read_file_does_not_hang_on_a_fifo(self, tmp_path: Path) -> None:
        """A FIFO that nobody writes to is refused at once."""
        os.mkfifo(tmp_path / "fifo")

        with pytest.raises(SystemFault, match="fifo is not a regular file"):
            read_file(tmp_path / "fifo")

    def test_read_file_names_a_directory(self, tmp_path: Path) -> None:
        """A directory is named by its path and not by a descriptor's number."""
        with pytest.raises(SystemFault) as caught:
            read_file(tmp_path)

        assert f"{tmp_path} is not a regular file" == str(caught.value)

    def test_read_file_leaves_no_descriptor_behind(self, target: Path) -> None:
        """Neither a read nor a refusal keeps the file open."""
        before = _names(Path("/proc/self/fd"))
        read_file(target)
        with pytest.raises(SystemFault):
            read_file(target.parent)

        assert before == _names(Path("/proc/self/fd"))

    def test_read_file_has_a_limit(self, target: Path) -> None:
        """A file of the largest size is read, one byte more is refused."""
        assert OLD == read_file(target, max_bytes=len(OLD)).content
        with pytest.raises(SystemFault, match=f"is larger than {len(OLD) - 1} bytes"):
            read_file(target, max_bytes=len(OLD) - 1)

    def test_read_if_exists_tells_missing_from_broken(self, target: Path) -> None:
        """Only a missing file is None; a path through a file is a fault."""
        assert read_if_exists(target.with_name("missing")) is None
        assert read_file(target) == read_if_exists(target)
        with pytest.raises(SystemFault, match="Not a directory"):
            read_if_exists(target / "below")


class TestWrite:
    def test_write_atomic_survives_a_kill_at_every_point(self, target: Path) -> None:
        """Killed before any of its steps, the old or the new bytes are there, whole."""

        def act() -> None:
            write_atomic(target, NEW, mode=0o640)

        points = count_points(act)
        assert points >= 1
        for point in range(1, points + 1):
            write_atomic(target, OLD, mode=0o640)
            assert killed_at(act, point)
            assert OLD == read_file(target).content
        remove_stale_temporaries(target.parent)
        assert ["target"] == _names(target.parent)

    def test_write_atomic_on_a_full_disk_changes_nothing(self, target: Path) -> None:
        """Without room the old file stays and no temporary file is left."""
        said = _limited(lambda: write_atomic(target, NEW, mode=0o640))

        assert said.startswith("SystemFault: cannot write ")
        assert said.endswith(": File too large")
        assert str(target.parent) in said
        assert OLD == read_file(target).content
        assert ["target"] == _names(target.parent)

    def test_write_atomic_replaces_a_link_and_not_what_it_points_to(self, target: Path) -> None:
        """A link at the target's place does not lead the content elsewhere."""
        link = target.with_name("link")
        link.symlink_to(target)

        write_atomic(link, NEW, mode=0o600)

        assert not link.is_symlink()
        assert (OLD, NEW) == (target.read_bytes(), link.read_bytes())

    def test_write_atomic_cannot_replace_a_directory(self, tmp_path: Path) -> None:
        """A directory in the way is a fault, and the temporary file is removed."""
        (tmp_path / "target").mkdir()

        with pytest.raises(SystemFault, match="Is a directory"):
            write_atomic(tmp_path / "target", NEW, mode=0o600)
        assert ["target"] == _names(tmp_path)

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o2750])
    def test_write_atomic_sets_the_mode_whatever_the_umask(self, target: Path, mode: int) -> None:
        """The mode is the one asked for."""
        write_atomic(target, NEW, mode=mode)

        assert mode == stat.S_IMODE(target.stat().st_mode)

    @AS_ROOT
    @pytest.mark.parametrize(
        ("uid", "gid"), [(NOBODY, None), (None, NOBODY), (NOBODY, NOBODY), (None, None)]
    )
    def test_write_atomic_sets_the_owner(
        self, target: Path, uid: int | None, gid: int | None
    ) -> None:
        """Owner and group are set one by one; None keeps our own."""
        write_atomic(target, NEW, mode=0o640, uid=uid, gid=gid)

        state = read_file(target)
        assert (uid or 0, gid or 0, 0o640) == (state.uid, state.gid, state.mode)

    @AS_ROOT
    def test_write_state_puts_back_what_was_read(self, target: Path) -> None:
        """Bytes, owner and mode come back."""
        os.chown(target, NOBODY, NOBODY)
        before = read_file(target)
        write_atomic(target, NEW, mode=0o600, uid=0, gid=0)

        write_state(target, before)

        assert before == read_file(target)


class TestKeepCopy:
    def test_keep_copy_keeps_the_old_bytes(self, target: Path) -> None:
        """When the file is replaced, its second name has the bytes of before."""
        copy = target.with_name("previous")
        keep_copy(target, copy)
        keep_copy(target, copy)
        write_atomic(target, NEW, mode=0o600)

        assert (OLD, NEW) == (copy.read_bytes(), target.read_bytes())
        assert ["previous", "target"] == _names(target.parent)

    def test_keep_copy_replaces_an_older_copy(self, target: Path) -> None:
        """The second name moves on to the present bytes."""
        copy = target.with_name("previous")
        copy.write_bytes(b"older")
        keep_copy(target, copy)

        assert OLD == copy.read_bytes()

    def test_keep_copy_leaves_nothing_behind_when_it_fails(self, target: Path) -> None:
        """A directory in the way, or nothing to copy, is a fault and leaves no temporary name."""
        (target.parent / "previous").mkdir()

        with pytest.raises(SystemFault, match="Is a directory"):
            keep_copy(target, target.with_name("previous"))
        with pytest.raises(SystemFault, match="No such file"):
            keep_copy(target.with_name("missing"), target.with_name("copy"))
        assert ["previous", "target"] == _names(target.parent)

    def test_keep_copy_survives_a_kill_at_every_point(self, target: Path) -> None:
        """Killed before any of its steps, both names hold whole content."""
        copy = target.with_name("previous")

        def act() -> None:
            keep_copy(target, copy)

        for point in range(1, count_points(act) + 1):
            write_atomic(copy, NEW, mode=0o640)
            assert killed_at(act, point)
            assert OLD == target.read_bytes()
            assert copy.read_bytes() in {OLD, NEW}
            remove_stale_temporaries(target.parent)
            assert ["previous", "target"] == _names(target.parent)

    @AS_ROOT
    def test_write_atomic_changes_nothing_where_it_cannot_flush_the_directory(
        self, target: Path
    ) -> None:
        """A directory that may be written and not read is refused before anything is written."""
        os.chown(target.parent, NOBODY, NOBODY)
        target.parent.chmod(0o300)
        target.parent.parent.chmod(0o755)

        def act() -> None:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            write_atomic(target, NEW, mode=0o600)

        said = in_child(act)
        assert said.startswith("SystemFault: cannot write"), said
        assert (OLD, ["target"]) == (target.read_bytes(), _names(target.parent))


class TestAppend:
    def test_append_line_adds_whole_lines(self, tmp_path: Path) -> None:
        """A missing file is made 0600, and each call adds a line; stray surrogates are escaped."""
        log = tmp_path / "log"
        append_line(log, "one")
        append_line(log, "t\udcffwo")

        assert b"one\nt\\udcffwo\n" == log.read_bytes()
        assert 0o600 == stat.S_IMODE(log.stat().st_mode)

    def test_append_line_reports_a_line_cut_short(self, tmp_path: Path) -> None:
        """A disk that fills up within the line is a fault."""
        said = _limited(lambda: append_line(tmp_path / "log", "x" * 200))

        assert f"SystemFault: cannot write all of a line to {tmp_path / 'log'}" == said

    def test_append_line_refuses_a_link_and_does_not_hang_on_a_fifo(self, tmp_path: Path) -> None:
        """What is put in the log's place by somebody else is refused at once."""
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

        for name in ("fifo", "link"):
            with pytest.raises(SystemFault, match=f"cannot write {tmp_path / name}"):
                append_line(tmp_path / name, "line")
        assert not (tmp_path / "elsewhere").exists()


class TestRemove:
    def test_remove_file_is_content_when_there_is_none(self, target: Path) -> None:
        """Removing twice is fine; a directory is a fault."""
        remove_file(target)
        remove_file(target)

        assert not target.exists()
        with pytest.raises(SystemFault, match=f"cannot remove {target.parent}"):
            remove_file(target.parent)

    def test_stale_temporaries_go_by_name_or_all_at_once(self, tmp_path: Path) -> None:
        """Only temporary files go, and with a name only that file's."""
        stale = [".a.sesguard-tmp-1", ".b.sesguard-tmp-2"]
        for name in (*stale, "a", ".hidden", "b.sesguard-tmp-3"):
            (tmp_path / name).touch()

        remove_stale_temporaries(tmp_path, "a")
        assert [".b.sesguard-tmp-2", ".hidden", "a", "b.sesguard-tmp-3"] == _names(tmp_path)
        remove_stale_temporaries(tmp_path)
        assert [".hidden", "a", "b.sesguard-tmp-3"] == _names(tmp_path)

    def test_stale_temporaries_of_a_missing_directory_are_a_fault(self, tmp_path: Path) -> None:
        """The fault names the directory."""
        with pytest.raises(SystemFault, match=f"cannot clean up {tmp_path / 'no'}: No such"):
            remove_stale_temporaries(tmp_path / "no")

    def test_temporary_directory_is_ours_and_goes(self) -> None:
        """It is 0700 while it is used, and removed with its content even on an exception."""
        with (  # noqa: PT012 - the body is what is interrupted
            pytest.raises(ZeroDivisionError),
            temporary_directory("sesguard-test-") as path,
        ):
            (path / "file").touch()
            assert 0o700 == stat.S_IMODE(path.stat().st_mode)
            raise ZeroDivisionError
        assert not path.exists()

    def test_remove_tree_is_content_when_there_is_none(self, target: Path) -> None:
        """The directory goes with all that is in it; again is fine."""
        remove_tree(target.parent)
        remove_tree(target.parent)

        assert not target.parent.exists()


class TestDirectory:
    def test_ensure_directory_makes_parents_and_sets_the_mode(self, tmp_path: Path) -> None:
        """Again and again, and whatever the mode was."""
        path = tmp_path / "a" / "b"
        for mode in (0o700, 0o750, 0o750):
            ensure_directory(path, mode=mode)
            assert mode == stat.S_IMODE(path.stat().st_mode)

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_ensure_directory_does_not_depend_on_the_umask(
        self, tmp_path: Path, umask: int
    ) -> None:
        """Parents are never open to all, and never closed to the daemon's user."""

        def act() -> None:
            os.umask(umask)
            ensure_directory(tmp_path / "a" / "b" / "c", mode=0o711)

        assert "None" == in_child(act)
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/c")]
        assert [0o755, 0o755, 0o711] == modes

    def test_ensure_directory_leaves_a_parent_that_is_there_as_it_is(self, tmp_path: Path) -> None:
        """Its mode is somebody else's choice."""
        (tmp_path / "a").mkdir(mode=0o700)
        ensure_directory(tmp_path / "a" / "b", mode=0o755)

        assert 0o700 == stat.S_IMODE((tmp_path / "a").stat().st_mode)

    @AS_ROOT
    @pytest.mark.parametrize(("uid", "gid"), [(NOBODY, None), (None, NOBODY)])
    def test_ensure_directory_sets_the_owner(
        self, tmp_path: Path, uid: int | None, gid: int | None
    ) -> None:
        """Owner and group are set one by one."""
        ensure_directory(tmp_path / "a", mode=0o700, uid=uid, gid=gid)

        status = (tmp_path / "a").stat()
        assert (uid or 0, gid or 0) == (status.st_uid, status.st_gid)

    def test_ensure_directory_refuses_files_and_links(self, target: Path) -> None:
        """A file or a link in its place is a fault, and what a link points to is not touched."""
        real = target.parent / "real"
        real.mkdir(mode=0o755)
        link = target.parent / "link"
        link.symlink_to(real)

        for path in (target, link):
            with pytest.raises(SystemFault, match=f"{path} is not a directory"):
                ensure_directory(path, mode=0o700)
        assert 0o755 == stat.S_IMODE(real.stat().st_mode)


class TestPrivate:
    def test_require_private_takes_a_private_file(self, target: Path) -> None:
        """A file of ours with 0600 or less passes."""
        for mode in (0o600, 0o400):
            target.chmod(mode)
            require_private(target)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
    def test_require_private_complains_about_the_mode(self, target: Path, mode: int) -> None:
        """Any right of another is named, with the command that takes it away."""
        target.chmod(mode)

        with pytest.raises(SystemFault, match=f"others \\(mode {mode:04o}\\)") as caught:
            require_private(target)
        assert f"run: chmod 600 {target}" == caught.value.hint

    @AS_ROOT
    def test_require_private_complains_about_the_owner(self, target: Path) -> None:
        """A foreign owner is named unless it is allowed."""
        target.chmod(0o600)
        os.chown(target, NOBODY, 0)

        require_private(target, allowed_uids=frozenset({NOBODY}))
        with pytest.raises(SystemFault, match=f"belongs to uid {NOBODY}") as caught:
            require_private(target)
        assert f"run: chown root: {target}" == caught.value.hint

    def test_require_private_complains_about_a_link_or_nothing(self, target: Path) -> None:
        """A link to a private file is refused, and a missing file is a fault."""
        target.chmod(0o600)
        link = target.with_name("link")
        link.symlink_to(target)

        with pytest.raises(SystemFault, match="is a symbolic link"):
            require_private(link)
        with pytest.raises(SystemFault, match=r"cannot check .*: No such file"):
            require_private(target.with_name("missing"))


def test_find_program_takes_the_first_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are tried in order, in the sbin directories too, and none is None."""
    monkeypatch.setenv("PATH", "/nonexistent")

    assert find_program("no-such-program") is None
    found = find_program("no-such-program", "ldconfig")
    assert found is not None
    assert "ldconfig" == found.name

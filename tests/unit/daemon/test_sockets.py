"""Tests of `sesguard.daemon.sockets`."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sesguard.daemon.sockets import (
    FORBIDDEN_NAME,
    SocketPlan,
    open_socket,
    plan_lookup_socket,
    prepare_directory,
    remove_socket,
    require_listening,
    runtime_lock,
    socket_path,
    users_kept_out,
)
from sesguard.errors import SystemFault
from sesguard.system.privileges import User, current_user, is_root

needs_root = pytest.mark.skipif(not is_root(), reason="needs root, to give files to other users")

PLAN = SocketPlan("exim", 0o660, os.getegid())


@contextlib.contextmanager
def _bound(path: Path, backlog: int | None = None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        if backlog is not None:
            other.listen(backlog)
        yield other


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    """Readable for all, writable for its owner."""
    prepare_directory(tmp_path / "run")

    assert 0o755 == (tmp_path / "run").stat().st_mode & 0o777


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put a socket of their own in place of ours. The mode is left as it is."""
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(mode)

    with pytest.raises(SystemFault, match="others can write") as caught:
        prepare_directory(run)

    assert f"run: chmod 755 {run}" == caught.value.hint
    assert mode == run.stat().st_mode & 0o7777


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could do the same."""
    run = tmp_path / "run"
    run.mkdir()
    os.chown(run, 65533, 0)

    with pytest.raises(SystemFault, match="belongs to uid 65533"):
        prepare_directory(run)


def test_a_link_or_a_file_is_no_directory(tmp_path: Path) -> None:
    """A link may be pointed elsewhere later."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")

    for name in ("link", "file"):
        with pytest.raises(SystemFault, match="is not a directory"):
            prepare_directory(tmp_path / name)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_the_file_that_must_not_exist_is_refused(tmp_path: Path, kind: str) -> None:
    """Also a link to a file that may appear later."""
    forbidden = tmp_path / "run" / FORBIDDEN_NAME
    forbidden.parent.mkdir()
    if kind == "file":
        forbidden.write_text("")
    else:
        forbidden.symlink_to(tmp_path / "nowhere")

    with pytest.raises(SystemFault, match="credential-not-released exists"):
        prepare_directory(tmp_path / "run")


def test_a_socket_listens_with_its_mode(tmp_path: Path) -> None:
    """The process's umask plays no part, and is as before."""
    before = os.umask(0o077)
    try:
        with open_socket(tmp_path, PLAN):
            assert 0o660 == socket_path(tmp_path, "exim").stat().st_mode & 0o777
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "exim.sock"))
        assert 0o077 == os.umask(0o077)
    finally:
        os.umask(before)


def test_a_socket_file_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """Nobody listens on it."""
    with _bound(tmp_path / "exim.sock"):
        pass

    with open_socket(tmp_path, PLAN), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "exim.sock"))


@pytest.mark.parametrize("backlog", [10, 0])
def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path, backlog: int) -> None:
    """Also when its queue is full."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_bound(tmp_path / "exim.sock", backlog))
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(tmp_path / "exim.sock"))

        with pytest.raises(SystemFault, match="another process listens on"):
            open_socket(tmp_path, PLAN)

        assert (tmp_path / "exim.sock").is_socket()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    """It may be somebody's data."""
    (tmp_path / "exim.sock").write_text("precious")

    with pytest.raises(SystemFault, match="is in the way and is no socket"):
        open_socket(tmp_path, PLAN)

    assert "precious" == (tmp_path / "exim.sock").read_text()


def test_a_link_in_the_place_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    """Nothing is made or removed at the place it points to."""
    (tmp_path / "exim.sock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SystemFault, match="is in the way"):
        open_socket(tmp_path, PLAN)

    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(SystemFault, match=r"cannot listen on .*exim.sock: No such file"):
        open_socket(tmp_path / "nowhere", PLAN)


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    """The kernel's own message does not tell the limit."""
    with pytest.raises(SystemFault, match="longer than 107 bytes"):
        open_socket(tmp_path / ("x" * 120), PLAN)


def test_two_daemons_cannot_have_one_directory(tmp_path: Path) -> None:
    """The second is told so; afterwards the directory is free."""
    with runtime_lock(tmp_path), pytest.raises(SystemFault, match="another sesguardd is running"):
        runtime_lock(tmp_path).__enter__()
    with runtime_lock(tmp_path):
        pass


def test_a_socket_file_is_removed_where_possible(tmp_path: Path) -> None:
    """Not there is fine."""
    with open_socket(tmp_path, PLAN):
        remove_socket(tmp_path, "exim")
        remove_socket(tmp_path, "exim")

    assert not (tmp_path / "exim.sock").exists()


@needs_root
def test_the_socket_belongs_to_the_group_of_the_first_user_that_is_not_root(
    tmp_path: Path,
) -> None:
    """Root needs no group to get in."""
    users = (User("root", 0, 0), User("first", 65001, 65001), User("second", 65002, 65002))

    plan = plan_lookup_socket("exim", users)
    with open_socket(tmp_path, plan):
        status = (tmp_path / "exim.sock").stat()

    assert (0, 65001, 0o660) == (status.st_uid, status.st_gid, status.st_mode & 0o777)
    assert ["second"] == users_kept_out(plan, users)


@needs_root
def test_root_alone_is_kept_in() -> None:
    """A socket for root is root's."""
    users = (User("root", 0, 0),)

    plan = plan_lookup_socket("exim", users)

    assert SocketPlan("exim", 0o660, 0) == plan
    assert [] == users_kept_out(plan, users)


def test_the_daemons_own_user_is_never_kept_out() -> None:
    """It owns the socket."""
    assert [] == users_kept_out(SocketPlan("exim", 0o660, 65001), (current_user(),))


def test_a_listening_unix_socket_can_be_taken_over(tmp_path: Path) -> None:
    """And nothing else: a bound one, a datagram one and one of another family are refused."""
    with _bound(tmp_path / "a", 1) as listening:
        assert listening is require_listening(listening, "exim")
    with (
        _bound(tmp_path / "b") as bound,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_INET) as internet,
    ):
        internet.bind(("127.0.0.1", 0))
        internet.listen()
        for wrong in (bound, datagram, internet):
            with pytest.raises(SystemFault, match="no listening Unix stream socket"):
                require_listening(wrong, "exim")

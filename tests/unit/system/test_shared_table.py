"""A small table of numbers that several processes share."""

import math
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.shared_table import SharedTable, Values, read_row

FOREVER = math.inf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the table is."""
    return tmp_path / "table"


@pytest.fixture
def table(path: Path) -> Iterator[SharedTable]:
    """A table of three rows of two numbers."""
    with closing(SharedTable(path, columns=2, rows=3)) as opened:
        yield opened


def put(
    table: SharedTable, name: str, *values: float, until: float = FOREVER, now: float = 0.0
) -> None:
    """Set a row."""
    table.update(name, now, lambda _: (values, until))


def get(table: SharedTable, name: str) -> Values | None:
    """What a row holds, as `update` sees it."""
    seen: list[Values | None] = []
    table.update(name, 0.0, seen.append)
    return seen[0]


def test_rows_keep_their_values(table: SharedTable, path: Path) -> None:
    """What is written is read again, by name, also without the lock and after a reopening."""
    put(table, "shop", 1.5, -2.0)
    put(table, "blog", 3.0, 4.0)

    assert (1.5, -2.0) == get(table, "shop")
    assert (3.0, 4.0) == read_row(path, "blog", columns=2)
    with closing(SharedTable(path, columns=2, rows=3)) as again:
        assert (1.5, -2.0) == get(again, "shop")
    assert 0o600 == path.stat().st_mode & 0o777


def test_unknown_row(table: SharedTable, path: Path) -> None:
    """A row that was never written is None, and asking for it makes none."""
    assert get(table, "shop") is None
    assert read_row(path, "shop", columns=2) is None
    assert read_row(path.with_name("none"), "shop", columns=2) is None
    assert read_row(path, "shop", columns=7) is None


def test_rows_that_matter_are_kept(table: SharedTable) -> None:
    """A table whose rows all matter takes no further name, and keeps those it has."""
    for name in ("a", "b", "c"):
        put(table, name, 1.0, 1.0, until=100.0)

    with pytest.raises(SystemFault, match="no room"):
        put(table, "d", 2.0, 2.0, now=99.0)

    assert (1.0, 1.0) == get(table, "a")


def test_row_that_matters_no_more_is_given_away(table: SharedTable) -> None:
    """The row that stopped mattering first makes room."""
    for name, until in (("a", 100.0), ("b", 50.0), ("c", 60.0)):
        put(table, name, 1.0, 1.0, until=until)

    put(table, "d", 2.0, 2.0, now=70.0)

    assert (2.0, 2.0) == get(table, "d")
    assert (1.0, 1.0) == get(table, "a")
    assert (1.0, 1.0) == get(table, "c")


def test_row_that_another_process_gave_away(table: SharedTable, path: Path) -> None:
    """A name whose row went to another is looked for again, not taken from its old place."""
    put(table, "a", 1.0, 1.0, until=1.0)
    with closing(SharedTable(path, columns=2, rows=3)) as other:
        for name in ("b", "c", "d"):
            put(other, name, 9.0, 9.0, now=2.0)

    with pytest.raises(SystemFault, match="no room"):
        get(table, "a")


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 8, b"foreign " * 1000])
def test_file_that_is_not_ours(path: Path, content: bytes) -> None:
    """A short or foreign file is made anew, empty."""
    path.write_bytes(content)

    with closing(SharedTable(path, columns=2, rows=3)) as table:
        put(table, "a", 1.0, 2.0)
        assert (1.0, 2.0) == get(table, "a")


def test_other_dimensions(table: SharedTable, path: Path) -> None:
    """A table of other dimensions is made anew."""
    put(table, "a", 1.0, 2.0)

    with closing(SharedTable(path, columns=3, rows=3)) as other:
        assert get(other, "a") is None


@pytest.mark.parametrize("size", [0, 10, 40, 88])
def test_file_that_is_cut_while_in_use(table: SharedTable, path: Path, size: int) -> None:
    """A file that somebody cuts short is made anew and kills nobody."""
    for name in ("a", "b", "c"):
        put(table, name, 1.0, 2.0)
    os.truncate(path, size)

    put(table, "c", 3.0, 4.0)

    assert (3.0, 4.0) == get(table, "c")


@pytest.mark.parametrize("place", ["/dev/full", "missing/table"])
def test_file_that_cannot_be_used(tmp_path: Path, place: str) -> None:
    """A full disk or a missing directory is an error that names the file."""
    with (
        pytest.raises(SystemFault, match=place),
        closing(SharedTable(tmp_path / place, columns=2, rows=3)) as table,
    ):
        put(table, "a", 1.0, 1.0)


def test_directory_in_place_of_the_table(tmp_path: Path) -> None:
    """What is there and cannot be read is an error."""
    with pytest.raises(SystemFault, match="cannot read"):
        read_row(tmp_path, "a", columns=2)


def test_no_addition_is_lost(table: SharedTable) -> None:
    """Processes that add to one row at a time lose nothing."""
    children = [_fork_adder(table, 300) for _ in range(4)]
    for pid in children:
        assert 0 == os.waitpid(pid, 0)[1]

    assert (1200.0, 1200.0) == get(table, "sum")


def test_killed_holder_leaves_no_lock(table: SharedTable, path: Path) -> None:
    """A process that is killed in the middle of an update keeps nobody waiting."""
    put(table, "a", 1.0, 1.0)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:

        def hang(_: Values | None) -> None:
            os.write(writing, b"x")
            signal.pause()

        table.update("a", 0.0, hang)
        os._exit(1)
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)

    assert (1.0, 1.0) == get(table, "a")


def _fork_adder(table: SharedTable, times: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(times):
                table.update(
                    "sum", 0.0, lambda row: (tuple(v + 1 for v in row or (0.0, 0.0)), FOREVER)
                )
            code = 0
        finally:
            os._exit(code)
    return pid

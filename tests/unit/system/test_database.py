"""SQLite as sesguard uses it."""

import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.database import open_database
from unit.system.children import in_child

SCHEMA = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (parent REFERENCES parent)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "state.db"


def test_a_new_database_has_the_schema_and_its_version(path: Path) -> None:
    """And is private; opening it again changes nothing."""
    for _ in range(2):
        connection = open_database(path, SCHEMA, version=3)
        connection.execute("INSERT INTO parent DEFAULT VALUES")
        assert 3 == connection.execute("PRAGMA user_version").fetchone()[0]
        connection.close()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    with sqlite3.connect(path) as check:
        assert [(2,)] == check.execute("SELECT count(*) FROM parent").fetchall()
    check.close()


def test_commits_are_flushed_and_foreign_keys_hold(path: Path) -> None:
    """WAL with synchronous=FULL: what is committed survives a power failure."""
    connection = open_database(path, SCHEMA, version=1)
    pragmas = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    assert expected == pragmas
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO child VALUES (7)")
    connection.close()


def test_what_is_committed_survives_a_kill(path: Path) -> None:
    """And what is not committed is gone."""
    pid = os.fork()
    if pid == 0:
        connection = open_database(path, SCHEMA, version=1)
        connection.execute("INSERT INTO parent VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO parent VALUES (2)")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    connection = open_database(path, SCHEMA, version=1)
    assert [1] == [row["id"] for row in connection.execute("SELECT id FROM parent")]
    connection.close()


def test_a_database_of_a_newer_release_is_refused(path: Path) -> None:
    """And left as it is."""
    open_database(path, SCHEMA, version=2).close()
    with pytest.raises(SystemFault, match="was made by a newer release of sesguard") as caught:
        open_database(path, SCHEMA, version=1)
    assert "install that release again" in (caught.value.hint or "")
    open_database(path, SCHEMA, version=2).close()


def test_what_is_no_database_is_refused(path: Path) -> None:
    """Its bytes stay."""
    path.write_bytes(b"this is a text, not a database" * 100)
    with pytest.raises(
        SystemFault, match=f"cannot open the database {path}: file is not a database"
    ):
        open_database(path, SCHEMA, version=1)
    assert path.read_bytes().startswith(b"this is a text")


def test_a_missing_directory_is_a_fault(tmp_path: Path) -> None:
    """Directories are made elsewhere, with their owner and mode."""
    with pytest.raises(SystemFault, match="cannot open the database"):
        open_database(tmp_path / "no" / "state.db", SCHEMA, version=1)


def test_a_schema_that_fails_leaves_no_half_of_it(path: Path) -> None:
    """The next try starts from nothing."""
    with pytest.raises(SystemFault, match="cannot open the database"):
        open_database(path, "CREATE TABLE a (x); CREATE TABLE a (x)", version=1)
    connection = open_database(path, SCHEMA, version=1)
    names = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master")]
    assert ["parent", "child"] == names
    connection.close()


def test_a_failed_open_leaves_no_descriptor_behind(path: Path) -> None:
    """Neither the database's nor the lock's."""
    open_database(path, SCHEMA, version=2).close()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(SystemFault):
        open_database(path, SCHEMA, version=1)
    assert before == sorted(os.listdir("/proc/self/fd"))


def test_two_processes_may_open_a_new_database_at_once(path: Path) -> None:
    """Ten rounds of four processes that start together: the schema is made once."""
    for number in range(10):
        database = path.with_name(f"{number}.db")
        reading, writing = os.pipe()
        children = [_opener(database, reading, writing) for _ in range(4)]
        os.close(reading)
        os.close(writing)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert [0, 0, 0, 0] == statuses


def _opener(database: Path, reading: int, writing: int) -> int:
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # returns when the parent has started all of them
        said = in_child(lambda: open_database(database, SCHEMA, version=1).close())
        os._exit(0 if said == "None" else 1)
    return pid

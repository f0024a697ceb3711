"""The ledger: written soon, found by SES id and app, purged, tried again where it cannot be."""

import asyncio
import resource
import sqlite3
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sesguard.errors import SystemFault
from sesguard.relay import ledger as ledger_module
from sesguard.relay.ledger import Ledger, LedgerEntry

ENTRY = LedgerEntry(
    at=1000.0,
    outcome="delivered",
    app="shop",
    uid=1001,
    sender="shop@example.com",
    recipients=2,
    size=4096,
    ses_message_id="0100018f-a",
    spool_id="1ZR8QX0T3K5",
    credential_id="main",
    credential_version=3,
    possible_duplicate=True,
)
DAY = 86_400.0


def written(directory: Path, *entries: LedgerEntry, now: float = 1000.0) -> None:
    async def act() -> None:
        ledger = Ledger(directory, days=90, now=lambda: now)
        for entry in entries:
            ledger.add(entry)
        await ledger.close()

    asyncio.run(act())


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM ledger").fetchone()[0])
    finally:
        connection.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is the disk that changes
            await asyncio.sleep(0.01)


def test_an_entry_is_found_by_its_ses_id(tmp_path: Path) -> None:
    """As it was added; another id finds nothing."""
    written(tmp_path, ENTRY, replace(ENTRY, ses_message_id=None, spool_id=None, uid=None))
    ledger = Ledger(tmp_path)
    assert ENTRY == ledger.find("0100018f-a")
    assert ledger.find("0100018f-b") is None
    assert 0o600 == (tmp_path / "ledger.db").stat().st_mode & 0o777


def test_recent_entries_are_the_newest_first(tmp_path: Path) -> None:
    """Of one app or of all, as many as are wanted."""
    entries = [replace(ENTRY, at=float(n), app="shop" if n % 2 else "blog") for n in range(10)]
    written(tmp_path, *entries)
    ledger = Ledger(tmp_path)
    assert [9.0, 8.0, 7.0] == [entry.at for entry in ledger.recent(None, 3)]
    assert [8.0, 6.0] == [entry.at for entry in ledger.recent("blog", 2)]
    assert [] == ledger.recent("none", 2)


def test_an_entry_is_written_without_being_asked(tmp_path: Path) -> None:
    """Soon after it was added, while the daemon goes on."""

    async def act() -> None:
        ledger = Ledger(tmp_path, now=lambda: 1000.0)
        for _ in range(100):
            ledger.add(ENTRY)
        path = tmp_path / "ledger.db"
        await until(lambda: path.exists() and count(path) == 100)
        await ledger.close()

    asyncio.run(act())


def test_old_entries_are_removed(tmp_path: Path) -> None:
    """With the next batch, those older than the settings' days."""
    written(tmp_path, *(replace(ENTRY, at=float(n)) for n in range(5)))
    written(tmp_path, replace(ENTRY, at=91 * DAY), now=90 * DAY + 3)
    assert [91 * DAY, 4.0, 3.0] == [entry.at for entry in Ledger(tmp_path).recent(None, 9)]


def failing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, act: Any
) -> Coroutine[Any, Any, None]:
    monkeypatch.setattr(ledger_module, "_AGAIN_S", 0.05)

    async def run() -> None:
        ledger = Ledger(directory, now=lambda: 1000.0)
        await act(ledger)
        await ledger.close()

    return run()


def test_entries_are_kept_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written once there is room."""

    async def act(ledger: Ledger) -> None:
        ledger.add(ENTRY)
        await until(lambda: not ledger.waiting)
        ledger.add(replace(ENTRY, at=1001.0))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            await until(lambda: not ledger.waiting)
            await until(lambda: ledger.waiting)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await until(lambda: count(tmp_path / "ledger.db") == 2)

    asyncio.run(failing(tmp_path, monkeypatch, act))


def test_an_entry_that_cannot_be_written_keeps_no_other_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out, once."""

    async def act(ledger: Ledger) -> None:
        ledger.add(replace(ENTRY, at=1001.0))
        ledger.add(replace(ENTRY, sender="\ud800@example.com"))
        ledger.add(replace(ENTRY, at=1002.0))

    asyncio.run(failing(tmp_path, monkeypatch, act))
    assert [1002.0, 1001.0] == [entry.at for entry in Ledger(tmp_path).recent(None, 9)]


def test_a_ledger_that_cannot_be_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory comes later."""

    async def act(ledger: Ledger) -> None:
        ledger.add(ENTRY)
        ledger.add(replace(ENTRY, at=1001.0))
        await asyncio.sleep(0.7)
        (tmp_path / "later").mkdir()
        await until((tmp_path / "later" / "ledger.db").exists)
        await until(lambda: count(tmp_path / "later" / "ledger.db") == 2)

    asyncio.run(failing(tmp_path / "later", monkeypatch, act))


def test_a_ledger_that_cannot_be_read(tmp_path: Path) -> None:
    """It is told as a fault of the system."""
    (tmp_path / "ledger.db").write_bytes(b"no database " * 100)
    with pytest.raises(SystemFault, match=r"ledger\.db"):
        Ledger(tmp_path).find("x")

"""What the operations on the queue cost, however many messages are in it."""

import sqlite3
from pathlib import Path

import pytest

from rigs.queue import BODY, ENVELOPE
from sesguard.relay.spool import Origin
from sesguard.relay.spool_records import ClaimRequest, NewMessage, Settlement, State
from sesguard.relay.spool_table import SCHEMA, SpoolTable
from sesguard.system.database import open_database


def steps_of(connection: sqlite3.Connection, act: object, argument: object) -> int:
    """Instructions of SQLite's machine that an operation takes."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 1)
    try:
        act(connection, [argument])  # type: ignore[operator]
    finally:
        connection.set_progress_handler(None, 0)
    return count


@pytest.fixture
def table(tmp_path: Path) -> SpoolTable:
    return SpoolTable(tmp_path, max_bytes=10**12, min_free_bytes=0)


def test_cost_does_not_grow_with_the_queue(tmp_path: Path, table: SpoolTable) -> None:
    """A hundred times as many messages: the same number of steps for each act on one of them."""
    few, many = (costs_with(tmp_path / str(rows), table, rows) for rows in (200, 20_000))
    assert {"insert", "claim", "settle", "totals", "expire"} == set(few)
    for act, steps in few.items():
        assert many[act] <= steps * 1.2, (act, few, many)


def costs_with(path: Path, table: SpoolTable, rows: int) -> dict[str, int]:
    """Steps of each operation on a queue of so many messages, a tenth of them held."""
    connection = open_database(path, SCHEMA, version=1)

    def new(number: int) -> NewMessage:
        state = State.HELD if number % 10 == 0 else State.QUEUED
        origin = Origin(f"app{number % 4}", 1, f"c{number % 3}")
        return NewMessage(origin, ENVELOPE, float(number), state, None, BODY)

    connection.execute("BEGIN")
    table.insert(connection, [new(number) for number in range(rows)])
    connection.execute("COMMIT")
    due = ClaimRequest(1, 1e9, {}, {})
    expired = ClaimRequest(1, 1e9, {"c0": 0, "c1": 0, "c2": 0}, {"c1": 2e9})
    costs = {
        "insert": steps_of(connection, table.insert, new(1)),
        "claim": steps_of(connection, table.claim, due),
        "expire": steps_of(connection, table.claim, expired),
        "totals": steps_of(connection, table.totals, None),
    }
    [claim] = table.claim(connection, [due])
    costs["settle"] = steps_of(connection, table.settle, Settlement(claim.messages[0], None))
    connection.close()
    return costs

"""`python -m benchmarks.parameters`: five ways to hand the rows of a batch to one INSERT.

Writes ledger entries into the real table of a durable embedded database, a batch at a time, each
committed. This is why `storage.arrays` packs the columns itself, in PostgreSQL's binary format.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, NamedTuple

import orjson
import psutil
from rich.console import Console

from benchmarks import servers
from meterhold_server.storage import statements
from meterhold_server.storage.exchange import Connection, columns, exchange
from meterhold_server.storage.tables import entry

ROWS: Final = 64
BATCHES: Final = 500
ACCOUNT_ID: Final = "00000000-0000-0000-0000-000000000001"

_TYPES: Final = {
    str(column.name): str(column.type).replace("DATETIME", "timestamptz") for column in entry.c
}
_SLOTS: Final = "(" + ", ".join(f"%s::{kind}" for kind in _TYPES.values()) + ")"
_seq = count(1)

Rows = list[dict[str, Any]]


def batch() -> Rows:
    return [
        dict.fromkeys(_TYPES)
        | {
            "account_id": ACCOUNT_ID,
            "seq": next(_seq),
            "kind": "DEBIT",
            "amount_micros": -5,
            "remaining_after_micros": 10**12,
            "create_time": datetime(2026, 1, 1, tzinfo=UTC),
            "key": "order",
            "parts": "[[1, 5]]",
        }
        for _ in range(ROWS)
    ]


def as_columns(connection: Connection, rows: Rows) -> None:
    insert = statements.INSERT_ENTRIES
    arrays = columns(insert, [tuple(row.values()) for row in rows])
    exchange(connection, [(insert, arrays)])


def as_json(connection: Connection, rows: Rows) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
    sql = f"INSERT INTO entry SELECT * FROM json_to_recordset(%s::json) AS r({columns})"
    for row in rows:
        row["parts"] = orjson.Fragment(row["parts"])
    connection.execute(sql, [orjson.dumps(rows).decode()], prepare=True)


def as_arrays(connection: Connection, rows: Rows) -> None:
    slots = ", ".join(f"%s::{kind}[]" for kind in _TYPES.values())
    sql = f"INSERT INTO entry SELECT * FROM unnest({slots})"
    connection.execute(sql, [[row[name] for row in rows] for name in _TYPES], prepare=True)


def as_pipeline(connection: Connection, rows: Rows) -> None:
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO entry VALUES {_SLOTS}", [[*row.values()] for row in rows])


def as_values(connection: Connection, rows: Rows) -> None:
    sql = "INSERT INTO entry VALUES " + ", ".join([_SLOTS] * len(rows))
    connection.execute(sql, [value for row in rows for value in row.values()], prepare=True)


def main() -> None:
    console = Console()
    with servers.database() as database:
        url = database.create_migrated("parameters")
        with Connection.connect(url, autocommit=True) as connection:
            ways = (as_columns, as_json, as_arrays, as_pipeline, as_values)
            taken = {way: measure(way, connection) for way in ways}
    first = taken[as_columns]
    for way, one in taken.items():
        console.print(
            f"{way.__name__:<12} {one.elapsed * 1000:5.2f} ms a batch of {ROWS}; as many × the "
            f"first: time {one.elapsed / first.elapsed:4.1f}, client CPU "
            f"{one.client / first.client:4.1f}, database CPU {one.database / first.database:4.1f}"
        )


class Seconds(NamedTuple):
    """What a batch takes, and the CPU of this process and of the database's."""

    elapsed: float
    client: float
    database: float


def measure(way: Callable[[Connection, Rows], None], connection: Connection) -> Seconds:
    backend = psutil.Process(connection.info.backend_pid)
    for _ in range(BATCHES // 5):
        way(connection, batch())
    started, client, database = time.perf_counter(), time.process_time(), _cpu_of(backend)
    for _ in range(BATCHES):
        way(connection, batch())
    return Seconds(
        (time.perf_counter() - started) / BATCHES,
        (time.process_time() - client) / BATCHES,
        (_cpu_of(backend) - database) / BATCHES,
    )


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()

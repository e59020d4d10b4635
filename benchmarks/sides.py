"""A ledger with its server, and what its tables have come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg

from benchmarks.ledgers import NAMESPACE, UNIT
from benchmarks.servers import Server
from benchmarks.tables import Sheet
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.storage.connection import connect_lane
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.statements import NEXT_RESERVATIONS

_SIZE: Final = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
_TABLES: Final = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_tup_ins, n_tup_upd,
        n_tup_hot_upd, n_dead_tup, autovacuum_count
    FROM pg_stat_user_tables WHERE n_tup_ins > 0 OR n_tup_upd > 0 ORDER BY relname
"""


class Side(NamedTuple):
    """`accounts` are those with the prefix `bench-`."""

    name: str
    url: str
    server: Server
    accounts: int


def size_bytes(url: str) -> int:
    """Of all tables, with their indexes."""
    return int(rows(url, _SIZE)[0][0])


def table_sheet(sides: Sequence[Side]) -> Sheet:
    """How large the tables are, and what was done to them since they were loaded."""
    headings = (
        "table", "ledger", "table MiB", "indexes MiB", "inserted", "updated", "heap-only",
        "dead", "autovacuums",
    )  # fmt: skip
    found = []
    for side in sides:
        for name, table, indexes, inserted, updated, hot, dead, vacuums in rows(side.url, _TABLES):
            found.append(
                (
                    name,
                    side.name,
                    f"{table / 2**20:,.0f}",
                    f"{indexes / 2**20:,.0f}",
                    f"{inserted:,}",
                    f"{updated:,}",
                    f"{hot / updated:.0%}" if updated else "",
                    f"{dead:,}",
                    f"{vacuums}",
                )
            )
    return Sheet("Growth: the tables", headings, sorted(found))


def due_sheet(sides: Sequence[Side], account: str) -> Sheet:
    """What it takes to find what is next to expire in a busy account, once it is due.

    Holds that have ended are in the way of it until a vacuum comes.
    """
    headings = ("look-up in the hot account", "ledger", "ms", "blocks")
    found: list[tuple[str, ...]] = []
    for side in sides:
        with connect_lane(side.url) as connection:
            for number in ("first", "second"):
                milliseconds, blocks = _look_up(connection, account)
                found.append((number, side.name, f"{milliseconds:.2f}", f"{blocks:,}"))
    return Sheet("Growth: what is next to expire", headings, sorted(found))


def _look_up(connection: Connection, account: str) -> tuple[float, int]:
    ids = "{" + account_id_of(AccountKey(NAMESPACE, account, UNIT)) + "}"
    values = {"account_id": f"'{ids}'", "now": "clock_timestamp()"}
    given = ", ".join(values[name] for name, _ in NEXT_RESERVATIONS.columns)
    connection.execute(b"PREPARE look_up AS " + NEXT_RESERVATIONS.sql)
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE look_up({given})"
    [(plans,)] = connection.execute(explain.encode()).fetchall()
    connection.execute("DEALLOCATE look_up")
    top = plans[0]["Plan"]
    return plans[0]["Execution Time"], top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()

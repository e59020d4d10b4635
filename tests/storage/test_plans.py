"""The statements of the lanes are planned once, while the tables may still be empty. The plan made
then must be the one that is right when they have grown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from meterhold_server.storage import statements
from meterhold_server.storage.connection import connect_lane
from meterhold_server.storage.exchange import Statement, exchange

VALUES: dict[str, Any] = {
    "account_id": "00000000-0000-0000-0000-000000000001",
    "reservation_id": "job",
    "seq": 1,
    "namespace": "default",
    "kind": "DEBIT",
    "key": "key",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        ("LOCK_ACCOUNTS", {"pk_account"}),
        ("LIVE_LOTS", {"ix_lot_live"}),
        ("RESERVATIONS", {"pk_reservation"}),
        ("CLAIMS", {"pk_claim", "pk_entry"}),
        ("ACCOUNT_CLAIMS", {"pk_account_claim", "pk_entry"}),
        ("DUE_RESERVATIONS", {"ix_reservation_active"}),
        ("NEXT_RESERVATIONS", {"pk_account", "ix_reservation_active"}),
        ("LOTS", {"pk_lot"}),
        ("UPDATE_ACCOUNTS", {"pk_account"}),
        ("UPDATE_LOTS", {"pk_lot"}),
        ("UPDATE_RESERVATIONS", {"pk_reservation"}),
    ],
)
def test_a_plan_made_on_empty_tables_uses_the_index_that_stays_right(
    database_url: str, statement: str, indexes: set[str]
) -> None:
    with connect_lane(database_url) as connection:
        wanted: Statement = getattr(statements, statement)
        explain = wanted._replace(name=b"explain", sql=b"EXPLAIN (COSTS OFF) " + wanted.sql)
        values = {name: [VALUES.get(name)] for name, _ in wanted.columns}
        [rows] = exchange(connection, [(explain, values | {"now": NOW})])
    plan = "\n".join(row[0] for row in rows)
    used = {line.split(" using ")[1].split()[0] for line in plan.splitlines() if " using " in line}
    assert used == indexes, plan
    assert "Seq Scan" not in plan

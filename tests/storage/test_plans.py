"""The statements of the lanes are planned once, while the tables may still be empty. The plan made
then must be the one that is right when they have grown."""

from __future__ import annotations

import pytest

from meterhold_server.storage import statements
from meterhold_server.storage.connection import connect_lane
from meterhold_server.storage.exchange import Statement, exchange
from meterhold_server.storage.rows import json_rows

ACCOUNT_ID = "00000000-0000-0000-0000-000000000001"
ROW = {
    "account_id": ACCOUNT_ID,
    "reservation_id": "job",
    "seq": 1,
    "namespace": "default",
    "kind": "DEBIT",
    "key": "key",
}
PARAMETERS = {
    "account_ids": "{" + ACCOUNT_ID + "}",
    "rows": json_rows([ROW]),
    "now": "2026-01-01T00:00:00+00:00",
}


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
        explain = Statement(b"explain", b"EXPLAIN (COSTS OFF) " + wanted.sql, wanted.parameters)
        [rows] = exchange(connection, [(explain, PARAMETERS)])
    plan = "\n".join(row[0] for row in rows)
    used = {line.split(" using ")[1].split()[0] for line in plan.splitlines() if " using " in line}
    assert used == indexes, plan
    assert "Seq Scan" not in plan

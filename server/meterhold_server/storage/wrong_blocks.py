"""Remove the blocks of charges that are not what their entries say. They are a copy."""

from __future__ import annotations

from typing import Final

from meterhold_server.storage.checks import WRONG_BLOCKS
from meterhold_server.storage.exchange import Connection

_SAME: Final = (
    "(t.account_id, t.first_seq, t.entry_count) = (w.account_id, w.first_seq, w.entry_count)"
)
_REMOVE: Final = f"""
    WITH wrong AS MATERIALIZED ({WRONG_BLOCKS}
    ), blocks AS (
        DELETE FROM charge_block t USING wrong w WHERE {_SAME}
    ), sums AS (
        DELETE FROM charge_summary t USING wrong w WHERE {_SAME}
    )
    SELECT count(*) FROM wrong"""


def remove_wrong_blocks(connection: Connection, account_id: str) -> int:
    """Remove those of an account, in a transaction, and answer how many there were.

    Needs no lock: reports read their entries from then on, and the summarizer makes them again.
    Raises psycopg.Error.
    """
    named = {"first": account_id, "last": account_id}
    row = connection.execute(_REMOVE.encode(), named).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])

"""What proves, in the database itself, that a batch was committed.

The number of a transaction does not prove it: PostgreSQL gives numbers that its log did not keep to
other transactions, after a crash and after a failover. A row that only this batch can have written,
at its own time, does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Table, bindparam, select

from meterhold_server.core.model import NAMESPACE_CLAIM_KINDS
from meterhold_server.core.posting import Writes
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import Row, claim_key_row
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account_claim, claim, entry, reservation


def _create_time(table: Table) -> tuple[str, list[str]]:
    """When the row of a key was written, and the names of the key's parameters."""
    keys = (column == bindparam(column.name, type_=column.type) for column in table.primary_key)
    statement = compiled(select(table.c.create_time).where(*keys))
    return statement, [column.name for column in table.primary_key]


_BY_TABLE: Final = {
    table.name: _create_time(table) for table in (entry, reservation, claim, account_claim)
}


class Evidence(NamedTuple):
    """A row, by the primary key of its table, and the time at which the batch wrote it."""

    table: str
    key: Row
    create_time: datetime

    def is_in(self, connection: Connection) -> bool:
        """Whether the row is there. Raises psycopg.Error."""
        statement, names = _BY_TABLE[self.table]
        row = connection.execute(statement, dict(zip(names, self.key, strict=True))).fetchone()
        return row == (self.create_time,)


def evidence_of(writes: Writes) -> Evidence | None:
    """A row that a batch adds and that never changes; None if it adds none.

    All that such a batch does, it may do twice: releasing, expiring, extending to a time, closing
    without a charge.
    """
    for written in writes.entries:
        return Evidence("entry", (written.account_id, written.seq), written.create_time)
    for held in writes.reservations.values():
        if not held.stored:
            key = held.account_id, held.reservation_id
            return Evidence("reservation", key, held.create_time)
    for claimed in writes.claims:
        in_namespace = claimed.claim_key.kind in NAMESPACE_CLAIM_KINDS
        name = "claim" if in_namespace else "account_claim"
        return Evidence(name, claim_key_row(claimed.claim_key), claimed.create_time)
    return None

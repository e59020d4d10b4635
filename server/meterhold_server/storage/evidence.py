"""What proves, in the database itself, that a batch was committed.

The number of a transaction does not prove it: PostgreSQL gives numbers that its log did not keep to
other transactions, after a crash and after a failover. A row that only this batch can have written,
at its own time, does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.schema import Column

from meterhold_server.core.model import NAMESPACE_CLAIM_KINDS, Reservation, ReservationState
from meterhold_server.core.posting import Writes
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import Row, claim_key_row
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account_claim, claim, entry, reservation


def _time(column: Column[datetime]) -> tuple[str, list[str]]:
    """What the row of a key says of a time, and the names of the key's parameters."""
    of_key = column.table.primary_key
    keys = (each == bindparam(each.name, type_=each.type) for each in of_key)
    return compiled(select(column).where(*keys)), [each.name for each in of_key]


_TIMES: Final = {
    **{
        table.name: _time(table.c.create_time)
        for table in (entry, reservation, claim, account_claim)
    },
    "end of reservation": _time(reservation.c.end_time),
}
"""When a row was written, by its table; and when a hold was settled or released."""


class Evidence(NamedTuple):
    """What the batch wrote, by a name of `_TIMES` and the primary key, and its time."""

    written: str
    key: Row
    time: datetime

    def is_in(self, connection: Connection) -> bool:
        """Whether it is there. Raises psycopg.Error."""
        statement, names = _TIMES[self.written]
        row = connection.execute(statement, dict(zip(names, self.key, strict=True))).fetchone()
        return row == (self.time,)


def evidence_of(writes: Writes) -> Evidence | None:
    """What a batch writes that never changes; None if it writes nothing of the kind.

    All that such a batch does, it may do twice: expiring, extending to a time.
    """
    for written in writes.entries:
        return Evidence("entry", (written.account_id, written.seq), written.create_time)
    for held in writes.reservations.values():
        key = held.account_id, held.reservation_id
        if not held.stored:
            return Evidence("reservation", key, held.create_time)
        if held.end_time is not None and _ended_for_good(held):
            return Evidence("end of reservation", key, held.end_time)
    for claimed in writes.claims:
        in_namespace = claimed.claim_key.kind in NAMESPACE_CLAIM_KINDS
        name = "claim" if in_namespace else "account_claim"
        return Evidence(name, claim_key_row(claimed.claim_key), claimed.create_time)
    return None


def _ended_for_good(held: Reservation) -> bool:
    """Whether a hold was settled or released. One that has expired may still be settled late."""
    return held.state in (ReservationState.SETTLED, ReservationState.RELEASED)

"""Where in an account's ledger a range of time lies, without an index on the time.

The time of an entry grows with its `seq`, so that the first one of a time is found by halving: some
25 look-ups by primary key in an account of ten million entries. A clock may have been set back; up
to `CLOCK_STEP` of that is allowed for, and whoever reads the range still has to compare the times.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from meterhold_server.storage.exchange import Connection

CLOCK_STEP: Final = timedelta(hours=1)
"""How far the database's clock may ever have been set back."""

_SEQS: Final = """
    WITH RECURSIVE bound (side, time) AS (
        VALUES ('first', %(start_time)s::timestamptz - %(clock_step)s),
               ('last', %(end_time)s::timestamptz + %(clock_step)s)
    ), step (side, time, low, high) AS (
        SELECT side, time,
            CASE WHEN side = 'last' AND time IS NULL THEN seq + 1 ELSE 1 END,
            CASE WHEN side = 'first' AND time IS NULL THEN 1 ELSE seq + 1 END
        FROM account, bound WHERE account_id = %(account_id)s
        UNION ALL
        SELECT side, time,
            CASE WHEN is_before THEN middle + 1 ELSE low END,
            CASE WHEN is_before THEN high ELSE middle END
        FROM step
        CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) AS half
        CROSS JOIN LATERAL (
            SELECT (
                SELECT create_time < time FROM entry
                WHERE entry.account_id = %(account_id)s AND entry.seq = middle
            ) AS is_before OFFSET 0
        ) AS looked_up
        WHERE low < high
    )
    SELECT low FROM step WHERE low = high ORDER BY side
"""


class Seqs(NamedTuple):
    """Entries from `first` to `last`, both among them. None at all if `last` is before `first`."""

    first: int
    last: int

    def beyond(self, seq: int | None, *, oldest_first: bool) -> Seqs:
        """Those that come after `seq` in an order; all of them if it is None."""
        if seq is None:
            return self
        if oldest_first:
            return Seqs(max(self.first, min(seq, self.last) + 1), self.last)
        return Seqs(self.first, min(self.last, seq - 1))

    def at_most(self, count: int, *, oldest_first: bool) -> Seqs:
        """The first `count` of them in an order."""
        if oldest_first:
            return Seqs(self.first, min(self.last, self.first + count - 1))
        return Seqs(max(self.first, self.last - count + 1), self.last)


NO_SEQS: Final = Seqs(1, 0)
ALL_SEQS: Final = Seqs(1, 2**63 - 2)


def seqs_between(
    connection: Connection,
    account_id: str,
    start_time: datetime | None,
    end_time: datetime | None,
) -> Seqs:
    """All entries of an account from `start_time` on and before `end_time`, and some around them.

    None = from the first, and to the last.
    """
    wanted = {
        "account_id": account_id,
        "start_time": start_time,
        "end_time": end_time,
        "clock_step": CLOCK_STEP,
    }
    rows = connection.execute(_SEQS, wanted, prepare=True).fetchall()
    if not rows:
        return NO_SEQS
    (first,), (end,) = rows
    return Seqs(first, end - 1)

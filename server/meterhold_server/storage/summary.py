"""Load what a rebuild has to know of an account: its history in sums, and all rows beside it.

Runs in the transaction of the batch, under the lock of the account. The queries are those of
`checks`, for one account.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Table

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import State
from meterhold_server.core.summary import Break, HoldCharges, Opening, Summary
from meterhold_server.storage.checks import (
    CHARGED,
    ENTRY_SUMS,
    EXPIRED,
    OTHER_TIMES,
    PARTS,
    PENDING,
    REFUNDED,
    REVOKED,
    WALK,
    within,
)
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import (
    charge_refund_from,
    entry_from,
    lot_from,
    reservation_from,
)
from meterhold_server.storage.tables import charge_refund, entry, lot, reservation

BREAKS_MAX: Final = 3000
"""More breaks than any rebuild works on."""

_SETTINGS: Final = {
    # A lane looks rows up by key; here the whole of an account is joined and summed up.
    "enable_seqscan": "on",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "plan_cache_mode": "auto",
    "statement_timeout": "120s",
}


def _columns(table: Table, alias: str) -> str:
    return ", ".join(f'{alias}."{column.name}"' for column in table.c)


_SUMS: Final = f"""
SELECT s.entries, s.last_seq, e.remaining_after_micros, s.total, s.granted, s.spent, s.expired,
       s.refunded, s.revoked, s.put_in
FROM ({ENTRY_SUMS}) s JOIN entry e ON e.account_id = s.account_id AND e.seq = s.last_seq"""
_SUM_NAMES: Final = (
    "entries",
    "last_seq",
    "last_remaining_micros",
    "total_micros",
    "granted_micros",
    "spent_micros",
    "expired_micros",
    "refunded_micros",
    "revoked_micros",
    "put_in",
)
_BREAKS: Final = f"""{WALK}
SELECT seq, seq_before, remaining_before, e.remaining_after_micros, change
FROM breaks JOIN entry e USING (account_id, seq)
WHERE change <> 0 OR seq <> seq_before + 1
ORDER BY seq LIMIT {BREAKS_MAX}"""
_LOTS: Final = f"SELECT {_columns(lot, 'l')} FROM lot l WHERE {within('l')}"
_RESERVATIONS: Final = f"""
SELECT {_columns(reservation, "r")}, coalesce(c.captured, 0), coalesce(c.at_expiry, 0),
       coalesce(c.corrected, 0)
FROM reservation r LEFT JOIN ({CHARGED}) c USING (account_id, reservation_id)
LEFT JOIN LATERAL (
    SELECT coalesce(sum((part -> 1)::bigint), 0) AS micros
    FROM jsonb_array_elements(r.parts) AS part
) p ON true
WHERE {within("r")}
  AND (r.state = 'ACTIVE'
       OR r.open_micros <> p.micros + r.on_credit_micros
       OR r.captured_micros::numeric + r.expiry_charged_micros
          <> coalesce(c.captured + c.at_expiry + c.corrected, 0)
       OR r.reserved_micros::numeric - r.from_hold_micros - r.released_micros
          <> r.expiry_charged_micros
       OR least(r.open_micros, r.on_credit_micros, r.captured_micros, r.from_hold_micros,
                r.released_micros, r.expiry_charged_micros) < 0)"""
_REFUNDS: Final = f"""
SELECT {_columns(charge_refund, "k")}, charge_seq, coalesce(r.micros, 0)
FROM (SELECT * FROM charge_refund WHERE {within("charge_refund")}) k
FULL JOIN ({REFUNDED}) r USING (account_id, charge_seq)
WHERE coalesce(k.refunded_micros, 0) <> coalesce(r.micros, 0)"""
_OPENINGS: Final = f"""
SELECT {_columns(entry, "e")}, c.request
FROM entry e JOIN account a USING (account_id)
LEFT JOIN claim c ON c.namespace = a.namespace AND c.key = e.key
    AND c.kind IN ('GRANT_ONCE', 'GRANT_AFTER_TOMBSTONE') AND c.entry_seq = e.seq
WHERE {within("e")} AND e.seq = ANY(%(seqs)s) AND e.kind <> 'CORRECTION' AND e.amount_micros > 0"""
_OTHER_TIME: Final = f"SELECT min(due_time) FROM ({OTHER_TIMES}) AS due"


def load_summary(connection: Connection, state: State, account_id: str) -> None:
    """Add an account's summary to the state, with its lots and what does not agree.

    Raises psycopg.Error.
    """
    for name, value in _SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    wanted: dict[str, Any] = {"first": account_id, "last": account_id}

    def rows(query: str, **more: Any) -> list[Any]:
        return connection.execute(query.encode(), wanted | more).fetchall()

    account = state.accounts[account_id]
    summary = Summary()
    for row in rows(_SUMS):
        for name, value in zip(_SUM_NAMES, row, strict=True):
            setattr(summary, name, int(value))
    summary.breaks = [Break(*map(int, row)) for row in rows(_BREAKS)]
    summary.parts = {seq: int(micros) for _, seq, micros in rows(PARTS)}
    summary.lots_expired = {seq or 0: int(micros) for _, seq, micros in rows(EXPIRED)}
    summary.lots_revoked = {seq or 0: int(micros) for _, seq, micros in rows(REVOKED)}
    summary.pending_micros = sum(int(micros) for _, micros in rows(PENDING))
    account.lots = sorted(map(lot_from, rows(_LOTS)), key=spend_key)
    for *row, captured, at_expiry, corrected in rows(_RESERVATIONS):
        found = reservation_from(row)
        account.reservations[found.reservation_id] = found
        charged = HoldCharges(int(captured), int(at_expiry), int(corrected))
        summary.charged[found.reservation_id] = charged
    for *row, charge_seq, micros in rows(_REFUNDS):
        if row[0] is not None:
            account.charge_refunds[charge_seq] = charge_refund_from(row)
        summary.refunded[charge_seq] = int(micros)
    lost = sorted(summary.parts.keys() - {each.seq for each in account.lots})
    for *row, request in rows(_OPENINGS, seqs=lost) if lost else ():
        summary.openings[row[1]] = Opening(entry_from(row), request)
    ((summary.other_time,),) = rows(_OTHER_TIME)
    state.summaries[account_id] = summary

"""Load what a rebuild has to know of an account: its history in sums, and all rows beside it.

Runs in the transaction of the batch, under the lock of the account. The queries are those of
`checks`, for one account.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Table

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import ChargeRefund, State
from meterhold_server.core.summary import (
    Break,
    HoldCharges,
    LostReservation,
    Opening,
    RefundSums,
    Summary,
)
from meterhold_server.storage.checks import (
    CHARGE_CORRECTED,
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
    entry_from,
    lot_from,
    reservation_from,
)
from meterhold_server.storage.tables import entry, lot, reservation

BREAKS_MAX: Final = 3000
"""More breaks than any rebuild works on."""

LOST_MAX: Final = 1001
"""More lost reservations than any rebuild opens again."""

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
       s.refunded, s.revoked
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
)
_BREAKS: Final = f"""{WALK}
SELECT {_columns(entry, "e")}, seq_before, remaining_before, change, contradicts
FROM breaks JOIN entry e USING (account_id, seq)
WHERE change <> 0 OR seq <> seq_before + 1 OR contradicts
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
                r.released_micros, r.expiry_charged_micros) < 0
       OR (r.state = 'ACTIVE') <> (r.end_time IS NULL)
       OR (r.state = 'SETTLED') <> (r.closing IS NOT NULL))"""
_LOST_RESERVATIONS: Final = f"""
SELECT reservation_id, c.captured, c.at_expiry, c.corrected, c.first_time, c.last_time
FROM ({CHARGED}) c LEFT JOIN reservation r USING (account_id, reservation_id)
WHERE r.account_id IS NULL LIMIT {LOST_MAX}"""
_REFUNDS: Final = f"""
SELECT r.charge_seq, r.refunded_micros, coalesce(r.micros, 0), coalesce(r.explained, false),
       coalesce(-e.amount_micros, 0), -({CHARGE_CORRECTED})
FROM (SELECT account_id, charge_seq, k.refunded_micros, g.micros, g.explained
      FROM (SELECT * FROM charge_refund WHERE {within("charge_refund")}) k
      FULL JOIN ({REFUNDED}) g USING (account_id, charge_seq)) r
LEFT JOIN entry e ON e.account_id = r.account_id AND e.seq = r.charge_seq
WHERE coalesce(r.refunded_micros, 0) <> coalesce(r.micros, 0)
   OR r.micros > coalesce(-e.amount_micros, 0) OR r.charge_seq = ANY(%(seqs)s)"""
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
    for *row, seq_before, remaining_before, change, contradicts in rows(_BREAKS):
        off = (int(seq_before), int(remaining_before), int(change))
        summary.breaks.append(Break(entry_from(row), *off, contradicts))
    summary.parts = {seq: int(micros) for _, seq, micros in rows(PARTS)}
    summary.lots_expired = {seq: int(micros) for _, seq, micros, _ in rows(EXPIRED)}
    summary.lots_revoked = {seq: int(micros) for _, seq, micros, _ in rows(REVOKED)}
    summary.pending_micros = sum(int(micros) for _, micros in rows(PENDING))
    account.lots = sorted(map(lot_from, rows(_LOTS)), key=spend_key)
    for *row, captured, at_expiry, corrected in rows(_RESERVATIONS):
        found = reservation_from(row)
        account.reservations[found.reservation_id] = found
        charged = HoldCharges(int(captured), int(at_expiry), int(corrected))
        summary.charged[found.reservation_id] = charged
    for reservation_id, captured, at_expiry, corrected, *times in rows(_LOST_RESERVATIONS):
        summary.lost_reservations[reservation_id] = LostReservation(*times)
        charged = HoldCharges(int(captured), int(at_expiry), int(corrected))
        summary.charged[reservation_id] = charged
    broken_seqs = [each.entry.seq for each in summary.breaks]
    for charge_seq, known, micros, explained, charged, corrected in rows(
        _REFUNDS, seqs=broken_seqs
    ):
        if known is not None:
            refund = ChargeRefund(account_id, charge_seq, known, stored=True)
            account.charge_refunds[charge_seq] = refund
        sums = RefundSums(int(micros), explained, int(charged), int(corrected))
        summary.refunded[charge_seq] = sums
    lost = sorted(summary.parts.keys() - {each.seq for each in account.lots})
    for *row, request in rows(_OPENINGS, seqs=lost) if lost else ():
        summary.openings[row[1]] = Opening(entry_from(row), request)
    ((summary.other_time,),) = rows(_OTHER_TIME)
    state.summaries[account_id] = summary

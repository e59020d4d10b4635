"""The statements of the hot path, made from the tables' metadata and compiled to SQL once.

Rows travel as one JSON parameter per statement. Measured with 64 ledger rows of 14 columns,
client and commit included: 1.0 ms as JSON, 1.9 ms as arrays, 1.6 ms as a pipeline of single
inserts, 3.8 ms as VALUES; of the client's CPU 0.2, 1.0, 1.3 and 2.4 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    JSON,
    ClauseElement,
    ColumnElement,
    Table,
    TableValuedAlias,
    and_,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from meterhold_server.storage.tables import account, account_claim, claim, entry, lot, reservation

_DIALECT = psycopg_dialect()  # type: ignore[no-untyped-call]


def compiled(statement: ClauseElement) -> str:
    """The SQL text of a statement, with `%(name)s` parameters for psycopg."""
    return str(statement.compile(dialect=_DIALECT))


def _any_account(of: ColumnElement[Any]) -> ColumnElement[bool]:
    ids = cast(bindparam("account_ids", type_=SqlText), ARRAY(UUID(as_uuid=False)))
    return of == func.any(ids)


def _rows(table: Table, names: Sequence[str] | None = None) -> TableValuedAlias:
    """The JSON parameter `rows` as a relation with columns of a table."""
    columns = [column(c.name, c.type) for c in table.c if names is None or c.name in names]
    parameter = cast(bindparam("rows", type_=SqlText), JSON)
    return func.json_to_recordset(parameter).table_valued(*columns).render_derived(with_types=True)


def _insert(table: Table) -> str:
    rows = _rows(table)
    names = [c.name for c in table.c]
    return compiled(insert(table).from_select(names, select(*(rows.c[name] for name in names))))


def _update(table: Table, changing: Sequence[str]) -> str:
    keys = [c.name for c in table.primary_key]
    rows = _rows(table, [*keys, *changing])
    matches = and_(*(table.c[name] == rows.c[name] for name in keys))
    return compiled(update(table).where(matches).values({name: rows.c[name] for name in changing}))


ACCOUNT_CHANGING: Final = (
    "seq",
    "granted_micros",
    "spent_micros",
    "expired_micros",
    "revoked_micros",
    "refunded_micros",
    "held_micros",
    "held_on_credit_micros",
    "lots_available_micros",
    "debt_micros",
    "credit_limit_micros",
    "holds_use_credit",
    "next_expire_time",
)
LOT_CHANGING: Final = ("available_micros", "held_micros", "live")
RESERVATION_CHANGING: Final = (
    "state",
    "reserved_micros",
    "open_micros",
    "on_credit_micros",
    "captured_micros",
    "from_hold_micros",
    "released_micros",
    "expiry_charged_micros",
    "expiry_charge_seq",
    "parts",
    "on_expiry",
    "late",
    "expire_time",
    "end_time",
    "closing",
)

LOCK_ACCOUNTS: Final = compiled(
    select(account)
    .where(_any_account(account.c.account_id))
    .order_by(account.c.account_id)
    .with_for_update(key_share=True)
)
CLOCK: Final = compiled(
    select(func.clock_timestamp(), cast(literal_column("pg_current_xact_id()"), SqlText))
)
LIVE_LOTS: Final = compiled(select(lot).where(_any_account(lot.c.account_id), lot.c.live))

_wanted_reservations = _rows(reservation, ["account_id", "reservation_id"])
RESERVATIONS: Final = compiled(
    select(reservation).join(
        _wanted_reservations,
        and_(
            reservation.c.account_id == _wanted_reservations.c.account_id,
            reservation.c.reservation_id == _wanted_reservations.c.reservation_id,
        ),
    )
)


def _claims(table: Table) -> str:
    """Claims by key, each with its entry."""
    wanted = _rows(table, [c.name for c in table.primary_key])
    matches = and_(*(table.c[c.name] == wanted.c[c.name] for c in table.primary_key))
    its_entry = and_(entry.c.account_id == table.c.account_id, entry.c.seq == table.c.entry_seq)
    scope = next(iter(table.primary_key)).name
    return compiled(
        select(
            table.c.kind,
            table.c[scope].label("scope"),
            table.c.key.label("claim_key"),
            table.c.account_id.label("claim_account_id"),
            table.c.request,
            table.c.answer,
            table.c.create_time.label("claim_create_time"),
            *entry.c,
        )
        .select_from(wanted)
        .join(table, matches)
        .outerjoin(entry, its_entry)
    )


CLAIMS: Final = _claims(claim)
ACCOUNT_CLAIMS: Final = _claims(account_claim)

_active = reservation.c.state == literal_column("'ACTIVE'")
_now = bindparam("now", type_=reservation.c.expire_time.type)
DUE_RESERVATIONS: Final = compiled(
    select(reservation).where(
        _any_account(reservation.c.account_id), _active, reservation.c.expire_time <= _now
    )
)
_next = (
    select(reservation)
    .where(
        reservation.c.account_id == account.c.account_id,
        _active,
        reservation.c.expire_time > _now,
    )
    .order_by(reservation.c.expire_time)
    .limit(literal_column("1"))
    .lateral("next_reservation")
)
NEXT_RESERVATIONS: Final = compiled(
    select(_next)
    .select_from(account.join(_next, literal_column("true")))
    .where(_any_account(account.c.account_id))
)

_wanted_lots = _rows(lot, ["account_id", "seq"])
LOTS: Final = compiled(
    select(lot).join(
        _wanted_lots,
        and_(lot.c.account_id == _wanted_lots.c.account_id, lot.c.seq == _wanted_lots.c.seq),
    )
)

INSERT_ACCOUNTS: Final = _insert(account)
UPDATE_ACCOUNTS: Final = _update(account, ACCOUNT_CHANGING)
INSERT_LOTS: Final = _insert(lot)
UPDATE_LOTS: Final = _update(lot, LOT_CHANGING)
INSERT_RESERVATIONS: Final = _insert(reservation)
UPDATE_RESERVATIONS: Final = _update(reservation, RESERVATION_CHANGING)
INSERT_ENTRIES: Final = _insert(entry)
INSERT_CLAIMS: Final = _insert(claim)
INSERT_ACCOUNT_CLAIMS: Final = _insert(account_claim)

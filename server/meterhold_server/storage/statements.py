"""The statements of the hot path, made from the tables' metadata and compiled to SQL once.

Rows travel as one array a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Select,
    Subquery,
    Table,
    and_,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from meterhold_server.storage.arrays import packing_of
from meterhold_server.storage.exchange import Statement
from meterhold_server.storage.tables import (
    account,
    account_claim,
    account_default,
    allowance,
    audit_record,
    charge_refund,
    claim,
    entry,
    lot,
    pending_grant,
    reservation,
    tombstone,
)

_CURSORS = psycopg_dialect()  # type: ignore[no-untyped-call]
_EXCHANGES = psycopg_dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def compiled(statement: ClauseElement) -> str:
    """The SQL text of a statement, with `%(name)s` parameters for psycopg's cursors."""
    return str(statement.compile(dialect=_CURSORS))


def _for_exchange(name: str, statement: ClauseElement) -> Statement:
    """A statement of the hot path, with `$1` parameters in the order in which they are numbered."""
    text = statement.compile(dialect=_EXCHANGES)
    assert isinstance(text, SQLCompiler)
    columns = tuple(
        (parameter.removeprefix(_EACH), packing_of(text.binds[parameter].type))
        for parameter in text.positiontup or ()
    )
    return Statement(name.encode(), str(text).encode(), columns)


# A parameter must not be called as a column that the statement sets.
_EACH: Final = "each_"


def _each(name: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """The parameter with the values of a column."""
    return bindparam(_EACH + name, type_=ARRAY(kind))


def _any_account(of: ColumnElement[Any]) -> ColumnElement[bool]:
    return of == func.any(_each("account_id", of.type))


def _rows(table: Table, names: Sequence[str]) -> Subquery:
    """Rows with some columns of a table, out of a parameter for each.

    One call of `unnest` a column, in the list of what is selected: one for all, in the FROM clause,
    would put each column aside as a table of its own first, at three times the cost.
    """
    columns = [table.c[name] for name in names]
    arrays = [func.unnest(_each(c.name, c.type), type_=c.type).label(c.name) for c in columns]
    return select(*arrays).subquery("rows")


def _insert(table: Table, *, but: str = "") -> Statement:
    """Insert rows with all columns but one that the database fills in."""
    names = [c.name for c in table.c if c.name != but]
    rows = _rows(table, names)
    every = insert(table).from_select(names, select(*(rows.c[name] for name in names)))
    return _for_exchange(f"insert {table.name}", every)


def _update(table: Table, changing: Sequence[str], name: str = "") -> Statement:
    keys = [c.name for c in table.primary_key]
    rows = _rows(table, [*keys, *changing])
    matches = and_(*(table.c[name] == rows.c[name] for name in keys))
    every = update(table).where(matches).values({name: rows.c[name] for name in changing})
    return _for_exchange(f"update {name or table.name}", every)


def _changing(table: Table) -> list[str]:
    """Every column but the keys."""
    return [c.name for c in table.c if not c.primary_key]


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
    "frozen",
    "pending_micros",
)
LOT_CHANGING: Final = ("available_micros", "held_micros", "live")
LOT_HISTORY_CHANGING: Final = (
    *LOT_CHANGING,
    "expired_micros",
    "repaid_micros",
    "revoked_micros",
    "revoked_here_micros",
    "revocations",
)
"""All that changes of a lot. Most updates write only the first of it."""
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
PENDING_GRANT_CHANGING: Final = ("state", "entry_seq", "revocations")

BEGIN: Final = Statement(b"begin", b"BEGIN")
COMMIT: Final = Statement(b"commit", b"COMMIT")
ROLLBACK: Final = Statement(b"rollback", b"ROLLBACK")
LOCK_ACCOUNTS: Final = _for_exchange(
    "lock accounts",
    select(account)
    .where(_any_account(account.c.account_id))
    .order_by(account.c.account_id)
    .with_for_update(key_share=True),
)
CLOCK: Final = _for_exchange(
    "clock", select(func.clock_timestamp(), cast(literal_column("pg_current_xact_id()"), SqlText))
)
LIVE_LOTS: Final = _for_exchange(
    "live lots", select(lot).where(_any_account(lot.c.account_id), lot.c.live)
)


def _wanted(table: Table) -> Select[Any]:
    """The rows of a table whose keys are in the parameter."""
    keys = [c.name for c in table.primary_key]
    wanted = _rows(table, keys)
    return select(table).join(wanted, and_(*(table.c[key] == wanted.c[key] for key in keys)))


def _locked(table: Table) -> Select[Any]:
    """The same, each locked, in the order of their keys."""
    return _wanted(table).order_by(*table.primary_key).with_for_update(of=table)


RESERVATIONS: Final = _for_exchange("reservations", _wanted(reservation))


def _claims(table: Table) -> Statement:
    """Claims by key, each with its entry."""
    wanted = _rows(table, [c.name for c in table.primary_key])
    matches = and_(*(table.c[c.name] == wanted.c[c.name] for c in table.primary_key))
    its_entry = and_(entry.c.account_id == table.c.account_id, entry.c.seq == table.c.entry_seq)
    scope = next(iter(table.primary_key)).name
    return _for_exchange(
        f"{table.name} by key",
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
        .outerjoin(entry, its_entry),
    )


CLAIMS: Final = _claims(claim)
ACCOUNT_CLAIMS: Final = _claims(account_claim)

_active = reservation.c.state == literal_column("'ACTIVE'")
_now = bindparam("now", type_=reservation.c.expire_time.type)
DUE_RESERVATIONS: Final = _for_exchange(
    "due reservations",
    select(reservation).where(
        _any_account(reservation.c.account_id), _active, reservation.c.expire_time <= _now
    ),
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
NEXT_RESERVATIONS: Final = _for_exchange(
    "next reservations",
    select(_next)
    .select_from(account.join(_next, literal_column("true")))
    .where(_any_account(account.c.account_id)),
)

LOTS: Final = _for_exchange("lots", _wanted(lot))
CHARGES: Final = _for_exchange("charges", _wanted(entry))
CHARGE_REFUNDS: Final = _for_exchange("charge refunds", _wanted(charge_refund))
LOCK_TOMBSTONES: Final = _for_exchange("lock tombstones", _locked(tombstone))
DEFAULTS: Final = _for_exchange("defaults", _wanted(account_default))
LOCK_DEFAULTS: Final = _for_exchange("lock defaults", _locked(account_default))
ALLOWANCES: Final = _for_exchange(
    "allowances", select(allowance).where(_any_account(allowance.c.account_id))
)
PENDING_GRANTS: Final = _for_exchange("pending grants", _wanted(pending_grant))
LOTS_OF_PENDING_GRANTS: Final = _for_exchange(
    "lots of pending grants",
    _wanted(pending_grant)
    .with_only_columns(*lot.c)
    .join(
        lot,
        and_(
            lot.c.account_id == pending_grant.c.account_id, lot.c.seq == pending_grant.c.entry_seq
        ),
    ),
)
OPEN_PENDING_GRANTS: Final = _for_exchange(
    "open pending grants",
    select(pending_grant).where(
        _any_account(pending_grant.c.account_id),
        pending_grant.c.state == literal_column("'PENDING'"),
    ),
)

INSERT_ACCOUNTS: Final = _insert(account)
UPDATE_ACCOUNTS: Final = _update(account, ACCOUNT_CHANGING)
INSERT_LOTS: Final = _insert(lot)
UPDATE_LOTS: Final = _update(lot, LOT_CHANGING)
UPDATE_LOT_HISTORIES: Final = _update(lot, LOT_HISTORY_CHANGING, name="lot history")
INSERT_RESERVATIONS: Final = _insert(reservation)
UPDATE_RESERVATIONS: Final = _update(reservation, RESERVATION_CHANGING)
INSERT_CHARGE_REFUNDS: Final = _insert(charge_refund)
UPDATE_CHARGE_REFUNDS: Final = _update(charge_refund, ["refunded_micros"])
INSERT_ENTRIES: Final = _insert(entry)
INSERT_CLAIMS: Final = _insert(claim)
INSERT_ACCOUNT_CLAIMS: Final = _insert(account_claim)
INSERT_AUDIT_RECORDS: Final = _insert(audit_record, but="audit_id")
INSERT_ALLOWANCES: Final = _insert(allowance)
UPDATE_ALLOWANCES: Final = _update(allowance, _changing(allowance))
INSERT_PENDING_GRANTS: Final = _insert(pending_grant)
UPDATE_PENDING_GRANTS: Final = _update(pending_grant, PENDING_GRANT_CHANGING)
INSERT_TOMBSTONES: Final = _insert(tombstone)
UPDATE_TOMBSTONES: Final = _update(tombstone, ["source", "revocations"])
INSERT_DEFAULTS: Final = _insert(account_default)
UPDATE_DEFAULTS: Final = _update(account_default, _changing(account_default))

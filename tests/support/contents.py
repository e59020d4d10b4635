"""All that a database says of the accounts of one namespace, row by row or as the core sees it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, Text, bindparam, select

from meterhold_server.core.model import Entry, State
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import (
    account_from,
    allowance_from,
    charge_refund_from,
    claim_from,
    defaults_from,
    entry_from,
    lot_from,
    pending_grant_from,
    reservation_from,
    tombstone_from,
)
from meterhold_server.storage.statements import compiled
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
    metadata,
    pending_grant,
    reservation,
    schema_window,
    tombstone,
)


def rows(connection: Connection, namespace: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of callers' data, in the order of its keys."""
    tables = (table for table in metadata.sorted_tables if table is not schema_window)
    return {table.name: _rows(connection, table, namespace) for table in tables}


def state(connection: Connection, namespace: str) -> State:
    """The accounts with all their lots, oldest first, and all else that there is of them."""
    found = State()
    for row in _rows(connection, account, namespace):
        one = account_from(row)
        found.accounts[one.account_id] = one
    for row in _rows(connection, lot, namespace):
        one_lot = lot_from(row)
        found.accounts[one_lot.account_id].lots.append(one_lot)
    for row in _rows(connection, reservation, namespace):
        held = reservation_from(row)
        found.accounts[held.account_id].reservations[held.reservation_id] = held
    for written in ledger(connection, namespace):
        found.accounts[written.account_id].charges[written.seq] = written
    for row in _rows(connection, charge_refund, namespace):
        refund = charge_refund_from(row)
        found.accounts[refund.account_id].charge_refunds[refund.charge_seq] = refund
    _add_terms(found, connection, namespace)
    entries = {(row[0], row[1]): row for row in _rows(connection, entry, namespace)}
    for table in (claim, account_claim):
        for row in _rows(connection, table, namespace):
            named = dict(zip((c.name for c in table.c), row, strict=True))
            its_entry = entries.get((named["account_id"], named["entry_seq"]), [None])
            scope = next(iter(table.primary_key)).name
            used = claim_from(
                [
                    *(named[name] for name in ("kind", scope, "key", "account_id")),
                    *(named[name] for name in ("request", "answer", "create_time")),
                    *its_entry,
                ]
            )
            found.claims[used.claim_key] = used
    return found


def _add_terms(found: State, connection: Connection, namespace: str) -> None:
    for row in _rows(connection, allowance, namespace):
        terms = allowance_from(row)
        found.accounts[terms.account_id].allowance = terms
    for row in _rows(connection, pending_grant, namespace):
        pending = pending_grant_from(row)
        found.accounts[pending.account_id].pending[pending.idempotency_key] = pending
    for row in _rows(connection, tombstone, namespace):
        early = tombstone_from(row)
        found.tombstones[early.grant_key] = early
    for row in _rows(connection, account_default, namespace):
        defaults = defaults_from(row)
        found.defaults[defaults.key] = defaults


def ledger(connection: Connection, namespace: str) -> list[Entry]:
    """All entries, account by account, by `seq`."""
    return [entry_from(row) for row in _rows(connection, entry, namespace)]


def _rows(connection: Connection, table: Table, namespace: str) -> list[tuple[Any, ...]]:
    of = bindparam("of", type_=Text)
    if "namespace" in table.c:
        query = select(table).where(table.c.namespace == of)
    else:
        own = select(account.c.account_id).where(account.c.namespace == of)
        query = select(table).where(table.c.account_id.in_(own))
    if table is audit_record:
        # Their ids are drawn by lot.
        columns = [column for column in table.c if column is not table.c.audit_id]
        query = query.with_only_columns(*columns).order_by(*columns)
    else:
        query = query.order_by(*table.primary_key)
    return connection.execute(compiled(query), {"of": namespace}).fetchall()

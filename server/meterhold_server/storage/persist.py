"""Write what a batch decided and commit it, in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from meterhold_server.core.model import (
    NAMESPACE_CLAIM_KINDS,
    Account,
    Allowance,
    ChargeRefund,
    Defaults,
    Lot,
    PendingGrant,
    Reservation,
    Tombstone,
)
from meterhold_server.core.posting import Writes
from meterhold_server.storage import rows, statements
from meterhold_server.storage.exchange import Command, Connection, Statement, columns, exchange

_T = TypeVar(
    "_T", Account, Lot, Reservation, ChargeRefund, Allowance, PendingGrant, Defaults, Tombstone
)


def persist(connection: Connection, writes: Writes) -> None:
    """Write everything, then COMMIT.

    New accounts come first and claims last, each sorted by key: the one order in which batches
    may wait for each other. A key or an account that another batch took meanwhile is a unique
    violation, and the batch is then to be decided again. Another psycopg.Error may have come
    after COMMIT was received: see `errors.fault_at_commit`.
    """
    commands: list[Command] = [
        (statement, columns(statement, changed))
        for statement, changed in _changes(writes)
        if changed
    ]
    exchange(connection, [*commands, (statements.COMMIT, {})])


def _changes(writes: Writes) -> Iterable[tuple[Statement, list[rows.Row]]]:
    accounts = sorted(writes.accounts.values(), key=lambda account: account.account_id)
    yield statements.INSERT_ACCOUNTS, _new(accounts, rows.account_row)
    yield statements.UPDATE_ACCOUNTS, _changed(accounts, rows.account_changes)
    lots = writes.lots.values()
    yield statements.INSERT_LOTS, _new(lots, rows.lot_row)
    plain = [lot for lot in lots if not (writes.rebuilt or lot.has_history)]
    yield statements.UPDATE_LOTS, _changed(plain, rows.lot_changes)
    with_history = [lot for lot in lots if writes.rebuilt or lot.has_history]
    yield statements.UPDATE_LOT_HISTORIES, _changed(with_history, rows.lot_history)
    reservations = writes.reservations.values()
    yield statements.INSERT_RESERVATIONS, _new(reservations, rows.reservation_row)
    yield statements.UPDATE_RESERVATIONS, _changed(reservations, rows.reservation_changes)
    refunds = writes.charge_refunds.values()
    yield statements.INSERT_CHARGE_REFUNDS, _new(refunds, rows.charge_refund_row)
    yield statements.UPDATE_CHARGE_REFUNDS, _changed(refunds, rows.charge_refund_row)
    allowances = writes.allowances.values()
    yield statements.INSERT_ALLOWANCES, _new(allowances, rows.allowance_row)
    yield statements.UPDATE_ALLOWANCES, _changed(allowances, rows.allowance_row)
    pending = writes.pending.values()
    yield statements.INSERT_PENDING_GRANTS, _new(pending, rows.pending_grant_row)
    yield statements.UPDATE_PENDING_GRANTS, _changed(pending, rows.pending_grant_changes)
    yield statements.INSERT_ENTRIES, [rows.entry_row(entry) for entry in writes.entries]
    defaults = sorted(writes.defaults.values(), key=lambda one: one.key)
    yield statements.INSERT_DEFAULTS, _new(defaults, rows.defaults_row)
    yield statements.UPDATE_DEFAULTS, _changed(defaults, rows.defaults_row)
    tombstones = sorted(writes.tombstones.values(), key=lambda one: one.grant_key)
    yield statements.INSERT_TOMBSTONES, _new(tombstones, rows.tombstone_row)
    yield statements.UPDATE_TOMBSTONES, _changed(tombstones, rows.tombstone_changes)
    claims = sorted(writes.claims, key=lambda claim: claim.claim_key)
    yield statements.INSERT_AUDIT_RECORDS, [tuple(record) for record in writes.audit]
    in_namespace = [c for c in claims if c.claim_key.kind in NAMESPACE_CLAIM_KINDS]
    in_account = [c for c in claims if c.claim_key.kind not in NAMESPACE_CLAIM_KINDS]
    yield statements.INSERT_ACCOUNT_CLAIMS, [rows.account_claim_row(claim) for claim in in_account]
    yield statements.INSERT_CLAIMS, [rows.claim_row(claim) for claim in in_namespace]


def _new(items: Iterable[_T], row: Callable[[_T], rows.Row]) -> list[rows.Row]:
    return [row(item) for item in items if not item.stored]


def _changed(items: Iterable[_T], row: Callable[[_T], rows.Row]) -> list[rows.Row]:
    return [row(item) for item in items if item.stored]

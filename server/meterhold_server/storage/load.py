"""Load what a batch may touch, in one round trip, with its accounts locked.

Opens the transaction. Accounts are locked in sorted order, everywhere, so that two batches never
wait for each other in a circle; `FOR NO KEY UPDATE` is enough, as keys never change. The clock is
read after the locks are held: no other batch can have written these accounts at a later time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import (
    NAMESPACE_CLAIM_KINDS,
    Account,
    ClaimKey,
    ClaimKind,
    GrantKey,
    State,
)
from meterhold_server.core.needs import Needs, StillNeeds, still_needs
from meterhold_server.core.purchases import is_tombstone
from meterhold_server.storage import statements
from meterhold_server.storage.exchange import Command, Connection, Statement, columns, exchange
from meterhold_server.storage.rows import (
    Row,
    account_from,
    allowance_from,
    charge_refund_from,
    claim_from,
    claim_key_row,
    defaults_from,
    entry_from,
    lot_from,
    pending_grant_from,
    reservation_from,
    tombstone_from,
)
from meterhold_server.storage.summary import load_summary


class Loaded(NamedTuple):
    """`transaction_id` is for `pg_xact_status`, should the answer to COMMIT be lost."""

    state: State
    now: datetime
    transaction_id: str


def load(connection: Connection, needs: Needs) -> Loaded:
    """Begin a transaction, lock the accounts and load what `needs` names.

    Raises psycopg.Error; the transaction is then to be rolled back, and nothing was written.
    """
    ids = accounts_of(needs.account_ids)
    commands: list[Command] = [
        (statements.BEGIN, {}),
        (statements.LOCK_ACCOUNTS, ids),
        (statements.CLOCK, {}),
        (statements.LIVE_LOTS, ids),
    ]
    named = list(_by_name(needs))
    commands += [command for command, _ in named]
    _, accounts, clock, lots, *others = exchange(connection, commands)
    state = State({row[0]: account_from(row) for row in accounts})
    _add_first_lots(state, lots)
    for (_, add), rows in zip(named, others, strict=True):
        add(state, rows)
    _refuse_half_seen(state)
    now, transaction_id = clock[0]
    for account_id in needs.summaries & set(state.accounts):
        load_summary(connection, state, account_id)
    if more := still_needs(state, now, needs):
        _load_more(connection, state, more, now)
    return Loaded(state, now, transaction_id)


def _refuse_half_seen(state: State) -> None:
    """Have the batch tried again if a tombstone came after the lock and before its claim was read.

    Only once it is locked do the claims tell whether its grant has come.
    """
    for (kind, namespace, key), claim in state.claims.items():
        locked = GrantKey(namespace, key) in state.tombstones
        if kind is ClaimKind.GRANT_ONCE and is_tombstone(claim) and not locked:
            raise psycopg.errors.SerializationFailure("a revocation came in between")


_Add = Callable[[State, Sequence[Row]], None]


def _by_name(needs: Needs) -> Iterator[tuple[Command, _Add]]:
    """The commands for what is named by key, each with what becomes of its rows.

    Tombstones are locked before claims are read: whoever waited for one then sees the grant that
    the other has made of it.
    """
    if needs.reservations:
        yield _wanted(statements.RESERVATIONS, needs.reservations), _add_reservations
    if needs.charges:
        yield _wanted(statements.CHARGES, needs.charges), _add_charges
        yield _wanted(statements.CHARGE_REFUNDS, needs.charges), _add_charge_refunds
    if needs.allowances:
        yield (statements.ALLOWANCES, accounts_of(needs.allowances)), _add_allowances
    if needs.defaults:
        yield _wanted(statements.DEFAULTS, needs.defaults), _add_defaults
    if needs.changed_defaults:
        yield _wanted(statements.LOCK_DEFAULTS, needs.changed_defaults), _add_defaults
    if needs.tombstones:
        yield _wanted(statements.LOCK_TOMBSTONES, needs.tombstones), _add_tombstones
    for statement, claim_keys in _by_scope(needs.claims):
        yield _wanted(statement, claim_keys), _add_claims


def accounts_of(account_ids: Collection[str]) -> dict[str, Any]:
    """The values for the statements that look accounts up."""
    return {"account_id": [*account_ids]}


def _wanted(statement: Statement, keys: Iterable[Row]) -> Command:
    """Look rows up by their primary keys."""
    return statement, columns(statement, keys)


def _load_more(connection: Connection, state: State, more: StillNeeds, now: datetime) -> None:
    wanted = list(_by_discovery(more, now))
    answers = exchange(connection, [command for command, _ in wanted])
    for (_, add), rows in zip(wanted, answers, strict=True):
        add(state, rows)


def _by_discovery(more: StillNeeds, now: datetime) -> Iterator[tuple[Command, _Add]]:
    if more.due_account_ids:
        due = accounts_of(more.due_account_ids)
        at = due | {"now": now}
        yield (statements.DUE_RESERVATIONS, at), _add_reservations
        yield (statements.NEXT_RESERVATIONS, at), _add_reservations
        yield (statements.ALLOWANCES, due), _add_allowances
        yield (statements.OPEN_PENDING_GRANTS, due), _add_pending
    if more.reservations:
        yield _wanted(statements.RESERVATIONS, more.reservations), _add_reservations
    if more.lots:
        yield _wanted(statements.LOTS, more.lots), _add_lots
    if more.pending:
        yield _wanted(statements.PENDING_GRANTS, more.pending), _add_pending
        yield _wanted(statements.LOTS_OF_PENDING_GRANTS, more.pending), _add_lots


def _by_scope(claim_keys: Iterable[ClaimKey]) -> Iterator[tuple[Statement, list[Row]]]:
    """The keys in rows for the statement that looks them up, by their scope."""
    rows: dict[Statement, list[Row]] = {}
    for claim_key in claim_keys:
        in_namespace = claim_key.kind in NAMESPACE_CLAIM_KINDS
        statement = statements.CLAIMS if in_namespace else statements.ACCOUNT_CLAIMS
        rows.setdefault(statement, []).append(claim_key_row(claim_key))
    yield from rows.items()


def _account(state: State, account_id: str) -> Account:
    """The account of a row that was read after the accounts were locked.

    Raises SerializationFailure, so that the batch is tried again, if it was created in between.
    """
    account = state.accounts.get(account_id)
    if account is None:
        raise psycopg.errors.SerializationFailure("an account was created in between")
    return account


def _add_first_lots(state: State, rows: Sequence[Row]) -> None:
    """Add the live lots to accounts that have none yet, in spend order."""
    several = set()
    for row in rows:
        lot = lot_from(row)
        lots = _account(state, lot.account_id).lots
        lots.append(lot)
        if len(lots) > 1:
            several.add(lot.account_id)
    for account_id in several:
        state.accounts[account_id].lots.sort(key=spend_key)


def _add_lots(state: State, rows: Sequence[Row]) -> None:
    """Add lots to their accounts, each once, and keep them in spend order."""
    grown = set()
    for row in rows:
        lot = lot_from(row)
        lots = _account(state, lot.account_id).lots
        if all(lot.seq != known.seq for known in lots):
            lots.append(lot)
            grown.add(lot.account_id)
    for account_id in grown:
        state.accounts[account_id].lots.sort(key=spend_key)


def _add_charges(state: State, rows: Sequence[Row]) -> None:
    for charge in map(entry_from, rows):
        _account(state, charge.account_id).charges[charge.seq] = charge


def _add_charge_refunds(state: State, rows: Sequence[Row]) -> None:
    for refund in map(charge_refund_from, rows):
        _account(state, refund.account_id).charge_refunds[refund.charge_seq] = refund


def _add_allowances(state: State, rows: Sequence[Row]) -> None:
    for allowance in map(allowance_from, rows):
        _account(state, allowance.account_id).allowance = allowance


def _add_pending(state: State, rows: Sequence[Row]) -> None:
    for grant in map(pending_grant_from, rows):
        known = _account(state, grant.account_id).pending
        known.setdefault(grant.idempotency_key, grant)


def _add_defaults(state: State, rows: Sequence[Row]) -> None:
    for defaults in map(defaults_from, rows):
        state.defaults[defaults.key] = defaults


def _add_tombstones(state: State, rows: Sequence[Row]) -> None:
    for tombstone in map(tombstone_from, rows):
        state.tombstones[tombstone.grant_key] = tombstone


def _add_claims(state: State, rows: Sequence[Row]) -> None:
    for claim in map(claim_from, rows):
        state.claims[claim.claim_key] = claim


def _add_reservations(state: State, rows: Sequence[Row]) -> None:
    for row in rows:
        reservation = reservation_from(row)
        known = _account(state, reservation.account_id).reservations
        known.setdefault(reservation.reservation_id, reservation)

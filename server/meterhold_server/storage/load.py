"""Load what a batch may touch, in one round trip, with its accounts locked.

Opens the transaction. Accounts are locked in sorted order, everywhere, so that two batches never
wait for each other in a circle; `FOR NO KEY UPDATE` is enough, as keys never change. The clock is
read after the locks are held: no other batch can have written these accounts at a later time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import NAMESPACE_CLAIM_KINDS, ClaimKey, State
from meterhold_server.core.needs import Needs, StillNeeds, still_needs
from meterhold_server.storage import statements
from meterhold_server.storage.rows import (
    account_from,
    claim_from,
    claim_key_row,
    json_rows,
    lot_from,
    reservation_from,
)

Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]


class Loaded(NamedTuple):
    """`transaction_id` is for `pg_xact_status`, should the answer to COMMIT be lost."""

    state: State
    now: datetime
    transaction_id: str


def load(connection: Connection, needs: Needs) -> Loaded:
    """Begin a transaction, lock the accounts and load what `needs` names.

    Raises psycopg.Error; the transaction is then to be rolled back, and nothing was written.
    """
    ids = account_array(needs.account_ids)
    reservations = claims = account_claims = None
    with connection.pipeline():
        connection.execute("BEGIN")
        accounts = connection.execute(statements.LOCK_ACCOUNTS, ids, prepare=True)
        clock = connection.execute(statements.CLOCK, prepare=True)
        lots = connection.execute(statements.LIVE_LOTS, ids, prepare=True)
        if needs.reservations:
            rows = [{"account_id": a, "reservation_id": r} for a, r in needs.reservations]
            reservations = _by_rows(connection, statements.RESERVATIONS, rows)
        in_namespace, in_account = _by_scope(needs.claims)
        if in_namespace:
            claims = _by_rows(connection, statements.CLAIMS, in_namespace)
        if in_account:
            account_claims = _by_rows(connection, statements.ACCOUNT_CLAIMS, in_account)
    state = State()
    for row in accounts.fetchall():
        account = account_from(row)
        state.accounts[account.account_id] = account
    _add_lots(state, lots)
    _add_reservations(state, reservations)
    for cursor in (claims, account_claims):
        for row in cursor.fetchall() if cursor else ():
            claim = claim_from(row)
            state.claims[claim.claim_key] = claim
    now, transaction_id = clock.fetchall()[0]
    if more := still_needs(state, now):
        _load_more(connection, state, more, now)
    return Loaded(state, now, transaction_id)


def account_array(account_ids: Iterable[str]) -> dict[str, str]:
    """The parameter of the statements that look accounts up."""
    return {"account_ids": "{" + ",".join(account_ids) + "}"}


def _load_more(connection: Connection, state: State, more: StillNeeds, now: datetime) -> None:
    due = account_array(more.due_account_ids) | {"now": now}
    lots = None
    with connection.pipeline():
        reservations = connection.execute(statements.DUE_RESERVATIONS, due, prepare=True)
        following = connection.execute(statements.NEXT_RESERVATIONS, due, prepare=True)
        if more.lots:
            rows = [{"account_id": account_id, "seq": seq} for account_id, seq in more.lots]
            lots = _by_rows(connection, statements.LOTS, rows)
    _add_reservations(state, reservations)
    _add_reservations(state, following)
    _add_lots(state, lots)


def _by_rows(connection: Connection, statement: str, rows: list[dict[str, Any]]) -> Cursor:
    return connection.execute(statement, {"rows": json_rows(rows)}, prepare=True)


def _by_scope(
    claim_keys: Iterable[ClaimKey],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    in_namespace: list[dict[str, Any]] = []
    in_account: list[dict[str, Any]] = []
    for claim_key in claim_keys:
        rows = in_namespace if claim_key.kind in NAMESPACE_CLAIM_KINDS else in_account
        rows.append(claim_key_row(claim_key))
    return in_namespace, in_account


def _add_lots(state: State, cursor: Cursor | None) -> None:
    """Add lots to their accounts, each once, and keep them in spend order."""
    grown = set()
    for row in cursor.fetchall() if cursor else ():
        lot = lot_from(row)
        lots = state.accounts[lot.account_id].lots
        if all(lot.seq != known.seq for known in lots):
            lots.append(lot)
            grown.add(lot.account_id)
    for account_id in grown:
        state.accounts[account_id].lots.sort(key=spend_key)


def _add_reservations(state: State, cursor: Cursor | None) -> None:
    for row in cursor.fetchall() if cursor else ():
        reservation = reservation_from(row)
        known = state.accounts[reservation.account_id].reservations
        known.setdefault(reservation.reservation_id, reservation)

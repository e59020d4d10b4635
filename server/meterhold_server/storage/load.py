"""Load what a batch may touch, in one round trip, with its accounts locked.

Opens the transaction. Accounts are locked in sorted order, everywhere, so that two batches never
wait for each other in a circle; `FOR NO KEY UPDATE` is enough, as keys never change. The clock is
read after the locks are held: no other batch can have written these accounts at a later time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import NAMESPACE_CLAIM_KINDS, ClaimKey, State
from meterhold_server.core.needs import Needs, StillNeeds, still_needs
from meterhold_server.storage import statements
from meterhold_server.storage.exchange import Command, Connection, Statement, exchange
from meterhold_server.storage.rows import (
    Row,
    account_from,
    charge_refund_from,
    claim_from,
    claim_key_row,
    entry_from,
    json_rows,
    lot_from,
    reservation_from,
)


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
    commands: list[Command] = [
        (statements.BEGIN, {}),
        (statements.LOCK_ACCOUNTS, ids),
        (statements.CLOCK, {}),
        (statements.LIVE_LOTS, ids),
    ]
    if needs.reservations:
        rows = [{"account_id": a, "reservation_id": r} for a, r in needs.reservations]
        commands.append((statements.RESERVATIONS, rows_parameter(rows)))
    if needs.charges:
        seqs = rows_parameter([{"account_id": a, "seq": seq} for a, seq in needs.charges])
        commands += [(statements.CHARGES, seqs), (statements.CHARGE_REFUNDS, seqs)]
    for statement, keys in _by_scope(needs.claims):
        commands.append((statement, rows_parameter(keys)))
    _, accounts, clock, lots, *named = exchange(connection, commands)
    state = State({row[0]: account_from(row) for row in accounts})
    _add_lots(state, lots)
    if needs.reservations:
        _add_reservations(state, named.pop(0))
    if needs.charges:
        _add_charges(state, named.pop(0), named.pop(0))
    for row in chain.from_iterable(named):
        claim = claim_from(row)
        state.claims[claim.claim_key] = claim
    now, transaction_id = clock[0]
    if more := still_needs(state, now):
        _load_more(connection, state, more, now)
    return Loaded(state, now, transaction_id)


def account_array(account_ids: Iterable[str]) -> dict[str, str]:
    """The parameter of the statements that look accounts up."""
    return {"account_ids": "{" + ",".join(account_ids) + "}"}


def rows_parameter(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The parameter of the statements that take many rows."""
    return {"rows": json_rows(rows)}


def _load_more(connection: Connection, state: State, more: StillNeeds, now: datetime) -> None:
    due = account_array(more.due_account_ids) | {"now": now.isoformat()}
    commands = [(statements.DUE_RESERVATIONS, due), (statements.NEXT_RESERVATIONS, due)]
    if more.lots:
        rows = [{"account_id": account_id, "seq": seq} for account_id, seq in more.lots]
        commands.append((statements.LOTS, rows_parameter(rows)))
    reservations, following, *lots = exchange(connection, commands)
    _add_reservations(state, reservations)
    _add_reservations(state, following)
    _add_lots(state, chain.from_iterable(lots))


def _by_scope(
    claim_keys: Iterable[ClaimKey],
) -> Iterator[tuple[Statement, list[dict[str, Any]]]]:
    """The keys in rows for the statement that looks them up, by their scope."""
    rows: dict[Statement, list[dict[str, Any]]] = {}
    for claim_key in claim_keys:
        in_namespace = claim_key.kind in NAMESPACE_CLAIM_KINDS
        statement = statements.CLAIMS if in_namespace else statements.ACCOUNT_CLAIMS
        rows.setdefault(statement, []).append(claim_key_row(claim_key))
    yield from rows.items()


def _add_lots(state: State, rows: Iterable[Row]) -> None:
    """Add lots to their accounts, each once, and keep them in spend order."""
    grown = set()
    for row in rows:
        lot = lot_from(row)
        lots = state.accounts[lot.account_id].lots
        if all(lot.seq != known.seq for known in lots):
            lots.append(lot)
            grown.add(lot.account_id)
    for account_id in grown:
        state.accounts[account_id].lots.sort(key=spend_key)


def _add_charges(state: State, charges: Iterable[Row], refunds: Iterable[Row]) -> None:
    for charge in map(entry_from, charges):
        state.accounts[charge.account_id].charges[charge.seq] = charge
    for refund in map(charge_refund_from, refunds):
        state.accounts[refund.account_id].charge_refunds[refund.charge_seq] = refund


def _add_reservations(state: State, rows: Iterable[Row]) -> None:
    for row in rows:
        reservation = reservation_from(row)
        known = state.accounts[reservation.account_id].reservations
        known.setdefault(reservation.reservation_id, reservation)

"""What has to be loaded before a list of operations can be decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from meterhold_server.core.expiry import is_due
from meterhold_server.core.model import ClaimKey, ClaimKind, ReservationState, State
from meterhold_server.core.operations import (
    Debit,
    DebitOnce,
    Extend,
    GrantOnce,
    Operation,
    RefundCharge,
    Release,
    Reserve,
    Settle,
)
from meterhold_server.core.posting import claim_key


@dataclass(slots=True)
class Needs:
    """Rows by key. With an account come those of its lots that have something left.

    `charges`: these entries, by account and seq, and what has been refunded of them.
    """

    account_ids: set[str] = field(default_factory=set)
    reservations: set[tuple[str, str]] = field(default_factory=set)
    charges: set[tuple[str, int]] = field(default_factory=set)
    claims: set[ClaimKey] = field(default_factory=set)


@dataclass(slots=True)
class StillNeeds:
    """Rows that only the loaded ones tell of. Rare: most batches need none of them.

    `due_account_ids`: of these, all active reservations due by now, and the next one after them.
    `lots`: these lots, by account and seq, though nothing may be left in them.
    """

    due_account_ids: set[str] = field(default_factory=set)
    lots: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.due_account_ids or self.lots)


def needs(operations: Sequence[Operation]) -> Needs:
    """What `operations` touch by name."""
    wanted = Needs()
    for operation in operations:
        wanted.account_ids.add(operation.account_id)
        if isinstance(operation, Reserve | Settle | Release | Extend):
            wanted.reservations.add((operation.account_id, operation.reservation_id))
        if isinstance(operation, RefundCharge):
            wanted.charges.add((operation.account_id, operation.charge_seq))
        wanted.claims.update(_claim_keys(operation))
    return wanted


def still_needs(state: State, now: datetime) -> StillNeeds:
    """What the loaded rows show to be needed as well: due accounts, and lots to give back to."""
    wanted = StillNeeds()
    for account in state.accounts.values():
        if account.charges:
            known = {lot.seq for lot in account.lots}
            for charge in account.charges.values():
                spent = {part.lot_seq for part in charge.parts} - known
                wanted.lots.update((account.account_id, lot_seq) for lot_seq in spent)
        if is_due(account, now):
            wanted.due_account_ids.add(account.account_id)
        for reservation in account.reservations.values():
            if reservation.state is ReservationState.EXPIRED and reservation.open_micros:
                wanted.lots.update(
                    (account.account_id, lot_seq) for lot_seq, _ in reservation.parts
                )
    return wanted


def _claim_keys(operation: Operation) -> Iterable[ClaimKey]:
    match operation:
        case DebitOnce():
            yield claim_key(ClaimKind.DEBIT_ONCE, operation, operation.idempotency_key)
        case GrantOnce():
            for key in (operation.idempotency_key, *operation.legacy_keys):
                yield claim_key(ClaimKind.GRANT_ONCE, operation, key)
        case RefundCharge():
            yield claim_key(ClaimKind.REFUND_CHARGE, operation, operation.idempotency_key)
        case Debit() if operation.request_id:
            yield claim_key(ClaimKind.DEBIT, operation, operation.request_id)
        case Settle() if operation.keep_open:
            yield claim_key(ClaimKind.CAPTURE, operation, operation.step_key)
        case Extend() if operation.extend_id:
            yield claim_key(ClaimKind.EXTEND, operation, operation.step_key)
        case _:
            return

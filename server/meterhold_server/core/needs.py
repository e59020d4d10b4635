"""What has to be loaded before a list of operations can be decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from meterhold_server.core.expiry import is_due
from meterhold_server.core.model import (
    Account,
    Claim,
    ClaimKey,
    ClaimKind,
    DefaultsKey,
    Entry,
    EntryKind,
    GrantKey,
    ReservationState,
    State,
)
from meterhold_server.core.operations import (
    Chain,
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    Rebuild,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from meterhold_server.core.posting import claim_key


@dataclass(slots=True)
class Needs:
    """Rows by key. With an account come those of its lots that have something left.

    `charges`: these entries, by account and seq, and what has been refunded of them. `grants`: of
    these claims, too, the lots and pending grants. `allowances`: the allowances of these accounts.
    `tombstones` and `changed_defaults` are to be locked. `summaries`: of these accounts, the whole
    history in sums.
    """

    account_ids: set[str] = field(default_factory=set)
    reservations: set[tuple[str, str]] = field(default_factory=set)
    charges: set[tuple[str, int]] = field(default_factory=set)
    claims: set[ClaimKey] = field(default_factory=set)
    grants: set[ClaimKey] = field(default_factory=set)
    tombstones: set[GrantKey] = field(default_factory=set)
    allowances: set[str] = field(default_factory=set)
    defaults: set[DefaultsKey] = field(default_factory=set)
    changed_defaults: set[DefaultsKey] = field(default_factory=set)
    summaries: set[str] = field(default_factory=set)


@dataclass(slots=True)
class StillNeeds:
    """Rows that only the loaded ones tell of. Rare: most batches need none of them.

    `due_account_ids`: of these, the allowances, all pending grants, all active reservations due by
    now and the next one after them.
    `lots`: these lots, by account and seq, though nothing may be left in them.
    `pending`: these pending grants, by account and key, and the lots that they became.
    `reservations`: these, by account and id.
    """

    due_account_ids: set[str] = field(default_factory=set)
    lots: set[tuple[str, int]] = field(default_factory=set)
    pending: set[tuple[str, str]] = field(default_factory=set)
    reservations: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.due_account_ids or self.lots or self.pending or self.reservations)


# Made once: a union of classes is made anew wherever it is written down.
_OF_RESERVATIONS: Final = (Reserve, Settle, Release, Extend)
_PLAIN: Final = (Debit, DebitOnce, Expire)


def needs(operations: Sequence[Operation]) -> Needs:
    """What `operations` touch by name."""
    wanted = Needs()
    _add_all(wanted, operations)
    return wanted


def _add_all(wanted: Needs, operations: Sequence[Operation]) -> None:
    for operation in operations:
        wanted.account_ids.add(operation.account_id)
        if isinstance(operation, _OF_RESERVATIONS):
            wanted.reservations.add((operation.account_id, operation.reservation_id))
        elif not isinstance(operation, _PLAIN):
            _add_rarer(wanted, operation)
        wanted.claims.update(_claim_keys(operation))


def _add_rarer(
    wanted: Needs,
    operation: GrantOnce
    | RefundCharge
    | RevokeGrant
    | ReinstateGrant
    | Chain
    | Configure
    | ConfigureDefaults
    | Rebuild,
) -> None:
    namespace = operation.account.namespace
    match operation:
        case Chain():
            _add_all(wanted, operation.operations)
        case RefundCharge():
            wanted.charges.add((operation.account_id, operation.charge_seq))
        case Rebuild():
            wanted.summaries.add(operation.account_id)
        case ConfigureDefaults():
            wanted.changed_defaults.add(operation.key)
        case Configure():
            wanted.allowances.add(operation.account_id)
            wanted.defaults.add(DefaultsKey(namespace, operation.account.unit))
        case GrantOnce():
            keys = _grant_keys(operation)
            wanted.defaults.add(DefaultsKey(namespace, operation.account.unit))
            wanted.tombstones.update(GrantKey(namespace, key) for key in keys)
            if operation.legacy_keys:
                # Another key of an old grant, by which a later operation may revoke it.
                wanted.grants.update(_claim_keys(operation))
        case RevokeGrant() | ReinstateGrant():
            wanted.tombstones.add(GrantKey(namespace, operation.grant_key))
            wanted.grants.update(_claim_keys(operation))


def still_needs(state: State, now: datetime, wanted_first: Needs) -> StillNeeds:
    """What the loaded rows show to be needed as well: due accounts, and lots to give back to."""
    wanted = StillNeeds()
    for key in wanted_first.grants:
        claim = state.claims.get(key)
        if claim and claim.account_id in state.accounts:
            _add_grant(wanted, state.accounts[claim.account_id], claim)
    for account in state.accounts.values():
        for charge in account.charges.values():
            _add_charge(wanted, account, charge)
        if is_due(account, now):
            wanted.due_account_ids.add(account.account_id)
        for reservation in account.reservations.values():
            if reservation.state is ReservationState.EXPIRED and reservation.open_micros:
                wanted.lots.update(
                    (account.account_id, lot_seq) for lot_seq, _ in reservation.parts
                )
    return wanted


def _add_grant(wanted: StillNeeds, account: Account, claim: Claim) -> None:
    """The lot of a grant, or the pending grant and the lot that it became."""
    if claim.entry is not None:
        wanted.lots.add((claim.account_id, claim.entry.seq))
    elif pending_key := claim.receipt.answer.get("pending_key"):
        wanted.pending.add((claim.account_id, pending_key))


def _add_charge(wanted: StillNeeds, account: Account, charge: Entry) -> None:
    """The lots that a charge was taken from, and the reservation that an expiry has charged."""
    known = {lot.seq for lot in account.lots}
    spent = {part.lot_seq for part in charge.parts} - known
    wanted.lots.update((account.account_id, lot_seq) for lot_seq in spent)
    missing = charge.reservation_id not in account.reservations
    if charge.kind is EntryKind.EXPIRY_CHARGE and missing:
        wanted.reservations.add((account.account_id, charge.reservation_id))


def _grant_keys(operation: GrantOnce | RevokeGrant | ReinstateGrant) -> tuple[str, ...]:
    if isinstance(operation, GrantOnce):
        return (operation.idempotency_key, *operation.legacy_keys)
    return (operation.grant_key,)


def _claim_keys(operation: Operation) -> Iterable[ClaimKey]:
    match operation:
        case DebitOnce():
            yield claim_key(ClaimKind.DEBIT_ONCE, operation, operation.idempotency_key)
        case GrantOnce() | RevokeGrant() | ReinstateGrant():
            for key in _grant_keys(operation):
                yield claim_key(ClaimKind.GRANT_ONCE, operation, key)
                yield claim_key(ClaimKind.GRANT_AFTER_TOMBSTONE, operation, key)
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

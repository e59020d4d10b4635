"""Copies of what `decide` changes in place."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from meterhold_server.core.model import Account, Lot, State, Tombstone


def copy_of_state(state: State) -> State:
    """A state that shares nothing with `state` that `decide` might change."""
    return State(
        {account_id: copy_of_account(account) for account_id, account in state.accounts.items()},
        dict(state.claims),
        {key: copy_of_tombstone(tombstone) for key, tombstone in state.tombstones.items()},
        {key: copy(defaults) for key, defaults in state.defaults.items()},
    )


def copy_of_account(account: Account) -> Account:
    """An account with copies of all that is in it."""
    return replace(
        account,
        lots=[copy_of_lot(lot) for lot in account.lots],
        reservations={
            reservation_id: replace(reservation, parts=list(reservation.parts))
            for reservation_id, reservation in account.reservations.items()
        },
        charges=dict(account.charges),
        charge_refunds={seq: copy(refund) for seq, refund in account.charge_refunds.items()},
        allowance=copy(account.allowance),
        pending={
            key: replace(pending, revocations=dict(pending.revocations))
            for key, pending in account.pending.items()
        },
    )


def copy_of_lot(lot: Lot) -> Lot:
    """A lot that shares nothing with `lot`."""
    revocations = lot.revocations
    if revocations is not None:
        revocations = {name: list(levels) for name, levels in revocations.items()}
    return replace(lot, revocations=revocations)


def copy_of_tombstone(tombstone: Tombstone) -> Tombstone:
    """A tombstone that shares nothing with `tombstone`."""
    return replace(tombstone, revocations=dict(tombstone.revocations))

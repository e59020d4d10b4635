"""Storage in miniature: rows in dicts, loaded as `needs` says and written as `Writes` says.

It hands out no row that was not asked for, and keeps no change that was not written. What `decide`
can live with here, it can live with on a database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime

from meterhold_server.core.decide import decide
from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import (
    Account,
    Claim,
    ClaimKey,
    Lot,
    Receipt,
    Reservation,
    Rules,
    State,
)
from meterhold_server.core.needs import needs, still_needs
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.core.posting import Writes


class Shelf:
    def __init__(self, state: State) -> None:
        self.accounts: dict[str, Account] = {}
        self.lots: dict[tuple[str, int], Lot] = {}
        self.reservations: dict[tuple[str, str], Reservation] = {}
        self.claims: dict[ClaimKey, Claim] = {}
        accounts = state.accounts.values()
        everything = Writes(
            accounts=dict(state.accounts),
            lots={(lot.account_id, lot.seq): lot for each in accounts for lot in each.lots},
            reservations={
                (each.account_id, reservation.reservation_id): reservation
                for each in accounts
                for reservation in each.reservations.values()
            },
            claims=list(state.claims.values()),
        )
        self.persist(everything)

    def do_all(self, operations: Sequence[Operation], now: datetime, rules: Rules) -> list[Outcome]:
        outcomes, writes = decide(self.load(operations, now), operations, now, rules)
        self.persist(writes)
        return outcomes

    def load(self, operations: Sequence[Operation], now: datetime) -> State:
        """Exactly what is needed, in the two rounds in which storage reads it."""
        wanted = needs(operations)
        state = State()
        for account_id in sorted(wanted.account_ids & set(self.accounts)):
            account = replace(self.accounts[account_id], lots=[], reservations={})
            state.accounts[account_id] = account
            for lot in self.lots.values():
                if lot.account_id == account_id and lot.live:
                    account.lots.append(copy(lot))
        for account_id, reservation_id in wanted.reservations & set(self.reservations):
            _add(state, self.reservations[account_id, reservation_id])
        for key in wanted.claims & set(self.claims):
            state.claims[key] = _read_back(self.claims[key])
        self._load_the_rest(state, now)
        for account in state.accounts.values():
            account.lots.sort(key=spend_key)
        return state

    def _load_the_rest(self, state: State, now: datetime) -> None:
        wanted = still_needs(state, now)
        for account_id in wanted.due_account_ids:
            active = [
                reservation
                for reservation in self.reservations.values()
                if reservation.account_id == account_id and reservation.active
            ]
            coming = [reservation for reservation in active if reservation.expire_time > now]
            coming.sort(key=lambda reservation: reservation.expire_time)
            due = [reservation for reservation in active if reservation.expire_time <= now]
            for reservation in due + coming[:1]:
                _add(state, reservation)
        for account_id, seq in wanted.lots:
            lots = state.accounts[account_id].lots
            if all(lot.seq != seq for lot in lots):
                lots.append(copy(self.lots[account_id, seq]))

    def persist(self, writes: Writes) -> None:
        """Write what changed. A row that says it is `stored` must be there, and no other."""
        for account_id, account in writes.accounts.items():
            assert account.stored == (account_id in self.accounts)
            self.accounts[account_id] = replace(account, lots=[], reservations={}, stored=True)
        for lot_key, lot in writes.lots.items():
            assert lot.stored == (lot_key in self.lots)
            self.lots[lot_key] = replace(lot, stored=True)
        for key, reservation in writes.reservations.items():
            assert reservation.stored == (key in self.reservations)
            self.reservations[key] = replace(
                reservation, parts=list(reservation.parts), stored=True
            )
        for claim in writes.claims:
            assert claim.claim_key not in self.claims, "a key is used up once"
            self.claims[claim.claim_key] = claim

    def state(self) -> State:
        """All rows, as one state."""
        state = State(
            {
                key: replace(account, lots=[], reservations={})
                for key, account in self.accounts.items()
            }
        )
        for lot in self.lots.values():
            state.accounts[lot.account_id].lots.append(lot)
        for account in state.accounts.values():
            account.lots.sort(key=spend_key)
        for (account_id, reservation_id), reservation in self.reservations.items():
            state.accounts[account_id].reservations[reservation_id] = reservation
        state.claims = dict(self.claims)
        return state


def _add(state: State, reservation: Reservation) -> None:
    """A copy of a reservation as it comes back from the disk, unless it is there already."""
    reservations = state.accounts[reservation.account_id].reservations
    if reservation.reservation_id not in reservations:
        closing = reservation.closing
        reservations[reservation.reservation_id] = replace(
            reservation,
            parts=list(reservation.parts),
            opening=_through_json(reservation.opening),
            closing=_through_json(closing) if closing else None,
        )


def _read_back(claim: Claim) -> Claim:
    return replace(claim, receipt=_through_json(claim.receipt))


def _through_json(receipt: Receipt) -> Receipt:
    return Receipt(*json.loads(json.dumps(receipt)))

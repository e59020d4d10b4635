"""Storage in miniature: rows in dicts, loaded as `needs` says and written as `Writes` says.

It hands out no row that was not asked for, and keeps no change that was not written. What `decide`
can live with here, it can live with on a database.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime

from meterhold_server.core.copies import copy_of_lot
from meterhold_server.core.decide import decide
from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import (
    Account,
    Allowance,
    ChargeRefund,
    Claim,
    ClaimKey,
    Defaults,
    DefaultsKey,
    Entry,
    GrantKey,
    Lot,
    PendingGrant,
    PendingState,
    Receipt,
    Reservation,
    Rules,
    State,
    Tombstone,
)
from meterhold_server.core.needs import Needs, needs, still_needs
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.core.posting import Writes


class Shelf:
    def __init__(self, state: State) -> None:
        self._live_lots: defaultdict[str, dict[int, Lot]] = defaultdict(dict)
        self._active: defaultdict[str, dict[str, Reservation]] = defaultdict(dict)
        self.accounts: dict[str, Account] = {}
        self.lots: dict[tuple[str, int], Lot] = {}
        self.reservations: dict[tuple[str, str], Reservation] = {}
        self.claims: dict[ClaimKey, Claim] = {}
        self.entries: dict[tuple[str, int], Entry] = {}
        self.charge_refunds: dict[tuple[str, int], ChargeRefund] = {}
        self.allowances: dict[str, Allowance] = {}
        self.pending: dict[tuple[str, str], PendingGrant] = {}
        self.tombstones: dict[GrantKey, Tombstone] = {}
        self.defaults: dict[DefaultsKey, Defaults] = {}
        accounts = state.accounts.values()
        everything = Writes(
            accounts=dict(state.accounts),
            lots={(lot.account_id, lot.seq): lot for each in accounts for lot in each.lots},
            reservations={
                (each.account_id, reservation.reservation_id): reservation
                for each in accounts
                for reservation in each.reservations.values()
            },
            charge_refunds={
                (each.account_id, seq): refund
                for each in accounts
                for seq, refund in each.charge_refunds.items()
            },
            allowances={
                each.account_id: each.allowance for each in accounts if each.allowance is not None
            },
            pending={
                (each.account_id, key): pending
                for each in accounts
                for key, pending in each.pending.items()
            },
            tombstones=dict(state.tombstones),
            defaults=dict(state.defaults),
            entries=[entry for each in accounts for entry in each.charges.values()],
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
        state = self.look_up(wanted, wanted.account_ids, wanted.tombstones)
        self.look_further(state, now, wanted)
        return state

    def look_up(
        self, wanted: Needs, account_ids: Collection[str], tombstones: Collection[GrantKey]
    ) -> State:
        """What is named, of these accounts and tombstones."""
        state = State()
        for account_id in sorted(account_ids):
            if account_id not in self.accounts:
                continue
            account = _bare(self.accounts[account_id])
            state.accounts[account_id] = account
            account.lots += map(copy_of_lot, self._live_lots[account_id].values())
        self._look_up_rows(state, wanted)
        for key in wanted.claims:
            if key in self.claims:
                state.claims[key] = _read_back(self.claims[key])
        for grant_key in tombstones:
            if grant_key in self.tombstones:
                tombstone = self.tombstones[grant_key]
                revocations = dict(tombstone.revocations)
                state.tombstones[grant_key] = replace(tombstone, revocations=revocations)
        for defaults_key in wanted.defaults | wanted.changed_defaults:
            if defaults_key in self.defaults:
                state.defaults[defaults_key] = copy(self.defaults[defaults_key])
        return state

    def _look_up_rows(self, state: State, wanted: Needs) -> None:
        """What is named by account and key."""
        for account_id, reservation_id in wanted.reservations:
            held = self.reservations.get((account_id, reservation_id))
            if held and account_id in state.accounts:
                _add(state, held)
        for account_id, seq in wanted.charges:
            account = state.accounts.get(account_id)
            if account is None:
                continue
            if entry := self.entries.get((account_id, seq)):
                account.charges[seq] = entry
            if refund := self.charge_refunds.get((account_id, seq)):
                account.charge_refunds[seq] = copy(refund)
        for account_id in wanted.allowances:
            if account_id in self.allowances and account_id in state.accounts:
                state.accounts[account_id].allowance = copy(self.allowances[account_id])

    def look_further(self, state: State, now: datetime, first: Needs) -> None:
        """What the loaded rows tell of."""
        self._load_the_rest(state, now, first)
        for account in state.accounts.values():
            account.lots.sort(key=spend_key)

    def _load_the_rest(self, state: State, now: datetime, first: Needs) -> None:
        wanted = still_needs(state, now, first)
        for account_id in wanted.due_account_ids:
            if account_id in self.allowances:
                state.accounts[account_id].allowance = copy(self.allowances[account_id])
            for (owner, key), pending in self.pending.items():
                if owner == account_id and pending.state is PendingState.PENDING:
                    _add_pending(state, key, pending)
            self._load_due(state, account_id, now)
        for wanted_reservation in wanted.reservations:
            if wanted_reservation in self.reservations:
                _add(state, self.reservations[wanted_reservation])
        lots_wanted = set(wanted.lots)
        for account_id, key in wanted.pending:
            if (account_id, key) not in self.pending:
                continue
            pending = self.pending[account_id, key]
            _add_pending(state, key, pending)
            if pending.entry_seq:
                lots_wanted.add((account_id, pending.entry_seq))
        for account_id, seq in lots_wanted:
            lots = state.accounts[account_id].lots
            if all(lot.seq != seq for lot in lots):
                lots.append(copy_of_lot(self.lots[account_id, seq]))

    def _load_due(self, state: State, account_id: str, now: datetime) -> None:
        """The active reservations that are due, and the next one after them."""
        active = list(self._active[account_id].values())
        coming = [reservation for reservation in active if reservation.expire_time > now]
        coming.sort(key=lambda held: (held.expire_time, held.reservation_id))
        due = [reservation for reservation in active if reservation.expire_time <= now]
        for reservation in due + coming[:1]:
            _add(state, reservation)

    def persist(self, writes: Writes) -> None:
        """Write what changed. A row that says it is `stored` must be there, and no other."""
        for account_id, account in writes.accounts.items():
            assert account.stored == (account_id in self.accounts)
            self.accounts[account_id] = replace(_bare(account), stored=True)
        for lot_key, lot in writes.lots.items():
            assert lot.stored == (lot_key in self.lots)
            if lot.stored and not lot.has_history:
                assert not self.lots[lot_key].has_history, "what has become of a lot stays"
            self.lots[lot_key] = replace(copy_of_lot(lot), stored=True)
            self._live_lots[lot.account_id].pop(lot.seq, None)
            if lot.live:
                self._live_lots[lot.account_id][lot.seq] = self.lots[lot_key]
        for key, reservation in writes.reservations.items():
            assert reservation.stored == (key in self.reservations)
            kept = replace(reservation, parts=list(reservation.parts), stored=True)
            self.reservations[key] = kept
            self._active[kept.account_id].pop(kept.reservation_id, None)
            if kept.active:
                self._active[kept.account_id][kept.reservation_id] = kept
        for refund_key, refund in writes.charge_refunds.items():
            assert refund.stored == (refund_key in self.charge_refunds)
            self.charge_refunds[refund_key] = replace(refund, stored=True)
        self._persist_terms(writes)
        for entry in writes.entries:
            assert (entry.account_id, entry.seq) not in self.entries, "an entry is written once"
            self.entries[entry.account_id, entry.seq] = entry
        for claim in writes.claims:
            assert claim.claim_key not in self.claims, "a key is used up once"
            self.claims[claim.claim_key] = claim

    def _persist_terms(self, writes: Writes) -> None:
        for account_id, allowance in writes.allowances.items():
            assert allowance.stored == (account_id in self.allowances)
            self.allowances[account_id] = replace(allowance, stored=True)
        for key, pending in writes.pending.items():
            assert pending.stored == (key in self.pending)
            revocations = dict(pending.revocations)
            self.pending[key] = replace(pending, revocations=revocations, stored=True)
        for grant_key, tombstone in writes.tombstones.items():
            assert tombstone.stored == (grant_key in self.tombstones)
            revocations = dict(tombstone.revocations)
            self.tombstones[grant_key] = replace(tombstone, revocations=revocations, stored=True)
        for defaults_key, defaults in writes.defaults.items():
            assert defaults.stored == (defaults_key in self.defaults)
            self.defaults[defaults_key] = replace(defaults, stored=True)

    def state(self) -> State:
        """All rows, as one state."""
        state = State({key: _bare(account) for key, account in self.accounts.items()})
        for lot in self.lots.values():
            state.accounts[lot.account_id].lots.append(lot)
        for account in state.accounts.values():
            account.lots.sort(key=spend_key)
        for (account_id, reservation_id), reservation in self.reservations.items():
            state.accounts[account_id].reservations[reservation_id] = reservation
        for (account_id, seq), entry in self.entries.items():
            state.accounts[account_id].charges[seq] = entry
        for (account_id, seq), refund in self.charge_refunds.items():
            state.accounts[account_id].charge_refunds[seq] = refund
        for account_id, allowance in self.allowances.items():
            state.accounts[account_id].allowance = allowance
        for (account_id, key), pending in self.pending.items():
            state.accounts[account_id].pending[key] = pending
        state.claims = dict(self.claims)
        state.tombstones = dict(self.tombstones)
        state.defaults = dict(self.defaults)
        return state


def _bare(account: Account) -> Account:
    """The row of an account alone."""
    return replace(
        account,
        lots=[],
        reservations={},
        charges={},
        charge_refunds={},
        allowance=None,
        pending={},
    )


def _add_pending(state: State, key: str, pending: PendingGrant) -> None:
    known = state.accounts[pending.account_id].pending
    known.setdefault(key, replace(pending, revocations=dict(pending.revocations)))


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

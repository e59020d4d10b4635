"""The posting in progress: the state, the time, and what has been written so far.

Every step of `decide` gets one. It is the only thing that writes entries and claims, and it keeps
the list of what storage has to persist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from meterhold_server.core.audit import AuditRecord
from meterhold_server.core.model import (
    NAMESPACE_CLAIM_KINDS,
    Account,
    Allowance,
    ChargeRefund,
    Claim,
    ClaimKey,
    ClaimKind,
    Defaults,
    DefaultsKey,
    Entry,
    EntryKind,
    GrantKey,
    Lot,
    Part,
    PendingGrant,
    Receipt,
    Reservation,
    Rules,
    State,
    Tombstone,
)
from meterhold_server.core.operations import AccountOperation


@dataclass(slots=True)
class Writes:
    """What changed, each row once, in order of first change. Rows not yet `stored` are new."""

    accounts: dict[str, Account] = field(default_factory=dict)
    lots: dict[tuple[str, int], Lot] = field(default_factory=dict)
    reservations: dict[tuple[str, str], Reservation] = field(default_factory=dict)
    charge_refunds: dict[tuple[str, int], ChargeRefund] = field(default_factory=dict)
    allowances: dict[str, Allowance] = field(default_factory=dict)
    pending: dict[tuple[str, str], PendingGrant] = field(default_factory=dict)
    tombstones: dict[GrantKey, Tombstone] = field(default_factory=dict)
    defaults: dict[DefaultsKey, Defaults] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    audit: list[AuditRecord] = field(default_factory=list)
    rebuilt: bool = False
    """Whether anything of a lot may have changed, even back to what most lots have."""

    def __bool__(self) -> bool:
        return bool(self.accounts or self.claims or self.tombstones or self.defaults)

    def add(self, later: Writes) -> None:
        """Add what changed after these, but for `defaults`."""
        self.accounts.update(later.accounts)
        self.lots.update(later.lots)
        self.reservations.update(later.reservations)
        self.charge_refunds.update(later.charge_refunds)
        self.allowances.update(later.allowances)
        self.pending.update(later.pending)
        self.tombstones.update(later.tombstones)
        self.entries.extend(later.entries)
        self.claims.extend(later.claims)
        self.audit.extend(later.audit)


def claim_key(kind: ClaimKind, operation: AccountOperation, key: str) -> ClaimKey:
    """The place of an idempotency key: in its namespace or in its account, by its kind."""
    if kind in NAMESPACE_CLAIM_KINDS:
        return ClaimKey(kind, operation.account.namespace, key)
    return ClaimKey(kind, operation.account_id, key)


@dataclass(slots=True)
class Posting:
    """One batch on its way: `now` is the database's time, the same for all of it."""

    state: State
    now: datetime
    rules: Rules
    writes: Writes = field(default_factory=Writes)

    def new_account(self, operation: AccountOperation) -> Account:
        """Create the account of an operation. The caller has checked that it does not exist."""
        account = Account(operation.account, operation.account_id, create_time=self.now)
        self.state.accounts[account.account_id] = account
        return account

    def touch(self, account: Account) -> None:
        self.writes.accounts[account.account_id] = account

    def touch_lot(self, lot: Lot) -> None:
        self.writes.lots[lot.account_id, lot.seq] = lot

    def touch_reservation(self, reservation: Reservation) -> None:
        self.writes.reservations[reservation.account_id, reservation.reservation_id] = reservation

    def touch_charge_refund(self, refund: ChargeRefund) -> None:
        self.writes.charge_refunds[refund.account_id, refund.charge_seq] = refund

    def touch_allowance(self, allowance: Allowance) -> None:
        self.writes.allowances[allowance.account_id] = allowance

    def touch_pending(self, pending: PendingGrant) -> None:
        self.writes.pending[pending.account_id, pending.idempotency_key] = pending

    def touch_tombstone(self, tombstone: Tombstone) -> None:
        self.writes.tombstones[tombstone.grant_key] = tombstone

    def touch_defaults(self, defaults: Defaults) -> None:
        self.writes.defaults[defaults.key] = defaults

    def entry(
        self,
        account: Account,
        kind: EntryKind,
        amount_micros: int,
        parts: Sequence[Part],
        *,
        reservation_id: str = "",
        key: str = "",
        related_seq: int = 0,
        labels: dict[str, str] | None = None,
        usage: dict[str, Any] | None = None,
        metadata: str | None = None,
        reason: str = "",
    ) -> Entry:
        """Append to the ledger. The account's totals must already include the entry."""
        assert amount_micros != 0, "an entry changes what the account owns"
        account.seq += 1
        entry = Entry(
            account.account_id,
            account.seq,
            kind,
            amount_micros,
            account.remaining_micros,
            self.now,
            reservation_id,
            key,
            related_seq,
            list(parts),
            labels,
            usage,
            metadata,
            reason,
        )
        self.writes.entries.append(entry)
        account.charges[entry.seq] = entry
        self.touch(account)
        return entry

    def claim(
        self, claim_key: ClaimKey, account_id: str, receipt: Receipt, entry: Entry | None
    ) -> Claim:
        """Use up a key, together with the answer it will give from now on."""
        claim = Claim(claim_key, account_id, receipt, entry, self.now)
        self.state.claims[claim_key] = claim
        self.writes.claims.append(claim)
        return claim

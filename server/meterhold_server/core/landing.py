"""Grants that are pending until their effective time, and what becomes of them then."""

from __future__ import annotations

from meterhold_server.core import clawback, funds
from meterhold_server.core.deposits import Deposit, Terms, deposit
from meterhold_server.core.model import (
    Account,
    EarlyRevocations,
    EntryKind,
    PendingGrant,
    PendingState,
)
from meterhold_server.core.operations import GrantOnce
from meterhold_server.core.posting import Posting


def schedule(
    posting: Posting, account: Account, operation: GrantOnce, revocations: EarlyRevocations
) -> PendingGrant:
    """Keep a grant until its effective time comes."""
    assert operation.effective_time is not None, "else it is granted at once"
    pending = PendingGrant(
        account.account_id,
        operation.idempotency_key,
        operation.amount_micros,
        operation.effective_time,
        PendingState.PENDING,
        entry_seq=0,
        priority=operation.priority,
        category=operation.category,
        expire_time=operation.expire_time,
        create_time=posting.now,
        reason=operation.reason,
        cash=operation.cash,
        source=operation.source,
        labels=operation.labels,
        metadata=operation.metadata,
        revocations=dict(revocations),
    )
    account.pending[pending.idempotency_key] = pending
    account.pending_micros += clawback.coming_micros(pending)
    funds.expect_expiry(account, pending.effective_time)
    posting.touch(account)
    posting.touch_pending(pending)
    return pending


def land(posting: Posting, account: Account, pending: PendingGrant) -> Deposit:
    """Put a pending grant in. What was revoked of it meanwhile is taken at once."""
    account.pending_micros -= clawback.coming_micros(pending)
    landed = deposit(
        posting,
        account,
        EntryKind.GRANT,
        pending.amount_micros,
        Terms(
            pending.priority,
            pending.category,
            pending.expire_time,
            pending.idempotency_key,
            pending.cash,
            pending.source,
            pending.labels,
            pending.metadata,
            pending.reason,
        ),
    )
    pending.state = PendingState.LANDED
    pending.entry_seq = landed.entry.seq
    posting.touch_pending(pending)
    if pending.revocations:
        clawback.take_waiting(posting, account, landed.lot, pending.revocations)
    return landed

"""GrantOnce: put credits in exactly once, whatever key a retry comes with."""

from __future__ import annotations

from meterhold_server.core import funds, replay
from meterhold_server.core.accounts import refuse_frozen
from meterhold_server.core.model import Account, Claim, ClaimKind, EntryKind, Lot, Part, Receipt
from meterhold_server.core.operations import GrantOnce
from meterhold_server.core.outcomes import Granted, Reason, Rejected
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.range import refuse_range


def grant_once(
    posting: Posting, account: Account | None, operation: GrantOnce
) -> Granted | Rejected:
    request = replay.grant_request(operation)
    if used := _used(posting, operation):
        legacy = used.claim_key.key != operation.idempotency_key
        refusal = replay.grant_mismatch(request, used.receipt, legacy=legacy)
        return refusal or _grant_again(posting, operation, used)
    if operation.expire_time is not None and operation.expire_time <= posting.now:
        return Rejected(
            Reason.INVALID_FIELD,
            {"field": "expire_time", "description": "has passed by the database's clock"},
        )
    if refusal := refuse_frozen(account):
        return refusal
    if refusal := refuse_range(account, returned_micros=operation.amount_micros):
        return refusal
    # Nothing can fail from here on.
    account = account or posting.new_account(operation)
    amount = operation.amount_micros
    repaid = funds.repay(account, amount)
    account.granted_micros += amount
    entry = posting.entry(
        account,
        EntryKind.GRANT,
        amount,
        [Part(account.seq + 1, amount - repaid)],
        key=operation.idempotency_key,
        labels=operation.labels,
        metadata=operation.metadata,
        reason=operation.reason,
    )
    lot = Lot(
        account.account_id,
        entry.seq,
        granted_micros=amount,
        available_micros=amount - repaid,
        held_micros=0,
        priority=operation.priority,
        category=operation.category,
        expire_time=operation.expire_time,
        create_time=posting.now,
        idempotency_key=operation.idempotency_key,
        cash=operation.cash,
        source=operation.source,
    )
    funds.add_lot(posting, account, lot)
    outcome = Granted(account.balance(), entry, repaid)
    receipt = Receipt(request, outcome.answer())
    key = claim_key(ClaimKind.GRANT_ONCE, operation, operation.idempotency_key)
    _alias(posting, operation, posting.claim(key, account.account_id, receipt, entry))
    return outcome


def _used(posting: Posting, operation: GrantOnce) -> Claim | None:
    """The grant that one of the keys names already, the new key before the legacy ones."""
    for key in (operation.idempotency_key, *operation.legacy_keys):
        used = posting.state.claims.get(claim_key(ClaimKind.GRANT_ONCE, operation, key))
        if used:
            return used
    return None


def _grant_again(posting: Posting, operation: GrantOnce, used: Claim) -> Granted:
    _alias(posting, operation, used)
    return Granted.again(used)


def _alias(posting: Posting, operation: GrantOnce, used: Claim) -> None:
    """Make every key of the operation name the one grant, so that none of them can grant again."""
    for key in (operation.idempotency_key, *operation.legacy_keys):
        alias = claim_key(ClaimKind.GRANT_ONCE, operation, key)
        if alias not in posting.state.claims:
            posting.claim(alias, used.account_id, replay.alias_receipt(used.receipt), used.entry)

"""Debit and DebitOnce: charge now, all or nothing."""

from __future__ import annotations

from meterhold_server.core import funds, replay
from meterhold_server.core.accounts import refuse_frozen
from meterhold_server.core.holds import insufficient
from meterhold_server.core.model import Account, ClaimKey, ClaimKind, EntryKind, Overage, Receipt
from meterhold_server.core.operations import Debit, DebitOnce
from meterhold_server.core.outcomes import Debited, Rejected
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.range import refuse_range


def debit(posting: Posting, account: Account | None, operation: Debit) -> Debited | Rejected:
    if not operation.request_id:
        return _debit(posting, account, operation, None, {})
    key = claim_key(ClaimKind.DEBIT, operation, operation.request_id)
    return _debit(posting, account, operation, key, replay.debit_request(operation))


def debit_once(
    posting: Posting, account: Account | None, operation: DebitOnce
) -> Debited | Rejected:
    key = claim_key(ClaimKind.DEBIT_ONCE, operation, operation.idempotency_key)
    return _debit(posting, account, operation, key, replay.debit_once_request(operation))


def _debit(
    posting: Posting,
    account: Account | None,
    operation: Debit | DebitOnce,
    key: ClaimKey | None,
    request: replay.Request,
) -> Debited | Rejected:
    used = posting.state.claims.get(key) if key else None
    if used:
        return replay.mismatch(request, used.receipt) or Debited.again(used)
    if refusal := refuse_frozen(account):
        return refusal
    amount = operation.amount_micros
    into_debt = operation.overage is Overage.OVERDRAFT
    if account is None or (amount > account.spendable_micros and not into_debt):
        return insufficient(account, amount)
    if refusal := refuse_range(account, charged_micros=amount):
        return refusal
    # Nothing can fail from here on.
    parts = funds.charge(posting, account, amount)
    account.spent_micros += amount
    entry = posting.entry(
        account,
        EntryKind.DEBIT,
        -amount,
        parts,
        key=key.key if key else "",
        labels=operation.labels,
        usage=operation.usage,
        metadata=operation.metadata,
    )
    outcome = Debited(account.balance(), entry)
    if key:
        posting.claim(key, account.account_id, Receipt(request, outcome.answer()), entry)
    return outcome

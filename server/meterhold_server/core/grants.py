"""GrantOnce: put credits in exactly once, whatever key a retry comes with."""

from __future__ import annotations

from meterhold_server.core import clawback, landing, replay
from meterhold_server.core.accounts import new_account, refuse_frozen
from meterhold_server.core.deposits import Terms, deposit
from meterhold_server.core.model import (
    Account,
    Claim,
    ClaimKey,
    ClaimKind,
    EarlyRevocations,
    EntryKind,
    GrantKey,
    Receipt,
)
from meterhold_server.core.operations import GrantOnce
from meterhold_server.core.outcomes import Granted, Reason, Rejected
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.purchases import CURRENCY, find_grant, first_difference, purchase
from meterhold_server.core.range import refuse_range


def grant_once(
    posting: Posting, account: Account | None, operation: GrantOnce
) -> Granted | Rejected:
    request = replay.grant_request(operation)
    if used := _used(posting, operation):
        legacy = used.claim_key.key != operation.idempotency_key
        refusal = replay.grant_mismatch(request, used.receipt, legacy=legacy)
        return refusal or _grant_again(posting, operation, used)
    early = _early(posting, operation)
    if isinstance(early, Rejected):
        return early
    amount = operation.amount_micros
    if clawback.waiting_micros(amount, early.values()) == amount:
        return Rejected(Reason.GRANT_REVOKED, {"grant_key": operation.idempotency_key})
    if operation.expire_time is not None and operation.expire_time <= posting.now:
        return Rejected(
            Reason.INVALID_FIELD,
            {"field": "expire_time", "description": "has passed by the database's clock"},
        )
    if refusal := refuse_frozen(account):
        return refusal
    if refusal := refuse_range(account, returned_micros=amount):
        return refusal
    # Nothing can fail from here on.
    account = account or new_account(posting, operation)
    if operation.effective_time is not None and operation.effective_time > posting.now:
        landing.schedule(posting, account, operation, early)
        outcome = Granted(account.balance(), None)
        answer = outcome.answer() | {"pending_key": operation.idempotency_key}
    else:
        outcome = _grant(posting, account, operation, early)
        answer = outcome.answer()
    key = _free(posting, operation, operation.idempotency_key)
    receipt = Receipt(request, answer)
    used = posting.claim(key, account.account_id, receipt, outcome.entry)
    _alias(posting, operation, used)
    return outcome


def _grant(
    posting: Posting, account: Account, operation: GrantOnce, early: EarlyRevocations
) -> Granted:
    terms = Terms(
        operation.priority,
        operation.category,
        operation.expire_time,
        operation.idempotency_key,
        operation.cash,
        operation.source,
        operation.labels,
        operation.metadata,
        operation.reason,
    )
    entry, lot, repaid = deposit(posting, account, EntryKind.GRANT, operation.amount_micros, terms)
    revoked = clawback.take_waiting(posting, account, lot, early) if early else 0
    return Granted(account.balance(), entry, repaid, revoked)


def _early(posting: Posting, operation: GrantOnce) -> EarlyRevocations | Rejected:
    """What revocations that came before the grant say, or the refusal of another purchase."""
    said: EarlyRevocations = {}
    for key in _keys(operation):
        tombstone = posting.state.tombstones.get(GrantKey(operation.account.namespace, key))
        if tombstone is None:
            continue
        has = purchase(operation.source, operation.cash)
        if name := first_difference(tombstone.source, has):
            of = "cash" if name == CURRENCY else "source"
            said_before = (tombstone.source or {})[name]
            return Rejected(
                Reason.SOURCE_MISMATCH, {"field": f"{of}.{name}", "original": said_before}
            )
        said = tombstone.revocations | said
    return said


def _keys(operation: GrantOnce) -> tuple[str, ...]:
    return (operation.idempotency_key, *operation.legacy_keys)


def _used(posting: Posting, operation: GrantOnce) -> Claim | None:
    """The grant that one of the keys names already, the new key before the legacy ones."""
    for key in _keys(operation):
        if used := find_grant(posting, operation, key):
            return used
    return None


def _grant_again(posting: Posting, operation: GrantOnce, used: Claim) -> Granted:
    _alias(posting, operation, used)
    return Granted.again(used)


def _alias(posting: Posting, operation: GrantOnce, used: Claim) -> None:
    """Make every key of the operation name the one grant, so that none of them can grant again."""
    for key in _keys(operation):
        if not find_grant(posting, operation, key):
            receipt = replay.alias_receipt(used.receipt)
            posting.claim(_free(posting, operation, key), used.account_id, receipt, used.entry)


def _free(posting: Posting, operation: GrantOnce, key: str) -> ClaimKey:
    """Where a grant takes its key: elsewhere if a tombstone has taken the usual place."""
    usual = claim_key(ClaimKind.GRANT_ONCE, operation, key)
    if usual in posting.state.claims:
        return claim_key(ClaimKind.GRANT_AFTER_TOMBSTONE, operation, key)
    return usual

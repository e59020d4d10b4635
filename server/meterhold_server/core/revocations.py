"""RevokeGrant and ReinstateGrant: purchases that are refunded, disputed, and won back.

A revocation is cumulative: it says how much is revoked all in all, so that one that is repeated, or
that a larger one has overtaken, does nothing. What is revoked is counted by `revocation_id`. One
that was reinstated has had its say: the same again takes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from meterhold_server.core import clawback, expiry, funds
from meterhold_server.core.clawback import coming_micros
from meterhold_server.core.landing import land
from meterhold_server.core.model import (
    EMPTY_BALANCE,
    Account,
    AccountKey,
    Claim,
    ClaimKind,
    EarlyRevocation,
    EarlyRevocations,
    GrantKey,
    Lot,
    PendingGrant,
    PendingState,
    Receipt,
    Tombstone,
)
from meterhold_server.core.operations import GrantChange, ReinstateGrant, RevokeGrant
from meterhold_server.core.outcomes import Elsewhere, Reason, Reinstated, Rejected, Revoked
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.purchases import (
    TOMBSTONE_REQUEST,
    find_grant,
    purchase,
    refuse_source,
)
from meterhold_server.core.range import refuse_range

IDS_MAX: Final = 64
"""How many `revocation_id`s a grant may have. They are kept with its lot, and loaded with it."""


def revoke_grant(
    posting: Posting, account: Account | None, operation: RevokeGrant
) -> Revoked | Elsewhere | Rejected:
    claim = find_grant(posting, operation, operation.grant_key)
    if claim is None:
        return _revoke_before(posting, operation)
    if elsewhere := _elsewhere(claim, operation):
        return elsewhere
    assert account is not None, "it has a grant"
    if pending := _pending(account, claim):
        return _revoke_pending(posting, account, pending, operation)
    lot = _lot(account, claim)
    if refusal := refuse_source(operation.expected_source, purchase(lot.source, lot.cash)):
        return refusal
    if refusal := _refuse_more_ids(lot.revocations or {}, operation):
        return refusal
    # Nothing can fail from here on.
    revocations = lot.revocations = lot.revocations or {}
    level, taken = revocations.get(operation.revocation_id, (0, 0))
    target = clawback.level_micros(
        lot.granted_micros, operation.fraction_ppm, operation.amount_micros
    )
    left = lot.granted_micros - lot.expired_micros - lot.revoked_micros
    micros = min(max(0, target - level), left)
    revocations[operation.revocation_id] = [max(level, target), taken + micros]
    posting.touch(account)
    posting.touch_lot(lot)
    entry = None
    if micros:
        entry = clawback.take_back(posting, account, lot, micros, **_of_entry(operation))
    return Revoked(operation.account, account.balance(), entry, micros, lot.revoked_micros)


def reinstate_grant(
    posting: Posting, account: Account | None, operation: ReinstateGrant
) -> Reinstated | Elsewhere | Rejected:
    claim = find_grant(posting, operation, operation.grant_key)
    if claim is None:
        return _reinstate_before(posting, operation)
    if elsewhere := _elsewhere(claim, operation):
        return elsewhere
    assert account is not None, "it has a grant"
    if pending := _pending(account, claim):
        return _reinstate_pending(posting, account, pending, operation)
    lot = _lot(account, claim)
    if refusal := refuse_source(operation.expected_source, purchase(lot.source, lot.cash)):
        return refusal
    # Nothing can fail from here on.
    level, micros = (lot.revocations or {}).get(operation.revocation_id, (0, 0))
    entry = None
    if micros and lot.revocations is not None:
        lot.revocations[operation.revocation_id] = [level, 0]
        posting.touch(account)
        entry = clawback.give_back(posting, account, lot, micros, **_of_entry(operation))
    return Reinstated(operation.account, account.balance(), entry, micros, lot.revoked_micros)


def _refuse_more_ids(known: Collection[str], operation: RevokeGrant) -> Rejected | None:
    if operation.revocation_id in known or len(known) < IDS_MAX:
        return None
    description = f"is new, and the grant has {IDS_MAX} ids already; use one of them"
    return Rejected(Reason.INVALID_FIELD, {"field": "revocation_id", "description": description})


def _elsewhere(claim: Claim, operation: GrantChange) -> Elsewhere | Rejected | None:
    """What to answer if the grant belongs to another account than the one at hand."""
    request = claim.receipt.request
    account = AccountKey(operation.account.namespace, request["account"], request["unit"])
    if account == operation.account:
        return None
    if not operation.account_named:
        return Elsewhere(account)
    field = "account" if account.account != operation.account.account else "unit"
    return Rejected(Reason.SOURCE_MISMATCH, {"field": field, "original": request[field]})


def _pending(account: Account, claim: Claim) -> PendingGrant | None:
    """The grant of a claim, if it was made for later and has not landed."""
    pending = account.pending.get(claim.receipt.answer.get("pending_key", ""))
    return pending if pending and pending.state is not PendingState.LANDED else None


def _lot(account: Account, claim: Claim) -> Lot:
    if claim.entry is not None:
        seq = claim.entry.seq
    else:
        seq = account.pending[claim.receipt.answer["pending_key"]].entry_seq
    return next(lot for lot in account.lots if lot.seq == seq)


def _of_entry(operation: GrantChange) -> dict[str, Any]:
    return {
        "key": operation.grant_key,
        "labels": operation.labels,
        "metadata": operation.metadata,
        "reason": operation.reason,
    }


def _raise(revocations: EarlyRevocations, operation: RevokeGrant) -> None:
    """Remember the largest that was said."""
    early = revocations.get(operation.revocation_id, EarlyRevocation())
    revocations[operation.revocation_id] = early._replace(
        fraction_ppm=max(early.fraction_ppm, operation.fraction_ppm),
        amount_micros=max(early.amount_micros, operation.amount_micros),
    )


def _undo(revocations: EarlyRevocations, operation: ReinstateGrant) -> None:
    early = revocations.get(operation.revocation_id)
    if early:
        revocations[operation.revocation_id] = early._replace(
            reinstated_fraction_ppm=early.fraction_ppm,
            reinstated_amount_micros=early.amount_micros,
        )


def _revoke_before(posting: Posting, operation: RevokeGrant) -> Revoked | Rejected:
    grant_key = GrantKey(operation.account.namespace, operation.grant_key)
    tombstone = posting.state.tombstones.get(grant_key)
    if not operation.allow_tombstone:
        return _not_found(operation)
    if tombstone:
        if refusal := _refuse_other(operation, tombstone):
            return refusal
        if refusal := _refuse_more_ids(tombstone.revocations, operation):
            return refusal
        tombstone.source = (operation.expected_source or {}) | (tombstone.source or {}) or None
    else:
        tombstone = Tombstone(grant_key, posting.now, operation.expected_source)
        posting.state.tombstones[grant_key] = tombstone
        key = claim_key(ClaimKind.GRANT_ONCE, operation, operation.grant_key)
        posting.claim(key, operation.account_id, Receipt(TOMBSTONE_REQUEST, {}), None)
    _raise(tombstone.revocations, operation)
    posting.touch_tombstone(tombstone)
    return Revoked(operation.account, EMPTY_BALANCE, tombstone=True)


def _reinstate_before(posting: Posting, operation: ReinstateGrant) -> Reinstated | Rejected:
    grant_key = GrantKey(operation.account.namespace, operation.grant_key)
    tombstone = posting.state.tombstones.get(grant_key)
    if tombstone is None:
        return _not_found(operation)
    if refusal := _refuse_other(operation, tombstone):
        return refusal
    _undo(tombstone.revocations, operation)
    posting.touch_tombstone(tombstone)
    return Reinstated(operation.account, EMPTY_BALANCE, tombstone=True)


def _refuse_other(operation: GrantChange, tombstone: Tombstone) -> Rejected | None:
    """What earlier calls did not say of the purchase is unknown, and may be anything."""
    said = tombstone.source or {}
    expected = {k: v for k, v in (operation.expected_source or {}).items() if k in said}
    return refuse_source(expected, said)


def _not_found(operation: GrantChange) -> Rejected:
    return Rejected(Reason.GRANT_NOT_FOUND, {"grant_key": operation.grant_key})


def _revoke_pending(
    posting: Posting, account: Account, pending: PendingGrant, operation: RevokeGrant
) -> Revoked | Rejected:
    if refusal := refuse_source(operation.expected_source, purchase(pending.source, pending.cash)):
        return refusal
    if refusal := _refuse_more_ids(pending.revocations, operation):
        return refusal
    # Nothing can fail from here on.
    before = coming_micros(pending)
    _raise(pending.revocations, operation)
    coming = coming_micros(pending)
    account.pending_micros -= before - coming
    if coming == 0:
        pending.state = PendingState.REVOKED
    posting.touch(account)
    posting.touch_pending(pending)
    return Revoked(
        operation.account,
        account.balance(),
        revoked_micros=before - coming,
        grant_revoked_micros=pending.amount_micros - coming,
        tombstone=True,
    )


def _reinstate_pending(
    posting: Posting, account: Account, pending: PendingGrant, operation: ReinstateGrant
) -> Reinstated | Rejected:
    if refusal := refuse_source(operation.expected_source, purchase(pending.source, pending.cash)):
        return refusal
    before = coming_micros(pending)
    old = dict(pending.revocations)
    _undo(pending.revocations, operation)
    coming = coming_micros(pending)
    if refusal := refuse_range(account, returned_micros=coming - before):
        pending.revocations = old
        return refusal
    # Nothing can fail from here on.
    account.pending_micros += coming - before
    posting.touch(account)
    posting.touch_pending(pending)
    outcome = Reinstated(
        operation.account,
        EMPTY_BALANCE,
        reinstated_micros=coming - before,
        grant_revoked_micros=pending.amount_micros - coming,
        tombstone=True,
    )
    if pending.state is PendingState.REVOKED and coming:
        _revive(posting, account, pending, outcome)
    outcome.balance = account.balance()
    return outcome


def _revive(posting: Posting, account: Account, pending: PendingGrant, outcome: Reinstated) -> None:
    """Let a grant land after all: now, if its time came while it was revoked."""
    pending.state = PendingState.PENDING
    if pending.effective_time > posting.now:
        funds.expect_expiry(account, pending.effective_time)
        return
    landed = land(posting, account, pending)
    outcome.entry, outcome.tombstone = landed.entry, False
    if landed.lot.expired(posting.now):
        expiry.expire_lot(posting, account, landed.lot)

"""The bounds of an account, checked before anything changes: every total stays within int64."""

from __future__ import annotations

from meterhold_server.core.model import BALANCE_MICROS_MAX, Account
from meterhold_server.core.outcomes import Reason, Rejected


def refuse_range(
    account: Account | None, *, charged_micros: int = 0, returned_micros: int = 0
) -> Rejected | None:
    """Refuse what would move a total past `BALANCE_MICROS_MAX`.

    Holds count as charged, since an expiry may charge them and cannot be refused; and so do pending
    grants as granted. What was put in, granted or returned, bounds what can be revoked or expire;
    what was spent bounds the debt. None is an account that is to be created.
    """
    taken = account.spent_micros + account.held_micros if account else 0
    if taken + charged_micros > BALANCE_MICROS_MAX:
        return _refusal("spent_micros")
    given = 0
    if account:
        given = account.granted_micros + account.refunded_micros + account.pending_micros
    if given + returned_micros > BALANCE_MICROS_MAX:
        return _refusal("granted_micros")
    return None


def _refusal(field: str) -> Rejected:
    return Rejected(
        Reason.BALANCE_OUT_OF_RANGE, {"field": field, "limit_micros": BALANCE_MICROS_MAX}
    )

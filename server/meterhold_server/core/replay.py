"""Idempotency: what a repeated request is compared by.

A request under a used key is either equal, and gets the first answer again, or it is refused with
the name of the first field that differs. Labels and metadata are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from meterhold_server.core.model import Receipt
from meterhold_server.core.operations import (
    Debit,
    DebitOnce,
    Extend,
    GrantOnce,
    RefundCharge,
    Reserve,
    Settle,
)
from meterhold_server.core.outcomes import Reason, Rejected

_SAME_GRANT: Final = ("account", "unit", "amount_micros")
_ALIAS: Final = "alias"
_FIELDS: Final = (
    *_SAME_GRANT,
    "add_amount_micros",
    "ttl",
    "min_amount_micros",
    "min_available_micros",
    "on_expiry",
    "overage",
    "reason",
    "category",
    "priority",
    "expire_time",
    "effective_time",
    "cash",
    "source",
    "usage",
    "charge_seq",
    "expired_lot_grace",
)
"""Every field that is compared, in the order in which a difference is told."""

Request = dict[str, Any]


def reserve_request(operation: Reserve) -> Request:
    return _present(
        amount_micros=operation.amount_micros,
        ttl=_seconds(operation.ttl),
        min_amount_micros=operation.min_amount_micros,
        min_available_micros=operation.min_available_micros,
        on_expiry=operation.on_expiry,
    )


def settle_request(operation: Settle) -> Request:
    return _present(
        amount_micros=operation.amount_micros,
        overage=operation.overage,
        usage=operation.usage,
    )


def extend_request(operation: Extend) -> Request:
    return _present(
        ttl=_seconds(operation.ttl),
        add_amount_micros=operation.add_amount_micros,
        on_expiry=operation.on_expiry,
    )


def debit_request(operation: Debit) -> Request:
    return _present(
        amount_micros=operation.amount_micros,
        overage=operation.overage,
        usage=operation.usage,
    )


def debit_once_request(operation: DebitOnce) -> Request:
    return _present(
        account=operation.account.account,
        unit=operation.account.unit,
        amount_micros=operation.amount_micros,
        overage=operation.overage,
        usage=operation.usage,
    )


def grant_request(operation: GrantOnce) -> Request:
    expire_time, effective_time = operation.expire_time, operation.effective_time
    return _present(
        account=operation.account.account,
        unit=operation.account.unit,
        amount_micros=operation.amount_micros,
        reason=operation.reason,
        category=operation.category,
        priority=operation.priority,
        expire_time=expire_time and expire_time.isoformat(),
        effective_time=effective_time and effective_time.isoformat(),
        cash=operation.cash,
        source=operation.source,
    )


def refund_request(operation: RefundCharge) -> Request:
    return _present(
        account=operation.account.account,
        unit=operation.account.unit,
        amount_micros=operation.amount_micros,
        reason=operation.reason,
        charge_seq=operation.charge_seq,
        expired_lot_grace=_seconds(operation.expired_lot_grace),
    )


def alias_receipt(receipt: Receipt) -> Receipt:
    """The receipt of a further key of a grant: only what makes it the same grant is compared."""
    same = {name: receipt.request[name] for name in _SAME_GRANT}
    return Receipt(same | {_ALIAS: True}, receipt.answer)


def grant_mismatch(request: Request, receipt: Receipt, *, legacy: bool) -> Rejected | None:
    """Compare a grant with the one its key, or a legacy key, names."""
    if legacy or _ALIAS in receipt.request:
        return _differing(_SAME_GRANT, request, receipt.request)
    return mismatch(request, receipt)


def mismatch(request: Request, receipt: Receipt) -> Rejected | None:
    """The refusal of a request that is not the one its key was used for; None if it is."""
    if request == receipt.request:
        return None
    return _differing(_FIELDS, request, receipt.request)


def _differing(
    names: Iterable[str], request: Mapping[str, Any], original: Mapping[str, Any]
) -> Rejected | None:
    for name in names:
        if request.get(name) != original.get(name):
            value = original.get(name, 0 if isinstance(request.get(name), int) else "")
            details = {"field": name, "original": _quotable(value)}
            return Rejected(Reason.IDEMPOTENCY_MISMATCH, details)
    return None


def _quotable(value: Any) -> Any:
    """The same text for a request of this batch and for one that was stored: no enums, sorted."""
    if isinstance(value, dict):
        return {key: _quotable(value[key]) for key in sorted(value)}
    return value.value if isinstance(value, Enum) else value


def _present(**fields: Any) -> Request:
    """Leave out what was left at its default: it is equal to what was never sent."""
    return {name: value for name, value in fields.items() if value}


def _seconds(ttl: timedelta | None) -> str | None:
    """A duration as protobuf's JSON writes it."""
    if ttl is None:
        return None
    micros = ttl // timedelta(microseconds=1)
    seconds, fraction = divmod(micros, 1_000_000)
    return f"{seconds}.{fraction:06}s" if fraction else f"{seconds}s"

"""Arguments → requests of MeteringService, for both clients.

Fills in the keys that make a call safe to retry, once per call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from meterhold import _keys, _wire
from meterhold.v1 import metering_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from meterhold._enums import LotCategory, OnExpiry, Overage
    from meterhold._values import Cash, ExpectedSource, Source, Usage


class PageRequest(Protocol):
    """A request that asks for a page."""

    page_token: str


def reserve(
    account: str,
    amount_micros: int,
    *,
    reservation_id: str,
    unit: str,
    ttl: timedelta | None,
    min_amount_micros: int,
    min_available_micros: int,
    on_expiry: OnExpiry | None,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.ReserveRequest:
    return metering_service_pb2.ReserveRequest(
        account=account,
        unit=unit,
        reservation_id=reservation_id,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        ttl=_wire.duration("ttl", ttl),
        min_amount_micros=_wire.amount("min_amount_micros", min_amount_micros),
        min_available_micros=_wire.amount("min_available_micros", min_available_micros),
        on_expiry=_wire.on_expiry(on_expiry),
        labels=labels,
        metadata=_wire.struct(metadata),
    )


def settle(
    account: str,
    amount_micros: int,
    *,
    reservation_id: str,
    unit: str,
    keep_open: bool,
    capture_id: str,
    overage: Overage | None,
    labels: Mapping[str, str] | None,
    usage: Usage | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.SettleRequest:
    return metering_service_pb2.SettleRequest(
        account=account,
        unit=unit,
        reservation_id=reservation_id,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        keep_open=keep_open,
        capture_id=capture_id or (_keys.fresh_key() if keep_open else ""),
        overage=_wire.overage(overage),
        labels=labels,
        usage=_wire.usage(usage),
        metadata=_wire.struct(metadata),
    )


def release(account: str, *, reservation_id: str, unit: str) -> metering_service_pb2.ReleaseRequest:
    return metering_service_pb2.ReleaseRequest(
        account=account, unit=unit, reservation_id=reservation_id
    )


def extend(
    account: str,
    *,
    reservation_id: str,
    unit: str,
    ttl: timedelta | None,
    add_amount_micros: int,
    on_expiry: OnExpiry | None,
    extend_id: str,
) -> metering_service_pb2.ExtendRequest:
    add_amount_micros = _wire.amount("add_amount_micros", add_amount_micros)
    return metering_service_pb2.ExtendRequest(
        account=account,
        unit=unit,
        reservation_id=reservation_id,
        ttl=_wire.duration("ttl", ttl),
        add_amount_micros=add_amount_micros,
        on_expiry=_wire.on_expiry(on_expiry),
        extend_id=extend_id or (_keys.fresh_key() if add_amount_micros else ""),
    )


def debit(
    account: str,
    amount_micros: int,
    *,
    unit: str,
    overage: Overage | None,
    request_id: str | None,
    labels: Mapping[str, str] | None,
    usage: Usage | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.DebitRequest:
    return metering_service_pb2.DebitRequest(
        account=account,
        unit=unit,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        overage=_wire.overage(overage),
        request_id="" if request_id is None else request_id or _keys.fresh_key(),
        labels=labels,
        usage=_wire.usage(usage),
        metadata=_wire.struct(metadata),
    )


def debit_once(
    account: str,
    amount_micros: int,
    *,
    idempotency_key: str,
    unit: str,
    overage: Overage | None,
    labels: Mapping[str, str] | None,
    usage: Usage | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.DebitOnceRequest:
    return metering_service_pb2.DebitOnceRequest(
        account=account,
        unit=unit,
        idempotency_key=idempotency_key,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        overage=_wire.overage(overage),
        labels=labels,
        usage=_wire.usage(usage),
        metadata=_wire.struct(metadata),
    )


def grant_once(
    account: str,
    amount_micros: int,
    *,
    idempotency_key: str,
    unit: str,
    legacy_keys: Iterable[str],
    reason: str,
    category: LotCategory | None,
    priority: int | None,
    effective_time: datetime | None,
    expire_time: datetime | None,
    cash: Cash | None,
    source: Source | None,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.GrantOnceRequest:
    if isinstance(legacy_keys, str):
        raise TypeError("legacy_keys must be several keys, not one str")
    return metering_service_pb2.GrantOnceRequest(
        account=account,
        unit=unit,
        idempotency_key=idempotency_key,
        legacy_keys=legacy_keys,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        reason=reason,
        category=_wire.category(category),
        priority=priority,
        effective_time=_wire.timestamp("effective_time", effective_time),
        expire_time=_wire.timestamp("expire_time", expire_time),
        cash=_wire.cash(cash),
        source=_wire.source(source),
        labels=labels,
        metadata=_wire.struct(metadata),
    )


def refund_charge(
    account: str,
    amount_micros: int,
    *,
    idempotency_key: str,
    unit: str,
    entry_seq: int | None,
    reservation_id: str | None,
    capture_id: str,
    expired_lot_grace: timedelta | None,
    reason: str,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.RefundChargeRequest:
    if (entry_seq is None) == (reservation_id is None):
        raise ValueError("give either entry_seq or reservation_id")
    request = metering_service_pb2.RefundChargeRequest(
        account=account,
        unit=unit,
        idempotency_key=idempotency_key,
        amount_micros=_wire.amount("amount_micros", amount_micros),
        expired_lot_grace=_wire.duration("expired_lot_grace", expired_lot_grace),
        reason=reason,
        labels=labels,
        metadata=_wire.struct(metadata),
    )
    if entry_seq is not None:
        request.entry_seq = entry_seq
    if reservation_id is not None:
        request.capture.reservation_id = reservation_id
        request.capture.capture_id = capture_id
    return request


def revoke_grant(
    grant_key: str,
    *,
    fraction_ppm: int | None,
    amount_micros: int | None,
    account: str | None,
    unit: str,
    allow_tombstone: bool,
    revocation_id: str,
    expected_source: ExpectedSource | None,
    reason: str,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.RevokeGrantRequest:
    if fraction_ppm is not None and amount_micros is not None:
        raise ValueError("give fraction_ppm or amount_micros, not both")
    request = metering_service_pb2.RevokeGrantRequest(
        grant_key=grant_key,
        account=_wire.account_or_any(account),
        unit=unit,
        allow_tombstone=allow_tombstone,
        revocation_id=revocation_id,
        expected_source=_wire.expected_source(expected_source),
        reason=reason,
        labels=labels,
        metadata=_wire.struct(metadata),
    )
    if fraction_ppm is not None:
        request.cumulative_fraction_ppm = _wire.amount("fraction_ppm", fraction_ppm)
    if amount_micros is not None:
        request.cumulative_amount_micros = _wire.amount("amount_micros", amount_micros)
    return request


def reinstate_grant(
    grant_key: str,
    *,
    account: str | None,
    unit: str,
    revocation_id: str,
    expected_source: ExpectedSource | None,
    reason: str,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
) -> metering_service_pb2.ReinstateGrantRequest:
    return metering_service_pb2.ReinstateGrantRequest(
        grant_key=grant_key,
        account=_wire.account_or_any(account),
        unit=unit,
        revocation_id=revocation_id,
        expected_source=_wire.expected_source(expected_source),
        reason=reason,
        labels=labels,
        metadata=_wire.struct(metadata),
    )


def balance(
    account: str, *, unit: str, min_seq: int, include_lots: bool
) -> metering_service_pb2.BalanceRequest:
    return metering_service_pb2.BalanceRequest(
        account=account, unit=unit, min_seq=min_seq, include_lots=include_lots
    )

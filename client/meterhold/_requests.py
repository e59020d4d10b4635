"""Arguments → request messages, for both clients.

Checks only what protobuf would let through silently or name badly: amounts that are not int, times
without a zone, enum members that cannot be sent. Everything else is the server's to judge. Fills in
the keys that make a call safe to retry, once per call.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meterhold import _enums, _keys, _metadata
from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.struct_pb2 import Struct

    from meterhold._enums import EntryKind, LotCategory, OnExpiry, Overage, ReservationState
    from meterhold._values import Cash, Source, Usage


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
        amount_micros=amount("amount_micros", amount_micros),
        ttl=_duration("ttl", ttl),
        min_amount_micros=amount("min_amount_micros", min_amount_micros),
        min_available_micros=amount("min_available_micros", min_available_micros),
        on_expiry=_on_expiry(on_expiry),
        labels=labels,
        metadata=_struct(metadata),
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
        amount_micros=amount("amount_micros", amount_micros),
        keep_open=keep_open,
        capture_id=capture_id or (_keys.fresh_key() if keep_open else ""),
        overage=_overage(overage),
        labels=labels,
        usage=_usage(usage),
        metadata=_struct(metadata),
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
    add_amount_micros = amount("add_amount_micros", add_amount_micros)
    return metering_service_pb2.ExtendRequest(
        account=account,
        unit=unit,
        reservation_id=reservation_id,
        ttl=_duration("ttl", ttl),
        add_amount_micros=add_amount_micros,
        on_expiry=_on_expiry(on_expiry),
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
        amount_micros=amount("amount_micros", amount_micros),
        overage=_overage(overage),
        request_id="" if request_id is None else request_id or _keys.fresh_key(),
        labels=labels,
        usage=_usage(usage),
        metadata=_struct(metadata),
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
        amount_micros=amount("amount_micros", amount_micros),
        overage=_overage(overage),
        labels=labels,
        usage=_usage(usage),
        metadata=_struct(metadata),
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
        amount_micros=amount("amount_micros", amount_micros),
        reason=reason,
        category=_category(category),
        priority=priority,
        expire_time=_timestamp("expire_time", expire_time),
        cash=_cash(cash),
        source=_source(source),
        labels=labels,
        metadata=_struct(metadata),
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
        amount_micros=amount("amount_micros", amount_micros),
        expired_lot_grace=_duration("expired_lot_grace", expired_lot_grace),
        reason=reason,
        labels=labels,
        metadata=_struct(metadata),
    )
    if entry_seq is not None:
        request.entry_seq = entry_seq
    if reservation_id is not None:
        request.capture.reservation_id = reservation_id
        request.capture.capture_id = capture_id
    return request


def balance(
    account: str, *, unit: str, min_seq: int, include_lots: bool
) -> metering_service_pb2.BalanceRequest:
    return metering_service_pb2.BalanceRequest(
        account=account, unit=unit, min_seq=min_seq, include_lots=include_lots
    )


def configure_account(
    account: str,
    *,
    unit: str,
    credit_limit_micros: int | None,
    holds_use_credit: bool | None,
    frozen: bool | None,
) -> admin_service_pb2.ConfigureAccountRequest:
    if credit_limit_micros is not None:
        credit_limit_micros = amount("credit_limit_micros", credit_limit_micros)
    return admin_service_pb2.ConfigureAccountRequest(
        account=account,
        unit=unit,
        credit_limit_micros=credit_limit_micros,
        holds_use_credit=holds_use_credit,
        frozen=frozen,
    )


def get_account(account: str, *, unit: str) -> admin_service_pb2.GetAccountRequest:
    return admin_service_pb2.GetAccountRequest(account=account, unit=unit)


def list_accounts(*, account_prefix: str, page_size: int) -> admin_service_pb2.ListAccountsRequest:
    return admin_service_pb2.ListAccountsRequest(account_prefix=account_prefix, page_size=page_size)


def get_reservation(
    account: str, *, reservation_id: str, unit: str
) -> ledger_service_pb2.GetReservationRequest:
    return ledger_service_pb2.GetReservationRequest(
        account=account, unit=unit, reservation_id=reservation_id
    )


def list_reservations(
    account: str, *, unit: str, states: Iterable[ReservationState], page_size: int
) -> ledger_service_pb2.ListReservationsRequest:
    numbers = _enums.RESERVATION_STATE_NUMBERS
    return ledger_service_pb2.ListReservationsRequest(
        account=account,
        unit=unit,
        states=[_enums.to_number("states", state, numbers) for state in states],
        page_size=page_size,
    )


def list_entries(
    account: str, *, unit: str, kinds: Iterable[EntryKind], oldest_first: bool, page_size: int
) -> ledger_service_pb2.ListEntriesRequest:
    numbers = _enums.ENTRY_KIND_NUMBERS
    return ledger_service_pb2.ListEntriesRequest(
        account=account,
        unit=unit,
        kinds=[_enums.to_number("kinds", kind, numbers) for kind in kinds],
        oldest_first=oldest_first,
        page_size=page_size,
    )


def get_entry(
    account: str, *, unit: str, seq: int | None, debit_key: str | None, grant_key: str | None
) -> ledger_service_pb2.GetEntryRequest:
    selectors = (seq, debit_key, grant_key)
    if sum(selector is not None for selector in selectors) != 1:
        raise ValueError("give exactly one of seq, debit_key and grant_key")
    request = ledger_service_pb2.GetEntryRequest(account=account, unit=unit)
    if seq is not None:
        request.seq = seq
    elif debit_key is not None:
        request.debit_key = debit_key
    elif grant_key is not None:
        request.grant_key = grant_key
    return request


def list_lots(
    account: str, *, unit: str, include_spent: bool, page_size: int
) -> ledger_service_pb2.ListLotsRequest:
    return ledger_service_pb2.ListLotsRequest(
        account=account, unit=unit, include_spent=include_spent, page_size=page_size
    )


def amount(argument: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    return value


def _duration(argument: str, value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise TypeError(f"{argument} must be a timedelta, not {type(value).__name__}")
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def _timestamp(argument: str, value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise ValueError(f"{argument} must be an aware datetime; {value!r} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp


def _struct(metadata: Mapping[str, Any] | None) -> Struct | None:
    return None if metadata is None else _metadata.to_struct(metadata)


def _on_expiry(value: OnExpiry | None) -> types_pb2.OnExpiry.ValueType:
    if value is None:
        return types_pb2.ON_EXPIRY_UNSPECIFIED
    return _enums.to_number("on_expiry", value, _enums.ON_EXPIRY_NUMBERS)


def _overage(value: Overage | None) -> types_pb2.Overage.ValueType:
    if value is None:
        return types_pb2.OVERAGE_UNSPECIFIED
    return _enums.to_number("overage", value, _enums.OVERAGE_NUMBERS)


def _category(value: LotCategory | None) -> types_pb2.LotCategory.ValueType:
    if value is None:
        return types_pb2.LOT_CATEGORY_UNSPECIFIED
    return _enums.to_number("category", value, _enums.LOT_CATEGORY_NUMBERS)


def _usage(usage: Usage | None) -> types_pb2.Usage | None:
    if usage is None:
        return None
    return types_pb2.Usage(
        provider=usage.provider,
        model=usage.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        provider_cost_micros=amount("provider_cost_micros", usage.provider_cost_micros),
        stop_reason=usage.stop_reason,
    )


def _cash(cash: Cash | None) -> types_pb2.Cash | None:
    if cash is None:
        return None
    return types_pb2.Cash(
        currency_code=cash.currency_code,
        minor_units=amount("minor_units", cash.minor_units),
    )


def _source(source: Source | None) -> types_pb2.Source | None:
    if source is None:
        return None
    return types_pb2.Source(
        provider=source.provider,
        order_id=source.order_id,
        store_id=source.store_id,
        test_mode=source.test_mode,
        variant_id=source.variant_id,
    )
